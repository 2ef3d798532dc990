"""What a report says of composed images: which layer is which, what is summed up, and what nobody knows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from builders import SHA, images_of
from layerbuild.compose import ComposedImage, compose
from layerbuild.image import BaseImage
from layerbuild.layering import LayerId
from layerbuild.lockmodel import Lock
from layerbuild.report.describe import describe
from layerbuild.report.values import NotAudited, Report, Stored
from locks import BASE, made_up, sha_of

_LAYERS = """
sd: {kind: model, type: checkpoint, source: 'file:sd.safetensors', licence: MIT}
same: {kind: model, type: checkpoint, source: 'file:sd.safetensors', filename: other.safetensors}
ink: {kind: model, type: lora, source: 'file:ink.safetensors'}
start: {kind: files, files: {/opt/x: {content: hi}}}
"""
_ONE = "name: one\nwebui: {root: /webui}\nlayers: [sd, ink, start]\n"
_TWO = "name: two\nwebui: {root: /webui}\nlayers: [same, start]\n"
_TAR = "application/vnd.oci.image.layer.v1.tar"


def _composed(root: Path, *recipes: str, facts: bool = True) -> tuple[tuple[ComposedImage, ...], Lock]:
    files = {f"recipes/r{n}.yaml": text for n, text in enumerate(recipes)}
    images = images_of(root, {"layers/l.yaml": _LAYERS, **files})
    lock = made_up(images, facts=facts)
    return compose(images, lock), lock


def _report(images: tuple[ComposedImage, ...], lock: Lock, sizes: Mapping[str, int], **more: Any) -> Report:
    """The report, where layers have `sizes` by their titles."""
    stored: dict[LayerId, Stored] = {}
    for image in images:
        for layer in image.layers:
            if layer.instance is not None and layer.title in sizes:
                digest = f"sha256:{layer.instance.key}"
                stored[layer.id] = Stored(digest=digest, diff_id=digest, size=sizes[layer.title])
    parts = {"project": "p", "lock_digest": "sha256:0", "bases": {}, "audit": lambda image: NotAudited(reason="no")}
    return describe(images, lock=lock, **{"stored": stored, **parts, **more})


def _titles(report: Report, image: int) -> list[tuple[str, ...]]:
    return [report.layers[i].titles for i in report.images[image].layers]


def test_a_layer_stands_once_under_every_name(tmp_path: Path) -> None:
    images, lock = _composed(tmp_path, _ONE, _TWO)
    sizes = {"weights sd": 100, "weights same": 100, "weights ink": 10, "files start": 1}
    report = _report(images, lock, sizes)
    shared = ("weights sd", "weights same")
    assert _titles(report, 0) == [shared, ("weights ink",), ("links one",), ("hash-cache one",), ("files start",)]
    assert _titles(report, 1) == [shared, ("links two",), ("hash-cache two",), ("files start",)]
    assert (report.stored, report.separate, report.shared) == (111, 212, 101)
    assert report.unknown == 4


def test_what_was_never_made_is_told_with_a_way_out(tmp_path: Path) -> None:
    images, lock = _composed(tmp_path, _ONE)
    (note,) = _report(images, lock, {"weights sd": 1}).notes
    assert note.text.startswith("4 layers have no size yet") and note.command == "layerbuild build"
    every = {layer.title: 1 for layer in images[0].layers}
    assert _report(images, lock, every).notes == ()


def test_two_forms_of_a_layer_are_two_blobs_of_one_tar(tmp_path: Path) -> None:
    images, lock = _composed(tmp_path, _ONE, f"{_TWO}compression: gzip\n")
    tar = f"sha256:{SHA['d']}"
    stored = {
        layer.id: Stored(digest=f"sha256:{layer.algorithm}", diff_id=tar, size=len(layer.algorithm) * 10)
        for image in images
        for layer in image.layers
        if layer.kind == "files"
    }
    report = _report(images, lock, {}, stored=stored)
    files = [layer for layer in report.layers if layer.kind == "files"]
    assert [layer.stored.digest for layer in files] == ["sha256:zstd", "sha256:gzip"]
    assert {layer.stored.diff_id for layer in files} == {tar} and report.stored == 80


def test_facts_that_are_pending_leave_one_layer_open(tmp_path: Path) -> None:
    images, lock = _composed(tmp_path, _ONE, _TWO, facts=False)
    report = _report(images, lock, {})
    waiting = [layer for layer in report.layers if layer.kind == "hash-cache"]
    # Nobody knows whether they will be the same.
    assert [layer.titles for layer in waiting] == [("hash-cache one",), ("hash-cache two",)]
    assert all(layer.key is None and layer.stored == Stored() for layer in waiting)


def _base(*layers: tuple[str, int]) -> BaseImage:
    manifest = {"layers": [{"mediaType": _TAR, "digest": f"sha256:{d}", "size": size} for d, size in layers]}
    config = {"rootfs": {"type": "layers", "diff_ids": [f"sha256:{d}" for d, _ in layers]}}
    return BaseImage(reference="x.io/b:1", digest=BASE, manifest=manifest, config=config)


@pytest.fixture
def based(tmp_path: Path) -> tuple[tuple[ComposedImage, ...], Lock]:
    return _composed(tmp_path, f"{_ONE}base: x.io/b:1\n", f"{_TWO}base: x.io/b:1\n")


def test_layers_of_a_base_lie_lowest(based: tuple[tuple[ComposedImage, ...], Lock]) -> None:
    # Docker's own empty layer may stand in a base more than once.
    report = _report(*based, {}, bases={BASE: _base((SHA["c"], 50), (SHA["d"], 7), (SHA["c"], 50))})
    below = [report.layers[i] for i in report.images[0].layers[:3]]
    assert [layer.stored.size for layer in below] == [50, 7, 50] and {layer.kind for layer in below} == {"base"}
    assert report.images[0].layers[:3] == report.images[1].layers[:3] == (0, 1, 0)
    assert (report.stored, report.separate, report.shared) == (57, 114, 57)
    assert report.images[0].base_known and [note.command for note in report.notes] == ["layerbuild build"]


def test_a_base_that_is_not_known_is_one_layer_of_unknown_size(based: tuple[tuple[ComposedImage, ...], Lock]) -> None:
    every = {layer.title: 1 for image in based[0] for layer in image.layers}
    report = _report(*based, every, bases={BASE: None})
    assert _titles(report, 0)[0] == ("all of x.io/b:1",) and report.images[0].layers[0] == report.images[1].layers[0]
    assert not report.images[0].base_known and report.unknown == 1
    (note,) = report.notes
    assert "x.io/b:1" in note.text and note.command == "layerbuild report --online --html FILE"


def test_models_stand_once_for_each_name(tmp_path: Path) -> None:
    third = _TWO.replace("two", "three")
    report = _report(*_composed(tmp_path, _ONE, _TWO, third), {})
    found = {model.name: model for model in report.models}
    assert {name: model.images for name, model in found.items()} == {
        "sd.safetensors": (0,),
        "ink.safetensors": (0,),
        "other.safetensors": (1, 2),
    }
    model = found["sd.safetensors"]
    assert (model.type, model.layer, model.licence, model.source) == ("checkpoint", "sd", "MIT", "file:sd.safetensors")
    assert model.sha256 == found["other.safetensors"].sha256 == sha_of("file:sd.safetensors")
    assert found["other.safetensors"].licence is None
