"""Images that lie elsewhere, shown as models and layers: whoever made them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from audit.planting import Image, empty
from fixtures.project import Project, safetensors
from fixtures.registry import Front
from layerbuild import http
from layerbuild.audit.inventory import read_image
from layerbuild.baseimage import open_base
from layerbuild.errors import LayerbuildError
from layerbuild.inventory import ImageItem
from layerbuild.progress import Silent
from layerbuild.registry.clients import Clients


def read(reference: str, *, deep: bool = False) -> ImageItem:
    """The image in a layout, or a registry."""
    clients = Clients(http.Client(), {})
    source = open_base(reference, client_for=clients, project=Path("/"))
    (digest,) = source.platforms().values()
    return read_image(source, digest, client_for=clients, progress=Silent(), deep=deep)


def models(image: ImageItem) -> set[tuple[str, str]]:
    return {(model.type, model.name) for model in image.models}


def test_a_strangers_image(tmp_path: Path) -> None:
    checkpoint = safetensors(1000, {"modelspec.architecture": "sdxl", "modelspec.license": "MIT"})
    image = empty(tmp_path / "out").plant({"usr/bin/x": b"x" * 100}, compression="gzip")
    image = image.plant(
        {
            "srv/webui/models/Stable-diffusion/sub/big.safetensors": checkpoint,
            "srv/webui/models/ESRGAN/up.pth": b"u",
            "srv/webui/embeddings/easy.pt": b"e",
            "srv/webui/models/Lora/readme.txt": b"no model",
        }
    )
    found = read(image.save())
    assert models(found) == {
        ("checkpoint", "sub/big.safetensors"),
        ("upscaler", "up.pth"),
        ("embedding", "easy.pt"),
    }
    assert [layer.kind for layer in found.layers] == ["base", "base"]
    # The compressed layer of whom nobody knows was not read.
    assert found.unread == image.layers[0]["size"] and found.base is None


def test_compressed_layers_are_read_when_asked(tmp_path: Path) -> None:
    packed = {"webui/models/VAE/v.pt": b"v" * 2000}
    image = empty(tmp_path / "out").plant(packed, compression="zstd").save()
    assert models(read(image)) == set()
    found = read(image, deep=True)
    assert models(found) == {("vae", "v.pt")} and found.unread == 0


def test_what_a_hash_cache_tells(sound: Image) -> None:
    found = read(sound.save(), deep=True)
    assert {model.type for model in found.models} >= {"checkpoint", "lora", "vae", "embedding", "hypernetwork"}
    assert all(model.sha256 and model.size and model.layer for model in found.models)


def test_a_cache_that_is_no_cache(tmp_path: Path) -> None:
    for text in ("[]", '{"safetensors-metadata": 1}', '{"safetensors-metadata": {"checkpoint/x.safetensors": 1}}', "{"):
        planted = {"w/cache.json": text.encode(), "w/models/Stable-diffusion/x.safetensors": b"x"}
        (model,) = read(empty(tmp_path / "out").plant(planted).save()).models
        assert (model.licence, model.architecture) == (None, None)
    said = {"checkpoint/x.safetensors": {"value": {"modelspec.license": "CC0", "modelspec.architecture": ["no text"]}}}
    planted["w/cache.json"] = json.dumps({"safetensors-metadata": said}).encode()
    (model,) = read(empty(tmp_path / "out").plant(planted).save()).models
    assert (model.licence, model.architecture) == ("CC0", None)


def _annotated(image: Image, annotations: Any) -> Image:
    first, *others = image.layers
    return replace(image, layers=({**first, "annotations": annotations}, *others))


@pytest.mark.parametrize(
    "annotations",
    [
        {"dev.layerbuild.key": "k" * 5000, "dev.layerbuild.encoding": "e" * 5000},
        {"dev.layerbuild.key": 7},
        ["dev.layerbuild.key"],
        {"dev.layerbuild.key": "k", "dev.layerbuild.diff-id": None},
    ],
)
@pytest.mark.parametrize("history", [(), ("layerbuild",), ("layerbuild \x1b[2Jx " + "y" * 5000,)])
def test_claims_are_bounded(tmp_path: Path, annotations: Any, history: tuple[str, ...]) -> None:
    image = _annotated(empty(tmp_path / "out").plant({"a": b"a"}), annotations).with_history(*history)
    (layer,) = read(image.save()).layers
    assert len(layer.title) <= 220 and len(layer.encoding) <= 200 and layer.label and layer.kind


@pytest.mark.parametrize("rootfs", [None, [], "x", [1], {"diff_ids": 3}, {"diff_ids": ["x", "y"]}, {"diff_ids": [1]}])
def test_configs_that_make_no_sense(tmp_path: Path, rootfs: Any) -> None:
    image = empty(tmp_path / "out").plant({"a": b"a"})
    reference = replace(image, config={**image.config, "rootfs": rootfs, "history": [1, {"created_by": 2}]}).save()
    try:
        (layer,) = read(reference).layers
    except LayerbuildError as error:
        assert error.hint
    else:
        assert layer.diff_id is None


def test_an_index_without_an_image(tmp_path: Path, project: Project) -> None:
    out = empty(tmp_path / "out").save().split(":")[1]
    index = json.dumps({"schemaVersion": 2, "manifests": []}).encode()
    digest = hashlib.sha256(index).hexdigest()
    (Path(out) / "blobs/sha256" / digest).write_bytes(index)
    named = {"org.opencontainers.image.ref.name": "none:v1"}
    entry = {"mediaType": "application/vnd.oci.image.index.v1+json", "digest": f"sha256:{digest}", "size": len(index)}
    (Path(out) / "index.json").write_text(
        json.dumps({"schemaVersion": 2, "manifests": [{**entry, "annotations": named}]})
    )
    project.run("show", f"oci:{out}:none:v1", check=False).failed(2, "is an index without an image")


def test_names_do_not_reach_the_terminal_as_they_are(tmp_path: Path, project: Project) -> None:
    evil = "w/models/Lora/\x1b]0;owned\x07.pt"
    image = _annotated(empty(tmp_path / "out").plant({evil: b"x"}), {"dev.layerbuild.key": "k"})
    out = project.run("show", image.with_history("layerbuild weights \x1b[31mred").save()).out
    assert "\x1b" not in out and "\x07" not in out and "\\x1b" in out
    assert all(len(line) <= 80 for line in out.splitlines())


def test_of_a_registry_only_headers_come(made: tuple[Project, Image], registry: Front) -> None:
    project, _ = made
    project.run("push", f"{registry.host}/acme")
    name, entry = next(iter(project.lock["images"].items()))
    before = len(registry.requests("GET"))
    shown = project.run("show", f"{registry.host}/acme/{name}@{entry['manifest']}", "--json")
    (image,) = shown.json["images"]
    (here,) = project.run("show", name, "--json").json["images"]
    assert {m["sha256"] for m in image["models"]} == {m["sha256"] for m in here["models"]}
    assert [layer["digest"] for layer in image["layers"]] == [layer["digest"] for layer in here["layers"]]
    weights = {layer["digest"] for layer in here["layers"] if layer["kind"] == "weights"}
    read = [r for r in registry.requests("GET")[before:] if r.path.rpartition("/")[2] in weights]
    assert read and all("Range" in record.headers for record in read)
    project.run("show", f"{registry.host}/acme/nothing:v1", check=False).failed(1, "acme/nothing")
