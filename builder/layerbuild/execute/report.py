"""What a push did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from layerbuild.errors import LayerbuildError


@dataclass(frozen=True, kw_only=True)
class PushedImage:
    """An image at its destination.

    Attributes:
        digest: of its manifest, or of the index over its platforms.
        platforms: digests of the manifests that an index names, by platform.
    """

    name: str
    digest: str
    references: tuple[str, ...]
    platforms: Mapping[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        platforms = [{"platform": platform, "digest": digest} for platform, digest in self.platforms.items()]
        described = {"name": self.name, "digest": self.digest, "references": list(self.references)}
        return {**described, **({"platforms": platforms} if platforms else {})}


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a push did. Bytes are those of blobs: uploaded were sent, mounted and present were not.

    A blob counts once, however many images have it, as in a plan; twice only where it had to be sent twice.
    `failed` says what went wrong, by image.
    """

    images: tuple[PushedImage, ...]
    uploaded: int
    mounted: int
    present: int
    failed: Mapping[str, LayerbuildError] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "images": [image.as_json() for image in self.images],
            "failed": [{"name": name, "error": error.message} for name, error in self.failed.items()],
            "uploaded_bytes": self.uploaded,
            "mounted_bytes": self.mounted,
            "present_bytes": self.present,
        }
