"""Reading images: plan, ls, show, why and diff, on real projects, layouts and registries."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from fixtures.inprocess import Run
from fixtures.project import BIG, Project, safetensors
from layerbuild.cli.tables import columns

_READING = (
    ["plan"],
    ["plan", "--to", "oci:elsewhere"],
    ["ls"],
    *(["ls", what] for what in ("images", "layers", "models", "recipes")),
)
_ESCAPE = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The project of `layerbuild demo`, pushed to oci:images."""
    directory = tmp_path_factory.mktemp("reading")
    Project(directory / "empty", directory / "store").run("demo", str(directory / "demo"))
    return Project(directory / "demo", directory / "demo/.store")


def fits(text: str) -> None:
    """Asserts that a person at a terminal can read it."""
    assert text and not _ESCAPE.search(text), text
    assert [line for line in text.splitlines() if columns(line) > 80] == []


def digests(text: str) -> list[str]:
    return re.findall(r"sha256:[0-9a-f]{64}\b", text)


class TestDemo:
    @pytest.mark.parametrize("command", _READING, ids=" ".join)
    def test_lists_fit(self, demo: Project, run: Run, command: list[str]) -> None:
        fits(run(demo, *command).out)

    @pytest.mark.parametrize("image", ["gallery", "photo-only", "oci:images:gallery:demo"])
    def test_an_image_fits_and_digests_are_whole(self, demo: Project, run: Run, image: str) -> None:
        out = run(demo, "show", image).out
        fits(out)
        assert len(digests(out)) == 1

    def test_models_and_layers_of_the_project(self, demo: Project, run: Run) -> None:
        (image,) = run(demo, "show", "photo-only", "--json").json["images"]
        (model,) = image["models"]
        assert (model["name"], model["type"], model["declaration"]) == (
            "model.safetensors",
            "checkpoint",
            "photo-as-default",
        )
        assert model["source"] == "file:models/photo.safetensors" and model["size"] == 41943176
        weights = next(layer for layer in image["layers"] if layer["kind"] == "weights")
        assert weights["shared"] == ["gallery"] and weights["digest"] == weights["diff_id"]
        assert image["pull"]["bytes"] == sum(layer["size"] for layer in image["layers"])
        assert image["manifest"] == demo.lock["images"]["photo-only"]["manifest"]

    def test_elsewhere_is_the_same_image(self, demo: Project, run: Run) -> None:
        (here,) = run(demo, "show", "gallery", "--json").json["images"]
        (there,) = run(demo, "show", "oci:images:gallery:demo", "--json").json["images"]

        def models(image: Any) -> set[Any]:
            return {(m["name"], m["type"], m["path"], m["sha256"], m["size"], m["layer"]) for m in image["models"]}

        def layers(image: Any) -> list[Any]:
            return [(x["kind"], x["label"], x["key"], x["digest"], x["diff_id"], x["size"]) for x in image["layers"]]

        assert models(here) == models(there) and len(here["models"]) == 3
        assert layers(here) == layers(there) and here["manifest"] == there["manifest"]

    def test_what_a_node_pulls(self, demo: Project, run: Run) -> None:
        found = run(demo, "diff", "gallery", "photo-only", "--json").json
        assert [m["name"] for m in found["models"]["removed"]] == ["paint.safetensors", "ink.safetensors"]
        assert found["models"]["renamed"] == [{"from": "photo.safetensors", "to": "model.safetensors"}]
        by_digest, by_chain = found["pull"]["by_digest"]["bytes"], found["pull"]["by_chain"]["bytes"]
        # Its blobs are in the layout: those that the other manifest does not name are pulled.
        blobs = demo.root / "images/blobs/sha256"

        def named(name: str) -> dict[str, int]:
            digest = demo.lock["images"][name]["manifest"].removeprefix("sha256:")
            return {x["digest"]: x["size"] for x in json.loads((blobs / digest).read_bytes())["layers"]}

        old, new = named("gallery"), named("photo-only")
        assert by_digest == sum(size for digest, size in new.items() if digest not in old)
        assert by_chain == sum(new.values())
        out = run(demo, "diff", "gallery", "photo-only").out
        fits(out)
        assert "by digest (containerd)" in out and "by chain (Docker)" in out
        mixed = run(demo, "diff", "oci:images:gallery:demo", "photo-only", "--json").json
        assert mixed["pull"] == found["pull"]
        assert "pulls nothing for gallery" in " ".join(run(demo, "diff", "gallery", "gallery").out.split())

    def test_every_digest_of_the_lock_is_explained(self, demo: Project, run: Run) -> None:
        lock = demo.lock
        pins = [pin for layer in lock["layers"].values() for pin in layer["pins"].values()]
        asked = {file["sha256"]: "file" for pin in pins for file in pin.get("files", [])}
        asked |= {pin["revision"]: "commit" for pin in pins if "revision" in pin}
        asked |= {pin["tree"]: "git tree" for pin in pins if "tree" in pin}
        asked |= dict.fromkeys(lock["receipts"], "key of a layer")
        for receipt in lock["receipts"].values():
            asked[receipt["diff_id"]] = "diffID of a layer" if receipt.get("blobs") else "layer"
            asked |= {blob["digest"]: f"layer, packed by {blob['encoding']}" for blob in receipt.get("blobs", [])}
        asked |= {image["manifest"]: "manifest of an image" for image in lock["images"].values()}
        asked |= {facts["addnet"]: "file without its header" for facts in lock["files"].values()}
        assert len(asked) > 40
        for digest, what in asked.items():
            (answer,) = run(demo, "why", digest, "--json").json["answers"]
            assert answer["what"].startswith(what) and answer["id"] == digest.removeprefix("sha256:")
            assert answer["images"] and answer["layers"]

    @pytest.mark.parametrize(
        ("thing", "words"),
        [
            ("photo", ["layers/demo.yaml:2", "file:models/photo.safetensors", "weights photo"]),
            ("697f0b42e6", ["layers/demo.yaml:2", "layers/demo.yaml:18", "gallery", "photo-only"]),
            ("SHA256:697F0B42E6", ["layers/demo.yaml:2"]),
            ("model.safetensors", ["photo-as-default", "/srv/webui/models/Stable-diffusion/model.safetensors"]),
            ("gallery", ["recipes/gallery.yaml", "hash-cache gallery"]),
            ("weights ink", ["layers/demo.yaml:12", "70800d36eade"]),
            ("/stable-diffusion-webui/webui.py", ["git-tree webui", "by main, at 1a4bb356369343f107ee"]),
            ("/stable-diffusion-webui/models/../cache.json", ["hash-cache gallery"]),
            ("/opt/worker/start.sh", ["files worker"]),
            ("vocab.json", ["huggingface clip", "/snapshots/32bd64288804d66eefd0ccbe215aa642df71cc41/vocab.json"]),
        ],
    )
    def test_why(self, demo: Project, run: Run, thing: str, words: list[str]) -> None:
        out = run(demo, "why", thing).out
        fits(out)
        joined = re.sub(r"\n\s*", "", out)
        assert [word for word in words if word not in out and word not in joined] == []

    def test_paths_that_only_content_names(self, demo: Project, run: Run) -> None:
        sha256 = next(iter(demo.lock["files"]))
        (answer,) = run(demo, "why", f"/opt/weights/sha256/{sha256}", "--json").json["answers"]
        assert [d["name"] for d in answer["declarations"]] == ["photo", "photo-as-default"]

    def test_errors_of_why(self, demo: Project) -> None:
        demo.run("why", "phot", check=False).failed(
            2, "nothing in the project is called 'phot'", "did you mean 'photo'"
        )
        demo.run("why", "/nowhere/x", check=False).failed(2, "/nowhere/x")
        demo.run("why", "ffffffffff", check=False).failed(2, "nothing in the project")

    def test_errors_of_show_and_diff(self, demo: Project) -> None:
        demo.run("show", "galery", check=False).failed(2, "no image is called 'galery'", "did you mean 'gallery'")
        demo.run("show", "gallery", "--deep", check=False).failed(2, "images that lie elsewhere")
        demo.run("show", "oci:images:nothing:x", check=False).failed(1, "nothing:x")
        demo.run("diff", "gallery", check=False).failed(2, "gallery is an image", "refs/heads/gallery")
        demo.run("diff", "gallery", "lockfile.yaml", check=False).failed(2, "gallery is an image")


def test_a_plan_counts_what_moves(demo: Project, run: Run) -> None:
    out = run(demo, "plan", "--to", "oci:images").out
    value = run(demo, "plan", "--to", "oci:images", "--json").json
    assert out.splitlines()[0] == "2 images, 12 layers, 92.0 MiB; nothing to fetch; 0 B to send"
    assert value["totals"]["present_bytes"] == sum(layer["size"] for layer in value["layers"])
    assert "moves    nothing" in out and "stays    92.0 MiB already there; 12 layers made before, 92.0 MiB" in out


# --- colour ------------------------------------------------------------------------------------------


def at_a_terminal(project: Project, *arguments: str, **more: str) -> str:
    """What a command writes where standard output is a terminal."""
    master, slave = pty.openpty()
    environ = {**project.environ, "TERM": "xterm", **more}
    command = [sys.executable, "-m", "layerbuild", *arguments]
    with subprocess.Popen(command, cwd=project.root, env=environ, stdout=slave, stderr=subprocess.DEVNULL) as process:
        os.close(slave)
        found = b""
        while True:
            try:
                piece = os.read(master, 65536)
            except OSError:
                break
            if not piece:
                break
            found += piece
        assert process.wait(60) == 0
    os.close(master)
    return found.decode()


@pytest.mark.parametrize("command", [["ls"], ["ls", "layers"], ["plan"]], ids=" ".join)
def test_a_project_without_recipes(project: Project, run: Run, command: list[str]) -> None:
    assert run(project, "lock").code == 0
    done = run(project, *command)
    assert (done.code, done.out) == (0, "recipes/ has no recipe yet\n")


@pytest.mark.parametrize("command", [["plan"], ["show", "gallery"], ["diff", "gallery", "photo-only"]], ids=" ".join)
def test_colour_has_a_meaning_and_can_be_refused(demo: Project, command: list[str]) -> None:
    coloured = at_a_terminal(demo, *command)
    assert "\x1b[32m" in coloured or "\x1b[31m" in coloured
    plain = at_a_terminal(demo, *command, NO_COLOR="1")
    assert "\x1b" not in plain
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == plain == demo.run(*command).out.replace("\n", "\r\n")


# --- many images, long names, a base -------------------------------------------------------------------

_LONG = "a-model-with-a-name-that-is-rather-long-and-says-what-it-was-trained-on"
_FOREIGN = f"猫の絵/とても長い名前のモデル{_LONG}.safetensors"
_MANY_LAYERS = f"""
sd: {{kind: model, type: checkpoint, source: file:sd.safetensors, licence: CreativeML-OpenRAIL-M}}
{_LONG}: {{kind: model, type: lora, source: 'file:{_LONG}.safetensors', filename: '{_FOREIGN}'}}
note: {{kind: files, vars: {{n: ''}}, files: {{/opt/note: {{content: '{{{{ n }}}}'}}}}}}
"""
_MANY = f"""
matrix: {{n: [{", ".join(f"'{i:03}'" for i in range(200))}]}}
name: "image-of-a-large-family-with-a-long-name-{{{{ n }}}}"
webui: {{root: /webui}}
layers: [sd, "{_LONG}", note]
tags: ["v{{{{ n }}}}"]
"""


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Two hundred images with long names, locked and not built."""
    directory = tmp_path_factory.mktemp("many")
    found = Project(directory / "project", directory / "store")
    metadata = {"modelspec.license": "\x1b[31mevil\x07", "ss_base_model_version": "sdxl_base_v1-0"}
    found.write(
        {
            "layers/l.yaml": _MANY_LAYERS,
            "recipes/r.yaml": _MANY,
            "sd.safetensors": safetensors(BIG),
            f"{_LONG}.safetensors": safetensors(1000, metadata, seed=1),
        }
    )
    found.run("lock")
    return found


_LAST = "image-of-a-large-family-with-a-long-name-199"


@pytest.mark.parametrize(
    "command",
    [
        *_READING,
        ["show", _LAST],
        ["why", "sd"],
        ["why", _LONG],
        ["why", _LAST],
        ["diff", _LAST, _LAST.replace("199", "000")],
    ],
    ids=lambda command: " ".join(command)[:20],
)
def test_two_hundred_images_fit(many: Project, run: Run, command: list[str]) -> None:
    fits(run(many, *command).out)


def test_what_is_not_built_yet(many: Project, run: Run) -> None:
    out = run(many, "show", _LAST).out
    assert "not built" in out and "sdxl_base_v1-0" in run(many, "show", _LAST, "--json").out
    (image,) = run(many, "show", _LAST, "--json").json["images"]
    lora = next(model for model in image["models"] if model["type"] == "lora")
    assert lora["architecture"] == "sdxl_base_v1-0" and lora["licence"] == "\x1b[31mevil\x07"
    assert image["pull"]["unknown_layers"] > 0 and image["manifest"] is None
    weights = [layer for layer in image["layers"] if layer["kind"] == "weights"]
    assert all(len(layer["shared"]) == 199 for layer in weights) and all(layer["size"] for layer in weights)
    assert "and 180 more, which --json lists" in run(many, "plan").out
    chosen = run(many, "ls", "images", "*-00?", "--json").json["images"]
    assert [image["name"][-3:] for image in chosen] == [f"{i:03}" for i in range(10)]


def test_the_beginning_of_several_digests(many: Project, run: Run) -> None:
    copy = many.copy(many.root.parent / "edited")

    def alike(lock: Any) -> None:
        for i, image in enumerate(lock["images"].values()):
            image["manifest"] = f"sha256:0123456{i:057x}"

    copy.edit_lock(alike)
    words = ("'0123456' is the beginning of several digests", f"0123456{0:057x} (manifest of an image)", "and 188 more")
    copy.run("why", "0123456", check=False).failed(2, *words)
    (answer,) = run(copy, "why", f"0123456{199:057x}", "--json").json["answers"]
    assert [image["name"] for image in answer["images"]] == [_LAST]


class TestBase:
    @pytest.fixture
    def based(self, project: Project, run: Run) -> Iterator[Project]:
        """An image on a base that lies in a layout, and the base."""
        layers = "".join(f"{n}: {{kind: files, files: {{/opt/{n}: {{content: {n}}}}}}}\n" for n in ("one", "two"))
        base = "name: base\nlayers: [one]\ntags: [v1]\ncompression: gzip\n"
        project.write({"layers/l.yaml": layers, "recipes/base.yaml": base})
        for command in (["lock"], ["push", "oci:out"]):
            assert run(project, *command).code == 0
        above = "name: above\nbase: 'oci:out:base:v1'\nlayers: [two]\ntags: [v1]\n"
        project.write({"recipes/above.yaml": above})
        assert run(project, "lock").code == 0
        yield project

    def test_layers_of_a_base_that_was_never_seen(self, based: Project, run: Run) -> None:
        layout, away = based.root / "out", based.root / "away"
        layout.rename(away)
        out = run(based, "show", "above").out
        assert "the base's layers are not counted" in " ".join(out.split())
        away.rename(layout)
        (image,) = run(based, "show", "above", "--json").json["images"]
        assert [layer["kind"] for layer in image["layers"]] == ["base", "files"] and image["pull"]["base_counted"]
        assert "1 layer of the base" in run(based, "show", "above").out

    def test_an_image_without_its_project(self, based: Project, run: Run) -> None:
        assert run(based, "push", "oci:out").code == 0
        (image,) = run(based, "show", "oci:out:above:v1", "--json").json["images"]
        assert [layer["label"] for layer in image["layers"]][1:] == ["two"]
        assert image["base"]["digest"] == based.lock["images"]["above"]["base"]["digest"]
