"""What is known of a pushed image before it is looked at, and after: which image it should be, and the outcome."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from layerbuild.baseimage import BaseSource
from layerbuild.errors import UsageError
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


def identify(source: BaseSource, lock: Lock, name: str | None) -> tuple[str, str]:
    """The manifest that is meant, and which image of the lock it should be.

    Args:
        name: of the image, where the user says it; else it is the one whose manifest this is, or that the end
            of the repository's name names.

    Returns:
        The manifest's digest, and the image's name.

    Raises:
        UsageError: the lock has no such image, or none can be told.
        NotFound: there is nothing of that name, or not for the image's platform.
        SourceError: what is there makes no sense.
    """
    digests = source.manifests()
    if name is None:
        made = {image.manifest: image_name for image_name, image in lock.images.items()}
        name = next((made[digest] for digest in digests if digest in made), None) or _named(source.name, lock)
    if name is None or name not in lock.images:
        names = sorted(lock.images)
        more = " …" if len(names) > _MOST_NAMES else ""
        unknown = f"it cannot be told which image of the lock {source.reference} is"
        raise UsageError(
            f"the lock has no image {name!r}" if name else unknown,
            hint=f"name one with --image: {', '.join(names[:_MOST_NAMES]) or 'the lock has none'}{more}",
        )
    locked = lock.images[name]
    if len(digests) == 1:
        return digests[0], name
    return locked.manifest if locked.manifest in digests else source.resolve(locked.platform), name


def _named(repository: str | None, lock: Lock) -> str | None:
    """The image whose name a repository ends with; the longest, where names have several components."""
    found = [name for name in lock.images if f"/{repository}".endswith(f"/{name}")]
    return max(found, key=len, default=None)
