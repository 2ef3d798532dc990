"""What tags come to point at: an image, or the index over its platforms (OCI image-spec 1.1, image-index.md)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from layerbuild.errors import NotReproducible
from layerbuild.image import INDEX, MANIFEST, index_json
from layerbuild.images import IndexDeclaration
from layerbuild.lockmodel import Lock, LockedImage, LockedIndex, forgetting
from layerbuild.model import sha256_hex

if TYPE_CHECKING:
    from layerbuild.execute.build import BuiltImage


@dataclass(frozen=True, kw_only=True)
class Release:
    """One image, or every image of `index` in its order."""

    images: tuple[BuiltImage, ...]
    index: IndexDeclaration | None

    @property
    def name(self) -> str:
        """Of the image, whatever its platforms."""
        return self.images[0].composed.title

    @property
    def repository(self) -> str:
        """Where it lands at a destination."""
        return self.images[0].repository

    @property
    def media_type(self) -> str:
        """Of `data`."""
        return MANIFEST if self.index is None else INDEX

    @property
    def data(self) -> bytes:
        """What is put under each tag: the manifest of the one image, or the index."""
        if self.index is None:
            return self.images[0].manifest
        described = [image.manifest_descriptor for image in self.images]
        return index_json(self.index.annotations, list(zip(self.index.platforms, described, strict=True)))

    @cached_property
    def digest(self) -> str:
        """`sha256:<hex>` of `data`."""
        return self.images[0].digest if self.index is None else f"sha256:{sha256_hex(self.data)}"

    @property
    def tags(self) -> list[str]:
        """Its recipe's tags, else 12 hex digits of its own digest."""
        recipe = self.images[0].composed.declaration.recipe
        return recipe.tags or [self.digest.removeprefix("sha256:")[:12]]


def releases(images: Iterable[BuiltImage]) -> tuple[Release, ...]:
    """Every image, those of one index together. An index of which an image is missing is left out."""
    groups: dict[str, dict[str, BuiltImage]] = {}
    for image in images:
        groups.setdefault(image.composed.title, {})[image.composed.name] = image
    found = []
    for group in groups.values():
        index = next(iter(group.values())).composed.declaration.index
        names = tuple(group) if index is None else index.images
        if set(names) <= group.keys():
            found.append(Release(images=tuple(group[name] for name in names), index=index))
    return tuple(found)


def recorded(lock: Lock, images: Mapping[str, LockedImage], built: Iterable[BuiltImage]) -> dict[str, LockedIndex]:
    """The indexes of `lock`, with the digests of those that were built whole.

    Args:
        images: of the lock that they will stand in.

    Raises:
        NotReproducible: one came out different from what the lock says.
    """
    indexes = forgetting(lock.indexes, lock.images, images)
    for release in releases(built):
        before = indexes.get(release.name)
        if release.index is not None and before is not None and before.platforms == release.index.platforms:
            same_digest(f"the index of {release.name}", before.digest, release.digest, release.name)
            indexes[release.name] = replace(before, digest=release.digest)
    return indexes


def same_digest(what: str, before: str | None, now: str, name: str) -> None:
    """Raises:
    NotReproducible: the lock knows a digest of the image called `name`, and it is another `now`.
    """
    if before in (None, now):
        return
    raise NotReproducible(
        f"not reproducible: {what} is now {now}",
        cause=f"the lock says {before}, of the same layers and settings",
        hint=f"if layerbuild was updated meanwhile: 'layerbuild lock --repack {name}'",
    )
