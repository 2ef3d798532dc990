"""The entries that each kind's revision gives for sample instances, frozen in `tests/golden`.

Entries that change without a new revision would give one key two diffIDs. To freeze a new
revision, delete the kind's file in `tests/golden` and run `python tests/kinds/test_golden.py`.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from builders import COMMIT, SHA, Known, git_blob, hash_cache_of, links_of, sha256
from layerbuild.kinds import describe, files, gittree, hashcache, huggingface, links, python, weights
from layerbuild.model import LARGE, Content, Directory, Entry, Facts, Instance, Pin, PinnedFile, Target, canonical_json
from layerbuild.schema import FilesLayer, HuggingFaceLayer, PythonLayer
from layerbuild.webui.hashcache import PlacedModel
from layerbuild.wheels.inspection import Wheel, WheelFile

GOLDEN = Path(__file__).parents[1] / "golden"

BARE = Target()
OWNED = Target(
    root="/home/app/webui",
    data_dir="/home/app/data",
    models_dir="/mnt/models",
    embeddings_dir="/home/app/data/embeddings",
    hf_home="/root/.cache/huggingface",
    version=(1, 8, 0),
    uid=1000,
    gid=1001,
    directories=(
        Directory(path="root", mode=0o700, uid=0, gid=0),
        Directory(path="home", mode=0o755, uid=0, gid=0),
        Directory(path="home/app", mode=0o2750, uid=1000, gid=50),
        Directory(path="srv", mode=0o755, uid=0, gid=0),
    ),
)

LISTING = json.dumps(
    [
        {"path": "launch.py", "mode": "100644", "blob": git_blob(b"x"), "size": 1},
        {"path": "modules/ui.py", "mode": "100644", "blob": git_blob(b"yy"), "size": 2},
        {
            "path": "modules-extra/link",
            "mode": "120000",
            "blob": git_blob(b"../launch.py"),
            "size": 12,
            "target": "../launch.py",
        },
        {"path": "webui.sh", "mode": "100755", "blob": git_blob(b"#!"), "size": 2},
    ]
).encode()
COMPILED = json.dumps(
    [
        {"path": path, "mode": mode, "blob": git_blob(path.encode()), "size": size}
        for path, mode, size in (
            ("__pycache__/launch.cpython-310.pyc", "100644", 9),
            ("launch.py", "100755", 1),
            ("modules/__pycache__/readme.txt", "100644", 3),
            ("modules/no_source.py", "100644", 0),
            ("old.pyc", "100644", 4),
        )
    ]
).encode()
HEADER = json.dumps({"__metadata__": {"ss_cover": "x" * 5000, "ssmd_cover_images": "[]", "t": '{"a": 1}'}}).encode()

KNOWN = Known(
    {f"sha256:{SHA['a']}": LARGE, f"sha256:{SHA['b']}": 10, f"sha256:{SHA['c']}": 20, "git:" + "d" * 40: 30},
    (LISTING, COMPILED, HEADER),
    {
        SHA["a"]: Wheel(
            name="alpha",
            version="1.0",
            files={
                "alpha/__init__.py": WheelFile(sha256=SHA["b"], size=10, executable=False),
                "alpha-1.0.data/scripts/run": WheelFile(sha256=SHA["c"], size=20, executable=False),
                "alpha-1.0.data/data/share/x": WheelFile(sha256=SHA["c"], size=20, executable=True),
            },
            scripts={"alpha-1.0.data/scripts/run": b"#!python\n"},
            entry_points={"alpha": "alpha:main"},
        ),
        SHA["d"]: Wheel(name="Beta", version="2", files={}, scripts={}, entry_points={}),
    },
)


def weights_samples() -> list[Instance]:
    contents = [
        Content(size=20, sha256=SHA["c"]),
        Content(size=LARGE, sha256=SHA["a"]),
        Content(size=10, sha256=SHA["b"]),
    ]
    return weights.instances(contents, "sample")


def huggingface_samples() -> list[Instance]:
    layer = HuggingFaceLayer(kind="huggingface", source="hf://acme/clip@main", refs=["main", "refs/pr/1"])
    pin = Pin(
        source=f"hf://acme/clip@{COMMIT}",
        revision=COMMIT,
        ref="v1.0",
        files=(
            PinnedFile(path="config.json", content=Content(size=30, git_blob="d" * 40)),
            PinnedFile(path="model.safetensors", content=Content(size=LARGE, sha256=SHA["a"])),
            PinnedFile(path="onnx/deep/model.onnx", content=Content(size=10, sha256=SHA["b"])),
            PinnedFile(path="onnx/same.onnx", content=Content(size=10, sha256=SHA["b"])),
        ),
        absent=("added_tokens.json", "sub/chat_template.jinja"),
    )
    data = HuggingFaceLayer(kind="huggingface", source="file:x", repository="datasets/acme/d", revision=COMMIT, refs=[])
    local = Pin(source="file:x", files=(PinnedFile(path="a", content=Content(size=10, sha256=SHA["b"])),))
    return [
        huggingface.snapshot(layer, pin, BARE, "clip"),
        huggingface.snapshot(layer, pin, OWNED, "clip"),
        huggingface.snapshot(data, local, BARE, "d"),
    ]


def gittree_samples() -> list[Instance]:
    pin = Pin(source=f"git+https://h/r@{COMMIT}", revision=COMMIT, tree="e" * 40, listing=sha256(LISTING))
    paths = {BARE: "/stable-diffusion-webui", OWNED: "/home/app/webui"}
    trees = [gittree.tree(pin, path, target, "webui") for target, path in paths.items()]
    extension = gittree.tree(pin, "/opt/webui/extensions/x", BARE, "x", extension=True)
    sources = replace(pin, listing=sha256(COMPILED))
    compiled = [replace(BARE, bytecode="3.10"), replace(OWNED, bytecode="3.11.7")]
    return [
        *trees,
        gittree.tree(pin, "/opt/webui/repositories/x", BARE, "x"),
        extension,
        *(gittree.tree(sources, "/opt/webui", target, "x") for target in compiled),
    ]


def files_samples() -> list[Instance]:
    layer = FilesLayer.model_validate(
        {
            "kind": "files",
            "files": {
                "/start.sh": {"content": "#!/bin/sh\n", "mode": "0755"},
                "/srv/worker/ü.txt": {"content": "ü"},
                "/srv/worker/link": {"link": "../x"},
                "/srv/worker.d/a": "https://example.org/a",
                "/root/b": {"source": "hf://a/b@main/b", "mode": "600"},
            },
        }
    )
    pins = {
        "/srv/worker.d/a": Pin(source="s", files=(PinnedFile(path="x", content=Content(size=10, sha256=SHA["b"])),)),
        "/root/b": Pin(source="s", files=(PinnedFile(path="b", content=Content(size=30, git_blob="d" * 40)),)),
    }
    placed = files.placed_model("/mnt/models/VAE/v.pt", Content(size=LARGE, sha256=SHA["a"]), OWNED, "v")
    return [files.files(layer, pins, BARE, "f"), files.files(layer, pins, OWNED, "f"), placed]


def links_samples() -> list[Instance]:
    places = {"/home/app/webui/models/Lora/x.pt": SHA["b"], "/mnt/models/Stable-diffusion/a/b.ckpt": SHA["a"]}
    return [links_of(places, BARE), links_of(places, OWNED)]


def hashcache_samples() -> list[Instance]:
    def placed(type_name: str, name: str, letter: str) -> PlacedModel:
        return PlacedModel(
            type=type_name, name=name, path=f"/{name}", content=Content(size=1, sha256=SHA[letter]), layer=name
        )

    models = [
        placed("checkpoint", "sub/a.safetensors", "a"),
        placed("checkpoint", "b.ckpt", "b"),
        placed("lora", "sub/c.safetensors", "c"),
        placed("lora", "d.pt", "d"),
        placed("vae", "e.pt", "e"),
        placed("embedding", "f.pt", "f"),
        placed("hypernetwork", "g.pt", "a"),
        placed("upscaler", "h.pth", "b"),
    ]
    facts = {
        SHA["a"]: Facts(
            size=9,
            safetensors=True,
            metadata=canonical_json({"modelspec.thumbnail": "x", "t": '{"b": 2}'}),
            header_size=1,
            header_sha256=SHA["e"],
            addnet=SHA["f"],
        ),
        SHA["c"]: Facts(
            size=9, safetensors=True, header_size=len(HEADER), header_sha256=sha256(HEADER), addnet=SHA["d"]
        ),
    }
    extensions = {"sd-x": Pin(source=f"git+https://h/r@{COMMIT}", ref="dev", date=1700000000)}
    forge, sdnext = replace(BARE, flavor="forge"), replace(BARE, flavor="sdnext")
    found = [hash_cache_of(models, facts, target) for target in (BARE, OWNED)]
    found += [hash_cache_of(models, facts, target, extensions) for target in (BARE, forge, sdnext)]
    return [instance for instance in found if instance is not None]


def python_samples() -> list[Instance]:
    def pin(letter: str, size: int) -> Pin:
        content = Content(size=size, sha256=SHA[letter])
        return Pin(source="https://h/x", files=(PinnedFile(path="x.whl", content=content),))

    pins = {"wheel alpha": pin("a", LARGE), "wheel beta": pin("d", 10)}
    plain = {"kind": "python", "requirements": ["alpha"], "python": "3.10"}
    more = {"prefix": "/home/app/venv", "interpreter": "/usr/local/bin/python3.10", "bytecode": "none"}
    found = []
    for declared, target in (plain, BARE), (plain | more, OWNED):
        found += python.instances(PythonLayer.model_validate(declared), pins, target, "packages")
    return found


SAMPLES = {
    weights: weights_samples,
    huggingface: huggingface_samples,
    gittree: gittree_samples,
    files: files_samples,
    links: links_samples,
    hashcache: hashcache_samples,
    python: python_samples,
}
NAMES = [module.KIND for module in SAMPLES]


def frozen(entry: Entry) -> dict[str, Any]:
    fields = {key: value for key, value in asdict(entry).items() if value is not None}
    fields["mode"] = f"{entry.mode:04o}"
    if entry.data is not None:
        fields["data"] = entry.data.decode()
    return fields


def made(module: Any) -> dict[str, Any]:
    samples = [{"key": i.key, "entries": [frozen(e) for e in describe(i, KNOWN)]} for i in SAMPLES[module]()]
    return {"kind": module.KIND, "revision": module.REVISION, "samples": samples}


@pytest.mark.parametrize("module", list(SAMPLES), ids=NAMES)
def test_entries_change_only_with_a_new_revision(module: Any) -> None:
    expected = json.loads((GOLDEN / f"{module.KIND}.json").read_text(encoding="utf-8"))
    now = made(module)
    assert now["revision"] == expected["revision"], f"freeze the new revision of {module.KIND} (see this file's top)"
    message = f"the entries of {module.KIND} changed without a new REVISION: one key would have two diffIDs"
    assert [s["entries"] for s in now["samples"]] == [s["entries"] for s in expected["samples"]], message
    keys = f"the inputs of {module.KIND} changed: every user's layers of this kind get new keys"
    assert [s["key"] for s in now["samples"]] == [s["key"] for s in expected["samples"]], keys


@pytest.mark.parametrize("module", list(SAMPLES), ids=NAMES)
def test_no_entry_for_opt_or_the_root_and_parents_come_first(module: Any) -> None:
    for instance in SAMPLES[module]():
        entries = describe(instance, KNOWN)
        paths = [entry.path for entry in entries]
        assert not {"", "/", "opt"} & set(paths)
        assert len(set(paths)) == len(paths)
        seen = {"", "opt"}
        for path in paths:
            assert path.rpartition("/")[0] in seen
            seen.add(path)


def main() -> None:
    """Freeze the kinds that have no file."""
    GOLDEN.mkdir(exist_ok=True)
    for module in SAMPLES:
        path = GOLDEN / f"{module.KIND}.json"
        if not path.exists():
            path.write_text(json.dumps(made(module), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
