"""Each way in which a lock can disagree with the declarations, and what is no disagreement."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builders import SHA, images_of
from layerbuild.buckets import Buckets
from layerbuild.compose import compose
from layerbuild.errors import DriftError, LockError
from layerbuild.images import ImageDeclaration
from layerbuild.locked import checked, drift, refuse
from layerbuild.lockmodel import Lock, LockedImage, LockedIndex
from layerbuild.model import Receipt
from locks import made_up, sha_of, with_images

_LAYERS = """
sd: {kind: model, type: checkpoint, source: file:sd.safetensors}
ink: {kind: model, type: lora, source: file:ink.safetensors}
start: {kind: files, files: {/opt/x: {content: hi}}}
"""
_RECIPE = "webui: {root: /w, provided_by: base}\nbase: x.io/b:1\nlayers: [sd, ink, start]\n"


@pytest.fixture
def images(tmp_path: Path) -> tuple[ImageDeclaration, ...]:
    files = {"layers/l.yaml": _LAYERS, "recipes/one.yaml": _RECIPE}
    return images_of(tmp_path, {**files, "recipes/two.yaml": _RECIPE.replace("ink, ", "").replace("/w,", "/v,")})


@pytest.fixture
def lock(images: tuple[ImageDeclaration, ...]) -> Lock:
    """A lock that stands for `images`, its base looked at."""
    lock = made_up(images)
    looked = {}
    for name, image in lock.images.items():
        assert image.base is not None
        paths = dict.fromkeys(("w", "v"))
        for root in ("w", "v"):
            paths |= {f"{root}/models{below}": None for below in ("", "/Lora", "/Stable-diffusion")}
        looked[name] = replace(image, base=replace(image.base, directories=paths))
    lock = replace(lock, images=looked)
    return with_images(lock, compose(images, lock))


def _image(lock: Lock, name: str = "one", **changes: Any) -> Lock:
    return replace(lock, images={**lock.images, name: replace(lock.images[name], **changes)})


def _layer(lock: Lock, name: str, **changes: Any) -> Lock:
    return replace(lock, layers={**lock.layers, name: replace(lock.layers[name], **changes)})


def _receipt(key: str) -> dict[str, Receipt]:
    return {key: Receipt(key=key, diff_id=f"sha256:{SHA['c']}", size=1)}


def test_lock_that_stands(images: tuple[ImageDeclaration, ...], lock: Lock) -> None:
    assert drift(images, lock) == []
    assert [image.name for image in checked(images, images, lock)] == ["one", "two"]
    assert [image.name for image in checked(images, images[1:], lock)] == ["two"]
    key = checked(images, images, lock)[0].layers[0].instance
    assert key is not None
    assert drift(images, replace(lock, receipts=_receipt(key.key))) == []


def _repinned(lock: Lock) -> Lock:
    pins = dict(lock.layers["sd"].pins)
    (file,) = pins["model"].files
    content = replace(file.content, sha256=SHA["d"])
    pins["model"] = replace(pins["model"], files=(replace(file, content=content),))
    facts = {**lock.files, SHA["d"]: lock.files[sha_of("file:sd.safetensors")]}
    return replace(_layer(lock, "sd", pins=pins), files=facts)


def _lines(change: Callable[[tuple[str, ...]], tuple[str, ...]]) -> Callable[[Lock], Lock]:
    return lambda lock: _image(lock, layers=change(lock.images["one"].layers))


_DISAGREE: list[tuple[str, Callable[[Lock], Lock], str]] = [
    ("layer missing", lambda k: replace(k, layers={n: x for n, x in k.layers.items() if n != "sd"}), "sd is not in"),
    ("declaration", lambda k: _layer(k, "sd", declaration=SHA["d"]), "sd has changed since it was locked"),
    ("pins of other roles", lambda k: _layer(k, "sd", pins={}), "sd has other pins"),
    ("another pin", _repinned, "weights/sd@"),
    ("image missing", lambda k: replace(k, images={"two": k.images["two"]}), "image one is not in the lock"),
    ("platform", lambda k: _image(k, platform="linux/arm64"), "was locked for linux/arm64"),
    ("settings", lambda k: _image(k, settings=SHA["d"]), "has another config"),
    ("no base", lambda k: _image(k, base=None), "on another base"),
    ("key", _lines(lambda x: (x[0].rpartition("@")[0] + "@" + "d" * 16, *x[1:])), "is not in the lock"),
    ("line too few", _lines(lambda x: x[1:]), "is not in the lock"),
    ("line too many", _lines(lambda x: (*x, "files/y@" + "d" * 16)), "the lock lists files/y@"),
    ("line twice", _lines(lambda x: (*x, x[0])), "another order"),
    ("order", _lines(lambda x: (x[-1], *x[:-1])), "another order"),
    ("buckets", lambda k: _image(k, buckets=Buckets(threshold=1, bits=1)), "share layers in another way"),
]


@pytest.mark.parametrize(("change", "says"), [c[1:] for c in _DISAGREE], ids=[c[0] for c in _DISAGREE])
def test_disagreement(
    images: tuple[ImageDeclaration, ...], lock: Lock, change: Callable[[Lock], Lock], says: str
) -> None:
    changed = change(lock)
    assert any(says in line for line in drift(images, changed))
    with pytest.raises(DriftError) as caught:
        checked(images, images, changed)
    assert says in caught.value.message and "layerbuild lock" in (caught.value.hint or "")


def test_strange_receipt(images: tuple[ImageDeclaration, ...], lock: Lock) -> None:
    strange = replace(lock, receipts=_receipt(SHA["e"]))
    assert drift(images, strange) == [f"the receipt {'e' * 16} belongs to no layer"]
    with pytest.raises(DriftError, match=f"a receipt for {'e' * 16}"):
        checked(images, images[:1], strange)


def test_what_nothing_uses_is_drift_but_no_obstacle(images: tuple[ImageDeclaration, ...], lock: Lock) -> None:
    some = images[:1]
    found = drift(some, lock)
    assert found == ["image two is in the lock, and no recipe makes it"]
    assert [image.name for image in checked(some, some, lock)] == ["one"]
    more = replace(lock, layers={**lock.layers, "old": lock.layers["sd"]}, unlocked={"gone": "why"})
    assert "old is in the lock, and no recipe uses it" in drift(images, more)
    assert "gone is under 'unlocked', and nothing uses it" in drift(images, more)


def test_directory_that_was_not_looked_up(images: tuple[ImageDeclaration, ...], lock: Lock) -> None:
    base = lock.images["one"].base
    assert base is not None
    some = {path: d for path, d in base.directories.items() if path != "w/models"}
    found = drift(images, _image(lock, base=replace(base, directories=some)))
    assert found == ["one: w/models of the base was not looked up"]


def test_other_image_may_disagree(images: tuple[ImageDeclaration, ...], lock: Lock) -> None:
    changed = _image(lock, "two", platform="linux/arm64")
    assert [image.name for image in checked(images, images[:1], changed)] == ["one"]
    with pytest.raises(DriftError, match="image two"):
        checked(images, images, changed)


class TestUnlocked:
    def _without_ink(self, lock: Lock, reason: str = "no answer") -> Lock:
        layers = {name: layer for name, layer in lock.layers.items() if name != "ink"}
        images: dict[str, LockedImage] = {"two": lock.images["two"]}
        return replace(lock, layers=layers, images=images, unlocked={"ink": reason})

    def test_is_no_drift(self, images: tuple[ImageDeclaration, ...], lock: Lock) -> None:
        assert drift(images, self._without_ink(lock)) == []

    def test_is_refused_by_who_needs_it(self, images: tuple[ImageDeclaration, ...], lock: Lock) -> None:
        waiting = self._without_ink(lock)
        assert [image.name for image in checked(images, images[1:], waiting)] == ["two"]
        with pytest.raises(LockError, match="never locked") as caught:
            checked(images, images, waiting)
        assert "no answer" in caught.value.message and not isinstance(caught.value, DriftError)

    def test_base(self, images: tuple[ImageDeclaration, ...], lock: Lock) -> None:
        waiting = replace(lock, images={}, unlocked={"base:x.io/b:1": "registry is down"})
        assert drift(images, waiting) == []
        with pytest.raises(LockError, match="registry is down") as caught:
            checked(images, images, waiting)
        assert not isinstance(caught.value, DriftError)


class TestPending:
    @pytest.fixture
    def pending(self, images: tuple[ImageDeclaration, ...], lock: Lock) -> Lock:
        bare = replace(lock, files={})
        return with_images(bare, compose(images, bare))

    def test_pending_facts_are_no_drift(self, images: tuple[ImageDeclaration, ...], pending: Lock) -> None:
        assert drift(images, pending) == []
        assert all(image.pending for image in checked(images, images, pending))

    def test_facts_learnt_since_match_a_pending_line(
        self, images: tuple[ImageDeclaration, ...], lock: Lock, pending: Lock
    ) -> None:
        learnt = replace(pending, files=lock.files)
        assert drift(images, learnt) == []
        assert not any(image.pending for image in checked(images, images, learnt))

    def test_pending_line_hides_nothing_else(
        self, images: tuple[ImageDeclaration, ...], lock: Lock, pending: Lock
    ) -> None:
        changed = _repinned(replace(pending, files=lock.files))
        assert any("weights/sd" in line for line in drift(images, changed))


def test_long_lists_are_cut() -> None:
    with pytest.raises(DriftError, match=r"and 5 more"):
        refuse({"one": [f"line {number}" for number in range(25)]})
    refuse({})


# --- several platforms -------------------------------------------------------------------------------

_TWO = ("linux/amd64", "linux/arm64")


@pytest.fixture
def several(tmp_path: Path) -> tuple[ImageDeclaration, ...]:
    recipe = "platforms: [linux/amd64, linux/arm64]\nlayers: [start]\n"
    return images_of(tmp_path, {"layers/l.yaml": _LAYERS, "recipes/both.yaml": recipe})


def _index(lock: Lock, *platforms: str) -> Lock:
    return replace(lock, indexes={"both": LockedIndex(platforms=platforms)})


def test_a_lock_of_several_platforms(several: tuple[ImageDeclaration, ...]) -> None:
    bare = made_up(several)
    lock = _index(with_images(bare, compose(several, bare)), *_TWO)
    assert drift(several, lock) == []
    assert [image.name for image in checked(several, several[1:], lock)] == ["both@linux/arm64"]
    # What does not depend on the platform is one layer.
    first, second = checked(several, several, lock)
    assert first.layers == second.layers and first.layers[0].instance == second.layers[0].instance

    found = {
        "the index both is not in the lock": replace(lock, indexes={}),
        "the index both was locked for linux/arm64, linux/amd64, the recipe says linux/amd64, linux/arm64": _index(
            lock, *_TWO[::-1]
        ),
        "the index gone is in the lock, and no recipe makes it": replace(
            lock, indexes={**lock.indexes, "gone": LockedIndex(platforms=_TWO)}
        ),
    }
    for message, wrong in found.items():
        assert drift(several, wrong) == [message]
        if "gone" not in wrong.indexes:
            with pytest.raises(DriftError, match=message):
                checked(several, several, wrong)
    less = replace(lock, images={"both@linux/arm64": lock.images["both@linux/arm64"]})
    assert drift(several, less) == ["image both@linux/amd64 is not in the lock"]


def test_an_index_whose_platforms_wait_is_no_drift(tmp_path: Path) -> None:
    recipe = "platforms: [linux/amd64, linux/arm64]\nlayers: ['{{ architecture }}']\n"
    layers = "amd64: {kind: files, files: {/a: file:a}}\narm64: {kind: files, files: {/b: file:b}}\n"
    images = images_of(tmp_path, {"layers/l.yaml": layers, "recipes/both.yaml": recipe})
    lock = made_up(images[:1])
    lock = replace(with_images(lock, compose(images[:1], lock)), unlocked={"arm64": "no answer"})
    assert drift(images, lock) == []
    assert [image.name for image in checked(images, images[:1], lock)] == ["both@linux/amd64"]
    with pytest.raises(LockError, match="unlocked: arm64: no answer"):
        checked(images, images, lock)
