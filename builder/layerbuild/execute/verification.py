"""What is known of a pushed image before it is looked at, and after: which image it should be, and the outcome."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from layerbuild.baseimage import BaseSource
from layerbuild.errors import UsageError
from layerbuild.images import ImageDeclaration
from layerbuild.lockmodel import Lock

_MOST_NAMES = 20


@dataclass(frozen=True, kw_only=True)
class VerifiedLayer:
    """One layer, and what it is: `same`, or in a word what is wrong with it."""

    title: str
    digest: str | None
    size: int | None
    result: str


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What came of it.

    Attributes:
        image: its name in the lock.
        digest: of the manifest that was looked at.
        findings: everything by which the image is not what the lock makes.
        notes: what could not be compared, and is no fault of the image.
        bytes_read: of blobs, the config's included.
    """

    reference: str
    image: str
    digest: str
    deep: bool
    layers: tuple[VerifiedLayer, ...]
    findings: tuple[str, ...]
    notes: tuple[str, ...]
    bytes_read: int

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        layers = [{"layer": r.title, "digest": r.digest, "size": r.size, "result": r.result} for r in self.layers]
        return {
            "reference": self.reference,
            "image": self.image,
            "digest": self.digest,
            "deep": self.deep,
            "ok": not self.findings,
            "layers": layers,
            "findings": list(self.findings),
            "notes": list(self.notes),
            "read_bytes": self.bytes_read,
        }


def identify(
    source: BaseSource, images: Sequence[ImageDeclaration], lock: Lock, name: str | None
) -> tuple[str, ImageDeclaration]:
    """The manifest that is meant, and which image of the project it should be.

    Args:
        images: of the project.
        name: of the image, where the user says it; else it is the one whose manifest this is by the lock, or
            whose repository and tag are named.

    Returns:
        The manifest's digest, and the image.

    Raises:
        UsageError: the lock has no such image, or none can be told.
        NotFound: there is nothing of that name, or not for the image's platform.
        SourceError: what is there makes no sense.
    """
    digests = source.manifests()
    known = {image.name: image for image in images if image.name in lock.images}
    if name is None:
        made = [image for image in known.values() if lock.images[image.name].manifest in digests]
        image = made[0] if made else _named(source, list(known.values()))
    else:
        image = known.get(name)
    if image is None:
        more = " …" if len(known) > _MOST_NAMES else ""
        unknown = f"it cannot be told which image of the lock {source.reference} is"
        raise UsageError(
            f"the lock has no image {name!r}" if name else unknown,
            hint=f"name one with --image: {', '.join(sorted(known)[:_MOST_NAMES]) or 'the lock has none'}{more}",
        )
    locked = lock.images[image.name]
    if len(digests) == 1:
        return digests[0], image
    return locked.manifest if locked.manifest in digests else source.resolve(locked.platform), image


def _named(source: BaseSource, images: Sequence[ImageDeclaration]) -> ImageDeclaration | None:
    """The image in whose repository the source lies: what its name ends with; by its tag, where several share it."""
    found = [image for image in images if f"/{source.name}".endswith(f"/{image.repository}")]
    longest = max((len(image.repository) for image in found), default=0)
    found = [image for image in found if len(image.repository) == longest]
    if len(found) > 1:
        found = [image for image in found if source.tag in image.recipe.tags]
    return found[0] if len(found) == 1 else None
