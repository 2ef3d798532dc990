"""What is known of a pushed image before it is looked at, and after: which image it should be, and the outcome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from layerbuild.baseimage import BaseSource
from layerbuild.errors import UsageError
from layerbuild.images import ImageDeclaration, IndexDeclaration
from layerbuild.lockmodel import Lock
from layerbuild.similar import did_you_mean

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


@dataclass(frozen=True, kw_only=True)
class IndexVerification:
    """What came of an index.

    Attributes:
        image: its name in the lock.
        digest: of what the reference names.
        platforms: what came of each of its images that the lock has, too.
        own: everything by which the index itself is not what the lock makes.
        notes: what could not be compared.
    """

    reference: str
    image: str
    digest: str
    deep: bool
    platforms: Mapping[str, Verification]
    own: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def findings(self) -> tuple[str, ...]:
        """Those of all."""
        return (*self.own, *(f"{platform}: {f}" for platform, found in self.platforms.items() for f in found.findings))

    @property
    def bytes_read(self) -> int:
        """Of blobs, configs included."""
        return sum(found.bytes_read for found in self.platforms.values())

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        platforms = [{"platform": platform, **found.as_json()} for platform, found in self.platforms.items()]
        return {
            "reference": self.reference,
            "image": self.image,
            "digest": self.digest,
            "deep": self.deep,
            "ok": not self.findings,
            "platforms": platforms,
            "findings": list(self.findings),
            "notes": list(self.notes),
            "read_bytes": self.bytes_read,
        }


@dataclass(frozen=True, kw_only=True)
class Meant:
    """What a reference should be: the manifest `digest` that is of `image`; or `index`, and `image` one of it."""

    image: ImageDeclaration
    digest: str = ""
    index: IndexDeclaration | None = None


def identify(source: BaseSource, images: Sequence[ImageDeclaration], lock: Lock, name: str | None) -> Meant:
    """The manifest that is meant, and which image of the project it should be; or that it should be an index.

    Args:
        images: of the project.
        name: of the image, where the user says it; else it is the one whose manifest this is by the lock, or
            whose repository and tag are named.

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
        image = known.get(name) or next((one for one in known.values() if one.title == name), None)
    if image is None:
        names = sorted({one.title for one in known.values()})
        more = " …" if len(names) > _MOST_NAMES else ""
        similar = did_you_mean(name, names) if name else ""
        unknown = f"it cannot be told which image of the lock {source.reference} is"
        raise UsageError(
            f"the lock has no image {name!r}" if name else unknown,
            hint=f"name one with --image: {', '.join(names[:_MOST_NAMES]) or 'the lock has none'}{more}{similar}",
        )
    locked = lock.images[image.name]
    if image.index is not None and name != image.name:
        # Who names one manifest of it, and no more, means that.
        alone = name is None and locked.manifest == digests[0] and source.index() is None
        return Meant(image=image, digest=digests[0]) if alone else Meant(image=image, index=image.index)
    if len(digests) == 1:
        return Meant(image=image, digest=digests[0])
    digest = locked.manifest if locked.manifest in digests else source.resolve(locked.platform)
    return Meant(image=image, digest=digest)


def _named(source: BaseSource, images: Sequence[ImageDeclaration]) -> ImageDeclaration | None:
    """The image in whose repository the source lies: what its name ends with; by its tag, where several share it."""
    found = [image for image in images if f"/{source.name}".endswith(f"/{image.repository}")]
    longest = max((len(image.repository) for image in found), default=0)
    found = [image for image in found if len(image.repository) == longest]
    if len({image.title for image in found}) > 1:
        found = [image for image in found if source.tag in image.recipe.tags]
    return found[0] if len({image.title for image in found}) == 1 else None
