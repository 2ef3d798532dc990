"""Which images a command means: by name, by label, and by what two locks say of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builders import SHA, images_of
from layerbuild.buckets import Buckets
from layerbuild.compose import compose
from layerbuild.errors import UsageError
from layerbuild.images import ImageDeclaration
from layerbuild.lockmodel import Lock, LockedBase, LockedIndex
from layerbuild.selection import changed, refuse_parts, select
from locks import made_up, with_images

_LABELLED = """
matrix: {a: [sd15, sdxl, sd3]}
name: "x/{{ a }}"
config: {labels: {family: "{{ a[:3] }}", tier: gold}}
"""


@pytest.fixture
def images(tmp_path: Path) -> tuple[ImageDeclaration, ...]:
    plain = "matrix: {a: [one]}\nname: plain\n"
    return images_of(tmp_path, {"recipes/r.yaml": _LABELLED, "recipes/z.yaml": plain})


def names(images: tuple[ImageDeclaration, ...], *patterns: str, labels: tuple[str, ...] = ()) -> list[str]:
    return [image.name for image in select(images, patterns, labels)]


def test_by_name(images: tuple[ImageDeclaration, ...]) -> None:
    assert names(images) == ["x/sd15", "x/sdxl", "x/sd3", "plain"]
    assert names(images, "*/sd3", "x/sd1?") == ["x/sd15", "x/sd3"]
    with pytest.raises(UsageError) as caught:
        names(images, "x/sd15", "x/sd16")
    assert caught.value.message == "no image is called 'x/sd16'"
    assert "did you mean 'x/sd15'?" in str(caught.value.hint)


def test_by_label(images: tuple[ImageDeclaration, ...]) -> None:
    assert names(images, labels=("family",)) == ["x/sd15", "x/sdxl", "x/sd3"]
    assert names(images, labels=("family=sd[1x]",)) == ["x/sd15", "x/sdxl"]
    assert names(images, labels=("family=sd[1x]", "tier=g*")) == ["x/sd15", "x/sdxl"]
    assert names(images, "*sdxl", "plain", labels=("tier=gold",)) == ["x/sdxl"]


@pytest.mark.parametrize("label", ["famil", "family=sd", "Family", "=x", ""])
def test_a_label_that_nobody_has(images: tuple[ImageDeclaration, ...], label: str) -> None:
    with pytest.raises(UsageError) as caught:
        names(images, labels=("tier", label))
    assert caught.value.message == f"no image has a label {label!r}"
    assert caught.value.hint == "labels of recipes: family=sd1, tier=gold, family=sdx, family=sd3"


def test_labels_that_no_image_has_together(images: tuple[ImageDeclaration, ...]) -> None:
    with pytest.raises(UsageError, match="no image has all of that together: plain, tier=gold"):
        names(images, "plain", labels=("tier=gold",))


# --- what changed ----------------------------------------------------------------------------------

_LAYERS = """
sd: {kind: model, type: checkpoint, source: file:sd.safetensors}
ink: {kind: model, type: lora, source: file:ink.safetensors}
"""
_RECIPE = "webui: {root: /w, provided_by: base}\nbase: x.io/b:1\n"


@pytest.fixture
def locked(tmp_path: Path) -> tuple[tuple[ImageDeclaration, ...], Lock]:
    """Two images that share a model, and their lock."""
    files = {"recipes/one.yaml": _RECIPE + "layers: [sd, ink]\n", "recipes/two.yaml": _RECIPE + "layers: [sd]\n"}
    images = images_of(tmp_path, {"layers/l.yaml": _LAYERS, **files})
    lock = made_up(images)
    return images, with_images(lock, compose(images, lock))


def _image(**changes: Any) -> Callable[[Lock], Lock]:
    return lambda lock: replace(lock, images={**lock.images, "one": replace(lock.images["one"], **changes)})


def _pins(name: str) -> Callable[[Lock], Lock]:
    return lambda lock: replace(lock, layers={**lock.layers, name: replace(lock.layers[name], declaration=SHA["f"])})


def _without(name: str) -> Callable[[Lock], Lock]:
    return lambda lock: replace(lock, images={k: v for k, v in lock.images.items() if k != name})


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda lock: lock, []),
        (lambda lock: replace(lock, files={}, receipts={}, unlocked={"x": "y"}), []),
        (_image(manifest=f"sha256:{SHA['a']}"), []),
        (_image(buckets=Buckets(threshold=1, bits=1)), []),
        (_image(settings="0" * 16), ["one"]),
        (_image(platform="linux/arm64"), ["one"]),
        (_image(base=None), ["one"]),
        (_image(base=LockedBase(reference="x.io/b:1", digest=f"sha256:{SHA['c']}")), ["one"]),
        (_image(layers=("links/one@0123456789abcdef",)), ["one"]),
        (_pins("ink"), ["one"]),
        (_pins("sd"), ["one", "two"]),
        (_without("two"), ["two"]),
        (lambda lock: Lock(), ["one", "two"]),
    ],
)
def test_changes(
    locked: tuple[tuple[ImageDeclaration, ...], Lock], change: Callable[[Lock], Lock], expected: list[str]
) -> None:
    images, lock = locked
    for now, before in ((lock, change(lock)), (change(lock), lock)):
        assert [image.name for image in changed(images, now, before)] == expected
    # What was chosen before stays chosen.
    assert [image.name for image in changed(images[:1], lock, change(lock))] == [n for n in expected if n == "one"]


def test_a_revision_without_a_lock(locked: tuple[tuple[ImageDeclaration, ...], Lock]) -> None:
    images, lock = locked
    assert changed(images, lock, None) == images


def test_other_bytes_of_the_same_layers(locked: tuple[tuple[ImageDeclaration, ...], Lock]) -> None:
    images, lock = locked
    now, before = (_image(manifest=f"sha256:{SHA[letter]}")(lock) for letter in "ab")
    assert [image.name for image in changed(images, now, before)] == ["one"]


def test_a_hash_cache_that_nobody_could_make_yet(locked: tuple[tuple[ImageDeclaration, ...], Lock]) -> None:
    images, lock = locked
    waiting = _image(layers=(*lock.images["one"].layers[:-1], "hash-cache/one@pending"))(lock)
    assert [image.name for image in changed(images, waiting, waiting)] == ["one"]


# --- several platforms -------------------------------------------------------------------------------


@pytest.fixture
def platforms(tmp_path: Path) -> tuple[ImageDeclaration, ...]:
    """An image for two platforms, and one for one."""
    both = "platforms: [linux/amd64, linux/arm64]\nconfig: {labels: {arch: '{{ architecture }}'}}\n"
    return images_of(tmp_path, {"recipes/both.yaml": both, "recipes/one.yaml": "name: one\n"})


def test_platforms_by_name(platforms: tuple[ImageDeclaration, ...]) -> None:
    both = ["both@linux/amd64", "both@linux/arm64"]
    assert names(platforms) == [*both, "one"]
    assert names(platforms, "both") == names(platforms, "b?th") == names(platforms, "both@*") == both
    assert names(platforms, "*@linux/arm64") == names(platforms, labels=("arch=arm64",)) == both[1:]
    with pytest.raises(UsageError) as caught:
        names(platforms, "both@linux/arm")
    assert caught.value.hint == "images: both, one; did you mean 'both@linux/arm64'?"


def test_a_part_of_an_index_is_refused(platforms: tuple[ImageDeclaration, ...]) -> None:
    refuse_parts(platforms)
    refuse_parts(platforms[2:])
    refuse_parts(())
    with pytest.raises(UsageError, match="of both every platform is pushed, or none: linux/amd64 is not chosen"):
        refuse_parts(platforms[1:])


def test_an_index_changes_with_each_of_its_images(platforms: tuple[ImageDeclaration, ...]) -> None:
    lock = made_up(platforms)
    order = ("linux/amd64", "linux/arm64")
    lock = replace(with_images(lock, compose(platforms, lock)), indexes={"both": LockedIndex(platforms=order)})
    arm = replace(lock.images["both@linux/arm64"], settings="0" * 16)
    other = replace(lock, images={**lock.images, "both@linux/arm64": arm})
    turned = replace(lock, indexes={"both": LockedIndex(platforms=order[::-1])})
    assert changed(platforms, lock, lock) == ()
    for now in (other, turned, replace(lock, indexes={})):
        assert [image.name for image in changed(platforms, now, lock)] == ["both@linux/amd64", "both@linux/arm64"]
    # One that was chosen by itself stays alone.
    assert [image.name for image in changed(platforms[1:2], other, lock)] == ["both@linux/arm64"]
