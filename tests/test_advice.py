"""What is said of an image before it is built. How the command says it is in e2e/test_targets.py."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builders import SHA, images_of
from layerbuild.advice import advise
from layerbuild.compose import compose
from layerbuild.lockmodel import Lock, LockedLayer
from layerbuild.model import Content, Facts, Pin, PinnedFile

CLIP: dict[str, Any] = {
    "kind": "huggingface",
    "source": "hf://openai/clip-vit-large-patch14@main",
    "files": ["vocab.json"],
}
REVISION = "32bd64288804d66eefd0ccbe215aa642df71cc41"


def model(kind: str, name: str, **more: Any) -> dict[str, Any]:
    return {"kind": "model", "type": kind, "source": f"file:{name}", **more}


def advice(root: Path, layers: dict[str, Any], recipe: dict[str, Any], **architectures: str) -> list[str]:
    """What is advised for an image of these layers, whose checkpoints are such architectures."""
    pins, facts = {}, {}
    for letter, (name, layer) in zip("abcdef", layers.items(), strict=False):
        content = Content(size=9, sha256=SHA[letter])
        path = layer.get("source", "x").rpartition("/")[2].removeprefix("file:")
        pin = Pin(source=layer.get("source", "x"), revision=REVISION, files=(PinnedFile(path=path, content=content),))
        roles = {"model": pin, "snapshot": pin, **{f"sidecar {s}": pin for s in layer.get("sidecars", {})}}
        pins[name] = LockedLayer(declaration="0" * 64, pins={**roles, **dict.fromkeys(layer.get("files", ()), pin)})
        facts[SHA[letter]] = Facts(
            size=9, safetensors=True, header_sha256=SHA["f"], metadata="{}", architecture=architectures.get(name)
        )
    files = {"layers/l.yaml": json.dumps(layers), "recipes/r.yaml": json.dumps({"layers": list(layers), **recipe})}
    images = compose(images_of(root, files), replace(Lock(), layers=pins, files=facts))
    return list(map(str, advise(images, replace(Lock(), layers=pins, files=facts))))


NEW: dict[str, Any] = {"webui": {"version": "1.10.1"}}
XL = {"xl": model("checkpoint", "xl.safetensors")}


@pytest.mark.parametrize(
    ("architecture", "layers"),
    [
        ("sd1", ["clip-l14"]),
        ("sd1-inpainting", ["clip-l14"]),
        ("sdxl", ["clip-l14", "vaeapprox-sdxl"]),
        ("sdxl-refiner", ["vaeapprox-sdxl"]),
        ("sd3", ["clip-l14", "t5-v1_1-xxl-tokenizer", "vaeapprox-sd3"]),
        ("something-new", []),
    ],
)
def test_each_architecture_names_its_layers(tmp_path: Path, architecture: str, layers: list[str]) -> None:
    notes = advice(tmp_path, XL, NEW, xl=architecture)
    assert [note.partition("(try: add the layer ")[2].rstrip(")") for note in notes] == layers
    assert all("unless the base holds it" not in note for note in notes)


def test_a_base_may_hold_what_is_missing(tmp_path: Path) -> None:
    recipe = {"base": "a/b:1", "webui": {"provided_by": "base", "version": "1.10.1"}}
    notes = advice(tmp_path, XL, recipe, xl="sdxl")
    assert len(notes) == 2
    assert all("unless the base holds it" in note for note in notes)


def test_what_is_there_is_not_asked_for(tmp_path: Path) -> None:
    some = {**XL, "clip": CLIP}
    assert len(advice(tmp_path / "a", some, NEW, xl="sdxl")) == 1
    preview = model("vae-approx", "x/vaeapprox-sdxl.pt")
    assert advice(tmp_path / "b", {**some, "v": preview}, NEW, xl="sdxl") == []
    place = "/stable-diffusion-webui/models/VAE-approx/vaeapprox-sdxl.pt"
    assert advice(tmp_path / "c", {**some, "v": {"kind": "files", "files": {place: "file:v.pt"}}}, NEW, xl="sdxl") == []
    # Not where the webui looks.
    moved = {"webui": {"version": "1.10.1", "models_dir": "/m"}}
    file = {"kind": "files", "files": {place: "file:v.pt"}}
    assert len(advice(tmp_path / "d", {**some, "v": file}, moved, xl="sdxl")) == 1


def test_ten_checkpoints_lack_the_same_file_once(tmp_path: Path) -> None:
    layers = {**XL, "other": model("checkpoint", "y.safetensors")}
    notes = advice(tmp_path, layers, NEW, xl="sdxl", other="sdxl")
    assert len(notes) == 2
    assert all(note.startswith("r: xl.safetensors is sdxl") for note in notes)


def test_forks_bring_their_own(tmp_path: Path) -> None:
    for flavor in ("forge", "sdnext"):
        assert advice(tmp_path / flavor, XL, {"webui": {"flavor": flavor}}, xl="sdxl") == []


@pytest.mark.parametrize(
    ("architecture", "version", "since"),
    [("sdxl", "1.4.0", "1.5"), ("sdxl-refiner", "1.5.2", "1.6"), ("sd3", "1.9.4", "1.10"), ("sd3", "1.10.0", "")],
)
def test_releases_that_do_not_know_an_architecture(tmp_path: Path, architecture: str, version: str, since: str) -> None:
    notes = advice(tmp_path, XL, {"webui": {"version": version}}, xl=architecture)
    assert [f"which the webui knows from {since} on" in note for note in notes].count(True) == bool(since)


def test_an_sd2_checkpoint_without_its_configuration(tmp_path: Path) -> None:
    [note] = advice(tmp_path / "a", XL, NEW, xl="sd2")
    assert "xl.safetensors is sd2 without its .yaml" in note
    assert "sidecars" in note
    beside = {"xl": model("checkpoint", "xl.safetensors", sidecars={".yaml": "file:x.yaml"})}
    assert advice(tmp_path / "b", beside, NEW, xl="sd2") == []
    other = {"xl": model("checkpoint", "xl.safetensors", sidecars={".png": "file:x.png"})}
    assert len(advice(tmp_path / "c", other, NEW, xl="sd2")) == 1


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"HF_HUB_OFFLINE": "0"}, ["HF_HUB_OFFLINE to '0'", "need '1'", "leave HF_HUB_OFFLINE out"]),
        ({"HF_HUB_OFFLINE": 0}, ["HF_HUB_OFFLINE to '0'"]),
        ({"HF_HUB_OFFLINE": False}, ["HF_HUB_OFFLINE to 'False'"]),
        ({"HF_HOME": "/cache"}, ["HF_HOME to '/cache'", "'/opt/huggingface'"]),
        ({"HF_HUB_CACHE": "/cache"}, ["HF_HUB_CACHE to '/cache'", "/opt/huggingface/hub"]),
        ({"HF_HUB_OFFLINE": 1, "HF_HOME": "/opt/huggingface/", "HF_HUB_CACHE": "/opt/huggingface/hub"}, []),
        ({"HF_HUB_OFFLINE": True}, []),
        ({"SD_WEBUI_CACHE_DIR": "/elsewhere"}, ["SD_WEBUI_CACHE_DIR to '/elsewhere'", "'/tmp/c'"]),
        ({"SD_WEBUI_CACHE_DIR": "/tmp/c"}, []),
    ],
)
def test_variables_that_lead_away_from_the_layers(tmp_path: Path, env: dict[str, Any], words: list[str]) -> None:
    notes = advice(tmp_path, {"clip": CLIP}, {"webui": {"cache_dir": "/tmp/c/"}, "config": {"env": env}})
    assert len(notes) == bool(words)
    assert all(word in notes[0] for word in words)


def test_variables_of_an_image_without_snapshots_are_its_own(tmp_path: Path) -> None:
    env = {"HF_HUB_OFFLINE": "0", "HF_HOME": "/x", "HF_HUB_CACHE": "/y"}
    assert advice(tmp_path, XL, {**NEW, "config": {"env": env}}) == []


@pytest.mark.parametrize(
    ("webui", "more", "word"),
    [
        ({"cache_dir": "/data/models"}, {}, "/data/models is in the image"),
        ({"cache_dir": "/srv/x"}, {}, "/srv/x is in the image"),
        ({"cache_dir": "/srv"}, {}, "/srv is in the image"),
        ({"cache_dir": "/data/models", "version": "1.8.0"}, {}, ""),
        ({"cache_dir": "/srv/x-cache"}, {}, ""),
        ({"data_dir": "/srv"}, {}, ""),
        ({}, {"config": {"user": "1000:1000"}}, "user 1000 cannot write below /data"),
        ({"version": "1.8.0"}, {"config": {"user": "1000"}}, ""),
        ({}, {"config": {"user": "1000"}, "owner": {"uid": 1000}}, ""),
        ({"cache_dir": "/tmp/c"}, {"config": {"user": "1000"}}, ""),
        ({}, {"config": {"user": "app"}}, ""),
        ({}, {"config": {"user": "0:0"}}, ""),
    ],
)
def test_cache_directories_that_cannot_be_made(
    tmp_path: Path, webui: dict[str, str], more: dict[str, Any], word: str
) -> None:
    layers = {**XL, "n": {"kind": "files", "files": {"/srv/x": {"content": "x"}}}}
    notes = advice(tmp_path, layers, {"webui": {"data_dir": "/data", **webui}, **more})
    assert len(notes) == bool(word), notes
    assert all(word in note for note in notes)


def test_a_cache_that_is_already_a_database(tmp_path: Path) -> None:
    place = "/stable-diffusion-webui/cache/hashes/cache.db"
    layers = {**XL, "n": {"kind": "files", "files": {place: {"content": "x"}}}}
    [note] = advice(tmp_path, layers, {"webui": {}})
    assert "/stable-diffusion-webui/cache is in the image" in note


@pytest.mark.parametrize(("version", "count"), [("1.5.2", 1), ("1.6.0", 0)])
def test_cache_files_that_a_release_does_not_read(tmp_path: Path, version: str, count: int) -> None:
    notes = advice(tmp_path, XL, {"webui": {"cache_file": "/x.json", "version": version}})
    assert ["from 1.6 on" in note for note in notes] == [True] * count


def test_several_vaes(tmp_path: Path) -> None:
    one, two = {"a": model("vae", "a.pt")}, {"b": model("vae", "b.pt")}
    assert advice(tmp_path / "a", one, NEW) == []
    [note] = advice(tmp_path / "b", {**one, **two}, NEW)
    assert "2 VAEs share one key" in note


def test_what_holds_for_every_platform_is_said_once(tmp_path: Path) -> None:
    one = advice(tmp_path / "one", XL, NEW, xl="sdxl")
    assert one and advice(tmp_path / "two", XL, {**NEW, "platforms": ["linux/amd64", "linux/arm64"]}, xl="sdxl") == one
