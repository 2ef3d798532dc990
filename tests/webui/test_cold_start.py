"""Images of many models, read by the rules of every release: nothing is hashed at a start, and no entry is useless.

The rules are written here a second time, from what the webui's code does, and share nothing with
layerbuild's. They are given the image's paths and the flags that layerbuild names.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import posixpath
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import Known, facts_of, images_of, sha256
from layerbuild.compose import compose
from layerbuild.kinds import describe, hashcache, links, weights
from layerbuild.lockmodel import Lock, LockedLayer
from layerbuild.model import MTIME, Content, Pin, PinnedFile
from layerbuild.webui.modeltypes import flags

RELEASES = ["1.4.0", "1.5.2", "1.6.1", "1.7.0", "1.8.0", "1.9.0", "1.9.3", "1.9.4", "1.10.0", "1.10.1"]
EXTENSIONS = {
    "checkpoint": [".safetensors", ".ckpt"],
    "lora": [".safetensors", ".pt", ".ckpt"],
    "vae": [".safetensors", ".pt"],
    "embedding": [".safetensors", ".pt", ".bin"],
    "hypernetwork": [".pt"],
    "upscaler": [".pth"],
    "controlnet": [".safetensors", ".pth"],
    "vae-approx": [".pt"],
    "vae-taesd": [".pth"],
    "codeformer": [".pth"],
    "gfpgan": [".pth"],
    "blip": [".pth"],
    "deepbooru": [".pt"],
}
METADATA: list[dict[str, str] | None] = [
    None,
    {},
    {"sshs_model_hash": "ab" * 32},
    {"ss_tag_frequency": '{"a": 1}', "broken": "{no", "list": "[1]"},
    {"modelspec.thumbnail": "data:image/png", "ssmd_cover_images": '["x"]', "title": "t"},
]


# --- the webui -------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class File:
    """What `open` and `os.path.getmtime` give for a path, links followed."""

    data: bytes
    mtime: float


class Webui:
    """A release that looks at a file system: what it reads from its cache at a start and on use."""

    def __init__(self, release: str, root: str, argv: list[str], files: dict[str, File]) -> None:
        self.release = tuple(map(int, release.split(".")))
        self.files = files
        parser = argparse.ArgumentParser()
        for name in ("data", "models", "ckpt", "lora", "vae", "embeddings", "hypernetwork"):
            parser.add_argument(f"--{name}-dir")
        parser.add_argument("--ckpt")
        self.options = parser.parse_args(argv)
        self.data = self.options.data_dir or root
        self.models = self.options.models_dir or f"{self.data}/models"

    def walk(self, directory: str | None, *extensions: str) -> Iterator[str]:
        for path in sorted(self.files):
            inside = directory is not None and path.startswith(f"{directory}/")
            if inside and posixpath.splitext(path)[1] in extensions and "/." not in posixpath.dirname(path):
                yield path

    def checkpoints(self) -> dict[str, str]:
        """Name -> path."""
        own = f"{self.models}/Stable-diffusion"
        found = {}
        listed = [*self.walk(own, ".ckpt", ".safetensors"), *self.walk(self.options.ckpt_dir, ".ckpt", ".safetensors")]
        for path in [*listed, *([self.options.ckpt] if self.options.ckpt else [])]:
            if self.options.ckpt_dir and path.startswith(self.options.ckpt_dir):
                name = path.replace(self.options.ckpt_dir, "")
            elif path.startswith(own):
                name = path.replace(own, "")
            else:
                name = posixpath.basename(path)
            found[name[1:] if name.startswith("/") else name] = path
        return found

    def asks(self) -> Iterator[tuple[str, str, str, Any]]:
        """Section, key, path of the file whose time counts, and what it would compute."""
        for name, path in self.checkpoints().items():
            yield "hashes", f"checkpoint/{name}", path, sha256(self.files[path].data)
            if path.endswith(".safetensors") and self.release >= (1, 6):
                kept = {k: v for k, v in self.header(path).items() if k != "modelspec.thumbnail"}
                yield "safetensors-metadata", f"checkpoint/{name}", path, kept
        for path in self.walk(self.options.lora_dir or f"{self.models}/Lora", ".pt", ".ckpt", ".safetensors"):
            yield from self.lora(path, f"lora/{posixpath.splitext(posixpath.basename(path))[0]}")
        vaes = {
            *self.walk(f"{self.models}/VAE", ".pt", ".safetensors"),
            *self.walk(self.options.vae_dir, ".pt", ".safetensors"),
        }
        if self.release >= (1, 6) and len(vaes) == 1:
            (path,) = vaes
            yield "hashes", "vae", path, sha256(self.files[path].data)
        if self.release >= (1, 5):
            for path in self.walk(
                self.options.embeddings_dir or f"{self.data}/embeddings", ".pt", ".bin", ".safetensors"
            ):
                stem = posixpath.splitext(posixpath.basename(path))[0]
                yield "hashes", f"textual_inversion/{stem}", path, sha256(self.files[path].data)
        for path in self.walk(self.options.hypernetwork_dir or f"{self.models}/hypernetworks", ".pt"):
            stem = posixpath.splitext(posixpath.basename(path))[0]
            yield "hashes", f"hypernet/{stem}", path, sha256(self.files[path].data)

    def lora(self, path: str, key: str) -> Iterator[tuple[str, str, str, Any]]:
        data = self.files[path].data
        if not path.endswith(".safetensors"):
            yield "hashes", key, path, sha256(data)
            return
        metadata = self.header(path)
        if self.release >= (1, 5):
            dropped = () if self.release >= (1, 9) else ("ssmd_cover_images",)
            yield "safetensors-metadata", key, path, {k: v for k, v in metadata.items() if k not in dropped}
        if not metadata.get("sshs_model_hash"):
            offset = 8 + int.from_bytes(data[:8], "little")
            yield "hashes-addnet", key, path, hashlib.sha256(data[offset:]).hexdigest()

    def header(self, path: str) -> dict[str, Any]:
        data = self.files[path].data
        value: dict[str, Any] = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        found = dict(value.get("__metadata__", {}))
        for key, text in found.items():
            if text[:1] == "{":
                try:
                    found[key] = json.loads(text)
                except ValueError:
                    continue
        return found


# --- the image -------------------------------------------------------------------------------------


def content(number: int, metadata: dict[str, str] | None, extension: str) -> bytes:
    body = b"%d" % number * 9
    if extension != ".safetensors":
        return body
    value: dict[str, Any] = {"t": {"dtype": "U8", "shape": [len(body)], "data_offsets": [0, len(body)]}}
    header = json.dumps(value if metadata is None else {"__metadata__": metadata, **value}).encode()
    return len(header).to_bytes(8, "little") + header + body


@dataclass(frozen=True)
class Sample:
    """A model of a recipe."""

    type: str
    filename: str
    data: bytes


@st.composite
def samples(draw: st.DrawFn) -> list[Sample]:
    found = []
    for number in range(draw(st.integers(1, 40))):
        kind = draw(st.sampled_from(sorted(EXTENSIONS)))
        extension = draw(st.sampled_from(EXTENSIONS[kind]))
        folder = draw(st.sampled_from(["", "sub/", "a b/c/"]))
        data = content(number, draw(st.sampled_from(METADATA)), extension)
        found.append(Sample(kind, f"{folder}m{number}{extension}", data))
    return found


WEBUIS: list[dict[str, str]] = [
    {},
    {"root": "/srv/webui", "data_dir": "/data"},
    {"models_dir": "/mnt/models", "embeddings_dir": "/mnt/embeddings"},
    {"ckpt_dir": "/c", "lora_dir": "/l", "vae_dir": "/v", "hypernetwork_dir": "/h"},
    {"data_dir": "/data/", "ckpt_dir": "/data/models/Stable-diffusion/more/", "lora_dir": "/data/loras/"},
]


def image_of(models: list[Sample], webui: dict[str, str], release: str) -> tuple[str, list[str], dict[str, File], Any]:
    """Root, flags, files and the hash cache of an image."""
    layers, pins, facts = {}, {}, {}
    for number, model in enumerate(models):
        layers[f"l{number}"] = {"kind": "model", "type": model.type, "source": "file:x", "filename": model.filename}
        pinned = PinnedFile(path="x", content=Content(size=len(model.data), sha256=sha256(model.data)))
        pins[f"l{number}"] = LockedLayer(declaration="0" * 64, pins={"model": Pin(source="file:x", files=(pinned,))})
        facts[sha256(model.data)] = facts_of(model.data)
    recipe = {"name": "i", "webui": {**webui, "version": release}, "layers": list(layers)}
    with tempfile.TemporaryDirectory() as root:
        [declaration] = images_of(
            Path(root), {"layers/l.yaml": json.dumps(layers), "recipes/r.yaml": json.dumps(recipe)}
        )
    [image] = compose([declaration], replace(Lock(), layers=pins, files=facts))
    assert not image.pending
    known = Known({f"sha256:{sha256(m.data)}": len(m.data) for m in models})
    entries = {k: {} for k in (links.KIND, weights.KIND, hashcache.KIND)}
    for layer in image.layers:
        assert layer.instance is not None
        entries[layer.kind] |= {f"/{entry.path}": entry for entry in describe(layer.instance, known)}
    contents = {sha256(model.data): model.data for model in models}
    files = {}
    for path, entry in entries[links.KIND].items():
        if entry.type == "symlink":
            goal = entries[weights.KIND][entry.target].content
            files[path] = File(data=contents[goal.sha256], mtime=float(MTIME))
    caches = [(path, entry.data) for path, entry in entries[hashcache.KIND].items() if entry.type == "file"]
    target = image.target
    if not caches:
        return target.root, flags(target), files, {}
    [(path, data)] = caches
    assert path == f"{target.data_dir}/cache.json"
    return target.root, flags(target), files, json.loads(data)


def check(release: str, root: str, argv: list[str], files: dict[str, File], cache: Any) -> None:
    """Every entry that the release asks for is there and valid, and no other."""
    asked = set()
    for section, key, path, value in Webui(release, root, argv, files).asks():
        asked.add((section, key))
        entry = cache[section][key]
        # A release takes an entry unless the file is younger; the development branch unless the times differ.
        assert files[path].mtime == entry["mtime"], key
        assert entry["value" if section == "safetensors-metadata" else "sha256"] == value, key
    assert {(section, key) for section, entries in cache.items() for key in entries} == asked


@pytest.mark.parametrize("release", RELEASES)
@settings(max_examples=12, derandomize=True, database=None)
@given(models=samples(), webui=st.sampled_from(WEBUIS))
def test_nothing_is_hashed_and_nothing_is_superfluous(
    release: str, models: list[Sample], webui: dict[str, str]
) -> None:
    root, argv, files, cache = image_of(models, webui, release)
    assert len(files) == len(models)
    check(release, root, argv, files, cache)


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize(
    ("webui", "name"),
    [
        ({"ckpt": "/model.safetensors"}, "model.safetensors"),
        ({"ckpt": "/c/sub/model.safetensors", "ckpt_dir": "/c"}, "sub/model.safetensors"),
        ({"ckpt": "/stable-diffusion-webui/models/Stable-diffusion/x/y.safetensors"}, "x/y.safetensors"),
        # The webui compares text and not directories, and drops every occurrence.
        ({"ckpt": "/c-more/model.safetensors", "ckpt_dir": "/c"}, "-more/model.safetensors"),
        ({"ckpt": "/c/x/c/model.safetensors", "ckpt_dir": "/c"}, "x/model.safetensors"),
        ({"ckpt": "/.hidden/model.safetensors"}, "model.safetensors"),
    ],
)
def test_a_checkpoint_that_a_flag_names(release: str, webui: dict[str, str], name: str) -> None:
    model = Sample("checkpoint", "renamed.safetensors", content(1, {"a": "b"}, ".safetensors"))
    root, argv, files, cache = image_of([model], webui, release)
    assert list(files) == [webui["ckpt"]]
    assert list(cache["hashes"]) == [f"checkpoint/{name}"]
    check(release, root, argv, files, cache)


def test_a_checkpoint_in_a_directory_whose_name_repeats() -> None:
    """Every occurrence of the directory's name is dropped by the webui, wherever the model lies."""
    model = Sample("checkpoint", "x/c/m.ckpt", b"x")
    root, argv, files, cache = image_of([model], {"ckpt_dir": "/c"}, "1.10.1")
    assert list(cache["hashes"]) == ["checkpoint/x/m.ckpt"]
    check("1.10.1", root, argv, files, cache)
