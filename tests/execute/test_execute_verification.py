"""Which image of a project a pushed one should be."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from builders import images_of
from layerbuild.errors import UsageError
from layerbuild.execute.verification import identify
from layerbuild.images import ImageDeclaration
from layerbuild.lockmodel import Lock, LockedImage

_A, _B, _C = (f"sha256:{letter * 64}" for letter in "abc")
_RECIPES = {
    "recipes/plain.yaml": "name: acme/one\nlayers: []\ntags: [v1]\n",
    "recipes/short.yaml": "name: one\nlayers: []\ntags: [v1]\n",
    "recipes/shared.yaml": (
        "matrix: {n: [x, y]}\nname: 'shared-{{ n }}'\nrepository: shared\nlayers: []\ntags: ['{{ n }}']\n"
    ),
}


@dataclass(frozen=True, kw_only=True)
class Place:
    """What a `BaseSource` tells of itself."""

    name: str | None
    tag: str | None = None
    digests: tuple[str, ...] = (_C,)
    reference: str = "the image"

    def manifests(self) -> tuple[str, ...]:
        return self.digests

    def resolve(self, platform: str) -> str:
        return f"resolved for {platform}"


@pytest.fixture
def images(tmp_path: Path) -> tuple[ImageDeclaration, ...]:
    return images_of(tmp_path, _RECIPES)


@pytest.fixture
def lock(images: tuple[ImageDeclaration, ...]) -> Lock:
    empty = LockedImage(platform="linux/amd64", settings="0" * 16, base=None, layers=())
    known = {image.name: empty for image in images}
    return Lock(images={**known, "one": replace(empty, manifest=_A), "gone": empty})


@pytest.mark.parametrize(
    ("place", "name"),
    [
        (Place(name="one"), "one"),
        (Place(name="team/one", tag="other"), "one"),
        (Place(name="team/acme/one"), "acme/one"),
        (Place(name="team/shared", tag="y"), "shared-y"),
        # What the manifest is says more than where it lies.
        (Place(name="team/shared", tag="y", digests=(_A,)), "one"),
        (Place(name=None, digests=(_A,)), "one"),
    ],
)
def test_told_by_itself(images: tuple[ImageDeclaration, ...], lock: Lock, place: Place, name: str) -> None:
    meant = identify(place, images, lock, None)
    assert (meant.digest, meant.image.name, meant.index) == (place.digests[0], name, None)


@pytest.mark.parametrize(
    "place",
    [
        Place(name="team/someone"),
        Place(name="team/gone"),
        Place(name="team/shared", tag="z"),
        Place(name="team/shared"),
        Place(name="team/shared-x"),
        Place(name=None),
    ],
)
def test_not_to_be_told(images: tuple[ImageDeclaration, ...], lock: Lock, place: Place) -> None:
    with pytest.raises(UsageError, match="cannot be told which image of the lock the image is") as caught:
        identify(place, images, lock, None)
    assert "--image: acme/one, one, shared-x, shared-y" in (caught.value.hint or "")
    assert identify(place, images, lock, "shared-x").image.name == "shared-x"


def test_names_that_the_lock_has_not(images: tuple[ImageDeclaration, ...], lock: Lock) -> None:
    for name in ("gone", "nobody"):
        with pytest.raises(UsageError, match=f"no image '{name}'"):
            identify(Place(name="one"), images, lock, name)
    with pytest.raises(UsageError) as caught:
        identify(Place(name="one"), images, Lock(), None)
    assert "the lock has none" in (caught.value.hint or "")


def test_of_an_index_it_is_the_locked_one_else_that_of_the_platform(
    images: tuple[ImageDeclaration, ...], lock: Lock
) -> None:
    assert identify(Place(name="x", digests=(_B, _A)), images, lock, None).digest == _A
    assert identify(Place(name="one", digests=(_B, _C)), images, lock, None).digest == "resolved for linux/amd64"
