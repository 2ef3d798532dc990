"""What a node that has one image pulls for another: by digest, and by chain."""

from __future__ import annotations

from dataclasses import replace

import pytest

from builders import SHA
from layerbuild.imagediff import image_diff
from layerbuild.inventory import BASE, ImageItem, LayerItem, ModelItem

MIB = 1024 * 1024


def layer(name: str, size: int | None = MIB, **more: object) -> LayerItem:
    found = LayerItem(
        kind="weights", label=name, key=f"key {name}", digest=f"sha256:{name}", diff_id=f"diff {name}", size=size
    )
    return replace(found, **more)  # type: ignore[arg-type]


def unmade(name: str, size: int | None = None) -> LayerItem:
    return layer(name, size, digest=None, diff_id=None)


def image(*layers: LayerItem, models: tuple[ModelItem, ...] = (), **more: object) -> ImageItem:
    found = ImageItem(name="i", platform="linux/amd64", manifest=None, base=None, layers=layers, models=models)
    return replace(found, **more)  # type: ignore[arg-type]


def model(name: str, content: str) -> ModelItem:
    return ModelItem(name=name, type="checkpoint", path=f"/m/{name}", sha256=SHA[content])


A, B, C = layer("a"), layer("b", 2 * MIB), layer("c", 4 * MIB)


@pytest.mark.parametrize(
    ("old", "new", "digest", "chain"),
    [
        ((A, B), (A, B), 0, 0),
        ((A, B), (A, B, C), 4, 4),
        ((A, B), (B, A), 0, 3),
        ((A, B, C), (A, C), 0, 4),
        ((), (A, B), 3, 3),
        ((A,), (), 0, 0),
        ((A,), (B, B), 2, 4),
    ],
)
def test_bytes(old: tuple[LayerItem, ...], new: tuple[LayerItem, ...], digest: int, chain: int) -> None:
    found = image_diff(image(*old), image(*new))
    assert (found.by_digest.size, found.by_chain.size) == (digest * MIB, chain * MIB)


def test_another_packing_is_another_blob_and_the_same_chain() -> None:
    found = image_diff(image(A, B), image(replace(A, digest="sha256:gzip", encoding="gzip:9:1"), B))
    assert (found.by_digest.size, found.by_chain.size) == (MIB, 0)


def test_what_was_never_made_is_known_by_its_key() -> None:
    found = image_diff(image(A, unmade("b")), image(A, B))
    assert (found.by_digest.layers, found.by_chain.layers) == ((), ())
    found = image_diff(image(A), image(A, unmade("b", 7), unmade("c")))
    assert (found.by_digest.size, found.by_digest.unknown, found.by_chain.unknown) == (7, 1, 1)


def test_layers_that_wait_for_facts_are_their_images_own() -> None:
    one, other = (replace(unmade(name), key=None, kind="hash-cache") for name in ("one", "other"))
    assert image_diff(image(one), image(other)).by_digest.unknown == 1
    assert image_diff(image(one), image(one)).by_digest.layers == ()


def test_bases_that_are_not_known() -> None:
    below = layer("base", 8 * MIB, kind=BASE, key=None)
    one = image(A, base=("x", "sha256:1"), complete=False)
    same = image_diff(one, image(below, A, B, base=("y", "sha256:1")))
    assert (same.by_digest.size, same.by_chain.size, same.base) == (2 * MIB, 2 * MIB, True)
    other = image_diff(one, image(below, A, B, base=("x", "sha256:2")))
    # Nothing lies on the same chain where the base is another.
    assert (other.by_digest.size, other.by_chain.size, other.base) == (2 * MIB, 3 * MIB, False)
    known = image_diff(image(A, base=("x", "sha256:1")), image(below, A, base=("x", "sha256:2")))
    assert (known.by_digest.size, known.by_chain.size, known.base) == (8 * MIB, 9 * MIB, True)


def test_models_by_their_content() -> None:
    old = image(models=(model("one", "a"), model("gone", "b")))
    new = image(models=(model("renamed", "a"), model("new", "c")))
    found = image_diff(old, new)
    assert [m.name for m in found.added] == ["new"]
    assert [m.name for m in found.removed] == ["gone"]
    assert [(before.name, after.name) for before, after in found.renamed] == [("one", "renamed")]
    value = found.as_json()["models"]
    assert value["renamed"] == [{"from": "one", "to": "renamed"}] and [m["name"] for m in value["same"]] == ["renamed"]


def test_a_model_without_a_digest_is_known_by_its_name() -> None:
    unnamed = replace(model("x", "a"), sha256=None)
    found = image_diff(image(models=(unnamed,)), image(models=(replace(unnamed, type="lora"),)))
    assert len(found.added) == len(found.removed) == 1
