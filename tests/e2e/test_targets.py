"""How the webui will be started, and what it will find: from declarations to the finished image."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from e2e.readers import MTIME, layout_blob, layout_manifests, members
from fixtures.gitrepo import GitRepo
from fixtures.pickles import harmless
from fixtures.project import Project, safetensors

COMMITTED = 1704067200
"""When every commit of `GitRepo` was made, in Unix seconds."""

INSTALL = """
import launch
launch.run_pip("install insightface==0.7.3", "for faces")
launch.git_clone("https://user:secret@example.org/models.git?token=secret", "x")
"""


@dataclass(frozen=True, kw_only=True)
class Made:
    """An image in a layout: its config, and every path with its header and content."""

    config: dict[str, Any]
    files: dict[str, tuple[tarfile.TarInfo, bytes]]

    @property
    def env(self) -> dict[str, str]:
        return dict(entry.split("=", 1) for entry in self.config["config"]["Env"])

    def json(self, path: str) -> Any:
        return json.loads(self.files[path][1])

    def link(self, path: str) -> bytes:
        """Content of the weights that a link leads to."""
        member, _ = self.files[path]
        assert member.issym(), path
        return self.files[member.linkname[1:]][1]


def made(project: Project, name: str = "i") -> Made:
    """Locks, pushes to a layout, and reads what came."""
    project.run("lock")
    project.run("push", "oci:out")
    layout = project.root / "out"
    manifest = layout_manifests(layout)[f"{name}:v"]
    config = json.loads(layout_blob(layout, manifest["config"]["digest"]))
    return Made(config=config, files=members(layout, manifest))


def declare(project: Project, layers: dict[str, Any], recipe: dict[str, Any]) -> Project:
    """A project with one recipe, whose layers are all the declared ones unless it names others."""
    recipe = {"name": "i", "compression": "gzip", "tags": ["v"], "layers": list(layers), **recipe}
    return project.write({"layers/all.yaml": json.dumps(layers), "recipes/all.yaml": json.dumps(recipe)})


def model(kind: str, name: str, **more: Any) -> dict[str, Any]:
    return {"kind": "model", "type": kind, "source": f"file:{name}", **more}


def checkpoint(*tensors: str) -> bytes:
    """A small safetensors file with such tensors."""
    header = {name: {"dtype": "U8", "shape": [1], "data_offsets": [i, i + 1]} for i, name in enumerate(tensors)}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(len(tensors))


SDXL = checkpoint("conditioner.embedders.0.transformer.x", "conditioner.embedders.1.model.x")
SD2 = checkpoint("cond_stage_model.model.x")


@pytest.fixture
def repository(project: Project) -> Callable[..., str]:
    """Makes a repository in the project; gives its source at its commit."""

    def make(name: str, **files: bytes) -> str:
        (project.root / "git").mkdir(exist_ok=True)
        repo = GitRepo(project.root / "git" / f"{name}.git")
        commit = repo.commit({path.replace("__", "/").replace("_dot_", "."): data for path, data in files.items()})
        return f"git+file:git/{name}.git@{commit}"

    return make


# --- extensions ------------------------------------------------------------------------------------


def test_an_extension_is_a_layer_with_an_empty_git_and_its_entry(
    project: Project, repository: Callable[..., str]
) -> None:
    webui = repository("webui", webui_dot_py=b"", CHANGELOG_dot_md=b"## 1.9.4\n\n## 1.9.3\n")
    extension = repository("ext", install_dot_py=INSTALL.encode(), scripts__a_dot_py=b"x")
    declare(
        project,
        {"webui": {"kind": "webui", "source": webui, "extensions": {"sd-webui-x": extension}}},
        {"webui": {"data_dir": "/data"}},
    )
    first = project.run("lock", "--json").json
    [note] = first["advice"]
    assert note.startswith(
        "webui: sd-webui-x's install.py installs insightface==0.7.3 and downloads https://example.org/"
    )
    assert "launch.py" in note
    assert "secret" not in note
    # It is said when the extension is pinned, and not each time.
    assert project.run("lock", "--json").json["advice"] == []

    image = made(project)
    where = "data/extensions/sd-webui-x"
    git, content = image.files[f"{where}/.git"]
    assert (git.isfile(), git.size, content) == (True, 0, b"")
    assert image.files[f"{where}/scripts/a.py"][1] == b"x"
    entry = image.json("data/cache.json")["extensions-git"]["sd-webui-x"]
    assert entry["mtime"] == git.mtime == MTIME
    commit = extension.rpartition("@")[2]
    assert entry["value"] == {
        "remote": "file:git/ext.git",
        "commit_date": COMMITTED,
        "branch": "main",
        "commit_hash": commit,
        "version": commit[:8],
    }
    assert "stable-diffusion-webui/.git" not in image.files
    assert len(image.config["rootfs"]["diff_ids"]) == 3


def test_a_note_for_people(project: Project, repository: Callable[..., str]) -> None:
    extension = repository("ext", install_dot_py=b"print 'python 2'\n")
    webui = repository("webui", webui_dot_py=b"")
    declare(project, {"w": {"kind": "webui", "source": webui, "extensions": {"x": extension}}}, {})
    assert "note: w: x's install.py cannot be read, and may fetch anything" in project.run("lock").out


def test_extensions_that_depend_on_a_variable_have_a_pin_each(project: Project, repository: Callable[..., str]) -> None:
    webui = repository("webui", webui_dot_py=b"")
    one = repository("one", a_dot_py=b"1").rpartition("@")[2]
    two = repository("two", a_dot_py=b"2").rpartition("@")[2]
    layer = {"kind": "webui", "source": webui, "extensions": {"x": "git+file:git/{{ ext }}.git@main"}}
    declare(project, {"w": layer}, {"matrix": {"ext": ["one", "two"]}, "name": "i-{{ ext }}"})
    project.run("lock")
    pins = project.lock["layers"]
    assert sorted(pins) == ["w[ext=one]", "w[ext=two]"]
    found = [pins[name]["pins"]["extensions/x"]["revision"] for name in sorted(pins)]
    assert found == [one, two]


@pytest.mark.parametrize(("version", "flavor"), [("1.4.0", "a1111"), ("1.10.1", "sdnext")])
def test_webuis_that_ask_git_itself_get_no_empty_git(
    project: Project, repository: Callable[..., str], version: str, flavor: str
) -> None:
    webui, extension = repository("webui", webui_dot_py=b""), repository("ext", a_dot_py=b"x")
    layer = {"kind": "webui", "source": webui, "version": version, "flavor": flavor, "extensions": {"x": extension}}
    declare(project, {"w": layer}, {"webui": {"flavor": flavor}})
    files = made(project).files
    assert "stable-diffusion-webui/extensions/x/a.py" in files
    assert not [path for path in files if path.endswith((".git", "cache.json"))]


# --- places ----------------------------------------------------------------------------------------


def test_directories_by_flag(project: Project) -> None:
    kinds = {
        "checkpoint": "/checks",
        "lora": "/l",
        "vae": "/v",
        "hypernetwork": "/h",
        "embedding": "/e",
        "upscaler": "/m/ESRGAN",
    }
    project.write({f"{kind}.pt": harmless(kind) for kind in kinds})
    layers: dict[str, Any] = {kind: model(kind, f"{kind}.pt") for kind in kinds}
    layers["flags"] = {"kind": "files", "files": {"/flags": {"content": "{{ webui.flags | join(' ') }}"}}}
    webui = {"ckpt_dir": "/checks", "lora_dir": "/l/", "vae_dir": "/v", "hypernetwork_dir": "/h"}
    declare(project, layers, {"webui": {**webui, "embeddings_dir": "/e", "models_dir": "/m"}})
    image = made(project)
    for kind, directory in kinds.items():
        assert image.link(f"{directory[1:]}/{kind}.pt") == harmless(kind)
    assert set(image.json("stable-diffusion-webui/cache.json")["hashes"]) == {
        "checkpoint/checkpoint.pt", "lora/lora", "vae", "hypernet/hypernetwork", "textual_inversion/embedding",
    }  # fmt: skip
    flags = image.files["flags"][1].decode()
    assert flags == (
        "--models-dir /m --embeddings-dir /e --ckpt-dir /checks --lora-dir /l --vae-dir /v --hypernetwork-dir /h"
    )


def test_a_checkpoint_at_the_path_that_the_start_names(project: Project) -> None:
    project.write({"sd.safetensors": safetensors(10, {"a": "b"}), "other.ckpt": harmless("o"), "sd.yaml": b"y"})
    sd = model("checkpoint", "sd.safetensors", sidecars={".yaml": "file:sd.yaml"})
    declare(project, {"sd": sd}, {"webui": {"ckpt": "/model.safetensors"}})
    image = made(project)
    assert image.link("model.safetensors") == safetensors(10, {"a": "b"})
    assert image.link("model.yaml") == b"y"
    cache = image.json("stable-diffusion-webui/cache.json")
    assert set(cache["hashes"]) == set(cache["safetensors-metadata"]) == {"checkpoint/model.safetensors"}
    # Of several it is the one of that name.
    layers = {"sd": model("checkpoint", "sd.safetensors"), "other": model("checkpoint", "other.ckpt")}
    declare(project, layers, {"webui": {"ckpt": "/x/other.ckpt"}})
    cache = made(project).json("stable-diffusion-webui/cache.json")
    assert set(cache["hashes"]) == {"checkpoint/sd.safetensors", "checkpoint/other.ckpt"}
    declare(project, layers, {"webui": {"ckpt": "/model.ckpt"}})
    project.run("lock", check=False).failed(2, "webui.ckpt", "no checkpoint", "filename: model.ckpt")


def test_directories_that_the_webui_does_not_list(project: Project) -> None:
    project.write({"sd.ckpt": harmless("x")})
    declare(project, {"sd": model("checkpoint", "sd.ckpt")}, {"webui": {"models_dir": "/root/.models"}})
    project.run("lock", check=False).failed(2, "/root/.models/Stable-diffusion/sd.ckpt", "begins with a dot")


def test_the_cache_where_variables_name_it(project: Project) -> None:
    project.write({"sd.ckpt": harmless("x")})
    webui = {"cache_file": "/opt/cache/hashes.json", "cache_dir": "/tmp/webui/cache/", "version": "1.10.1"}
    declare(project, {"sd": model("checkpoint", "sd.ckpt")}, {"webui": webui})
    image = made(project)
    assert image.env == {"SD_WEBUI_CACHE_FILE": "/opt/cache/hashes.json", "SD_WEBUI_CACHE_DIR": "/tmp/webui/cache"}
    assert list(image.json("opt/cache/hashes.json")["hashes"]) == ["checkpoint/sd.ckpt"]
    assert not [path for path in image.files if path.startswith("tmp") or path.endswith("cache.json")]


# --- flavors ---------------------------------------------------------------------------------------


def test_forge_and_sdnext(project: Project) -> None:
    lora = safetensors(10, {"a": "b"})
    project.write({"l.safetensors": lora, "c.ckpt": harmless("c"), "e.pt": harmless("e")})
    layers = {
        "l": model("lora", "l.safetensors"),
        "c": model("checkpoint", "c.ckpt"),
        "e": model("embedding", "e.pt"),
    }
    recipe = {"matrix": {"f": ["forge", "sdnext"]}, "name": "i-{{ f }}", "webui": {"root": "/w", "flavor": "{{ f }}"}}
    declare(project, layers, recipe)
    whole, rest = hashlib.sha256(lora).hexdigest(), hashlib.sha256(lora[8 + int.from_bytes(lora[:8], "little") :])
    forge, sdnext = made(project, "i-forge"), made(project, "i-sdnext")
    cache = forge.json("w/cache.json")
    assert cache["hashes-addnet"]["lora/l"]["sha256"] == whole
    assert cache["safetensors-metadata"]["lora/l"]["value"] == {"a": "b"}
    assert forge.link("w/embeddings/e.pt") == sdnext.link("w/models/embeddings/e.pt") == harmless("e")
    cache = sdnext.json("w/data/cache.json")
    assert cache["hashes-addnet"]["lora/l"]["sha256"] == rest.hexdigest()
    assert set(cache["hashes"]) == {"checkpoint/c", "checkpoint/c.ckpt", "textual_inversion/e"}
    assert "safetensors-metadata" not in cache
    assert "w/cache.json" not in sdnext.files


@pytest.mark.parametrize(
    ("webui", "words"),
    [
        ({"flavor": "forge"}, ["the recipe says forge, the webui layer is sdnext", "leave 'flavor' out"]),
        ({}, ["the webui layer is sdnext", "say 'webui: {flavor: sdnext}'"]),
        ({"flavor": "sdnext", "cache_dir": "/tmp/x"}, ["sdnext keeps its hash cache in the data directory"]),
    ],
)
def test_flavors_that_do_not_fit(project: Project, webui: dict[str, str], words: list[str]) -> None:
    layer = {"kind": "webui", "source": f"git+https://example.org/r@{'0' * 40}", "flavor": "sdnext"}
    declare(project, {"w": layer}, {"webui": webui})
    project.run("lock", check=False).failed(2, "recipes/all.yaml", *words)


# --- releases --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changelog", "embeddings"), [(b"# Changes\n\n## 1.4.1\n", False), (b"## 1.5.0\n", True), (b"soon\n", True)]
)
def test_the_release_by_the_changelog_of_the_pinned_commit(
    project: Project, repository: Callable[..., str], changelog: bytes, embeddings: bool
) -> None:
    webui = repository("webui", webui_dot_py=b"", CHANGELOG_dot_md=changelog)
    project.write({"e.pt": harmless("e"), "h.pt": harmless("h")})
    layers = {
        "w": {"kind": "webui", "source": webui},
        "e": model("embedding", "e.pt"),
        "h": model("hypernetwork", "h.pt"),
    }
    declare(project, layers, {})
    found = {"hypernet/h", *({"textual_inversion/e"} if embeddings else ())}
    assert set(made(project).json("stable-diffusion-webui/cache.json")["hashes"]) == found
    # What a declaration says wins over what the tree says of itself.
    layers["w"]["version"] = "1.10.1"
    declare(project, layers, {})
    assert "textual_inversion/e" in made(project).json("stable-diffusion-webui/cache.json")["hashes"]


# --- advice ----------------------------------------------------------------------------------------


def test_what_is_missing_is_named_until_it_is_there(project: Project) -> None:
    project.write({"xl.safetensors": SDXL, "v2.safetensors": SD2, "v.pt": b"v", "c/vocab.json": b"{}", "y": b"y"})
    layers: dict[str, Any] = {"xl": model("checkpoint", "xl.safetensors"), "v2": model("checkpoint", "v2.safetensors")}
    declare(project, layers, {"webui": {"version": "1.10.1"}})
    notes = project.run("lock", "--json").json["advice"]
    assert notes[0] == (
        "i: xl.safetensors is sdxl: its start asks for openai/clip-vit-large-patch14 (try: add the layer clip-l14)"
    )
    assert notes[1].endswith("(try: add the layer vaeapprox-sdxl)")
    assert "v2.safetensors is sd2 without its .yaml" in notes[2]
    assert len(notes) == 3
    before = project.lockfile.read_bytes()
    assert b"architecture: sdxl" in before
    # The same for people, in a run that has nothing to do; and it is no drift.
    out = project.run("lock").out
    assert [line.removeprefix("note: ") for line in out.splitlines() if line.startswith("note: ")] == notes
    project.run("lock", "--check")
    assert project.lockfile.read_bytes() == before

    # As the catalog brings them, from files that are here; and offline.
    clip = {"kind": "huggingface", "source": "file:c", "repository": "openai/clip-vit-large-patch14"}
    layers["clip"] = {**clip, "revision": "32bd64288804d66eefd0ccbe215aa642df71cc41"}
    layers["v"] = model("vae-approx", "v.pt", filename="vaeapprox-sdxl.pt")
    layers["v2"]["sidecars"] = {".yaml": "file:y"}
    declare(project, layers, {"webui": {"version": "1.10.1"}})
    assert project.run("lock", "--json").json["advice"] == []
    declare(project, layers, {"webui": {"version": "1.10.1"}, "config": {"env": {"HF_HUB_OFFLINE": "0"}}})
    [note] = project.run("lock", "--json").json["advice"]
    assert note == (
        "i: its config sets HF_HUB_OFFLINE to '0', its layers need '1' (try: leave HF_HUB_OFFLINE out of 'config.env')"
    )
