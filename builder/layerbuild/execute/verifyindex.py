"""Holds an index that was pushed against the lock: the index itself, and each image that it names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from layerbuild.baseimage import BaseSource
from layerbuild.compose import ComposedImage
from layerbuild.execute.build import Builder
from layerbuild.execute.verification import IndexVerification, Verification
from layerbuild.execute.verify import Verifier
from layerbuild.images import IndexDeclaration
from layerbuild.model import sha256_hex
from layerbuild.registry.manifests import annotations_of, read_object


def verify_index(source: BaseSource, builder: Builder, index: IndexDeclaration, *, deep: bool) -> IndexVerification:
    """Everything by which `source` is not the index that the lock makes. See `Verifier.run`, also for errors.

    A blob that several platforms share is read once.
    """
    composed = builder.compose([image for image in builder.images if image.name in index.images])
    locked = builder.lock.indexes[index.name].digest
    found = source.index()
    there: Mapping[str, str] = {}
    if found is None:
        digest = source.manifests()[0]
        own = [f"it is one image, and no index of {', '.join(index.platforms)}"]
    else:
        data, there = found
        digest = f"sha256:{sha256_hex(data)}"
        own = [] if digest == locked else list(_differences(index, data, there))
        own[:0] = [f"its index is {digest}, the lock says {locked}"] if locked not in (None, digest) else []
    notes = () if locked else (f"the lock has no digest of the index {index.name} yet: what it names was compared",)
    return IndexVerification(
        reference=source.reference,
        image=index.name,
        digest=digest,
        deep=deep,
        platforms=_images(source, builder, composed, there, deep=deep),
        own=tuple(own),
        notes=notes,
    )


def _images(
    source: BaseSource, builder: Builder, images: Sequence[ComposedImage], there: Mapping[str, str], *, deep: bool
) -> dict[str, Verification]:
    """What came of those images that the index has, by platform."""
    sound: set[tuple[object, ...]] = set()
    wanted = {image.declaration.recipe.platform: image for image in images}
    return {
        platform: Verifier(source=source, builder=builder, deep=deep, sound=sound).run(there[platform], image)
        for platform, image in wanted.items()
        if platform in there
    }


def _differences(index: IndexDeclaration, data: bytes, there: Mapping[str, str]) -> Iterator[str]:
    """What the index says that the recipe does not, and the other way round, besides digests."""
    yield from (f"it has no image for {platform}" for platform in index.platforms if platform not in there)
    yield from (f"it has an image for {platform[:80]!r}" for platform in there if platform not in index.platforms)
    if tuple(there) != index.platforms and set(there) == set(index.platforms):
        yield "its images are in another order than the recipe's platforms"
    if annotations_of(read_object(data, index.name)) != dict(index.annotations):
        yield "its annotations are not the recipe's"
