"""What a lock says, as values. `locktext.py` reads and writes it; `resolve.py` makes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from layerbuild.buckets import Buckets
from layerbuild.model import Directory, Facts, Pin, Receipt

VERSION = 1
PENDING = "pending"


@dataclass(frozen=True, kw_only=True)
class LockedLayer:
    """What a declaration was resolved to.

    Attributes:
        declaration: digest of what was asked for when the pins were made.
        pins: by what the declaration needs them for: the model, its sidecars, each of a webui's checkouts.
    """

    declaration: str
    pins: Mapping[str, Pin]


@dataclass(frozen=True, kw_only=True)
class LockedBase:
    """An image's base.

    Attributes:
        reference: as the recipe has it.
        digest: of its manifest for the image's platform.
        directories: mode and owner of directories that were looked up; None where the base has nothing there.
    """

    reference: str
    digest: str
    directories: Mapping[str, Directory | None] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class LockedImage:
    """One image.

    Attributes:
        platform: such as `linux/amd64`.
        settings: a digest of what shapes the image besides its base and layers.
        base: None of an image from `scratch`.
        layers: in order, each as `kind/label@key` with the first 16 digits of its key, or `pending`.
        buckets: how model files share layers where there are very many.
        manifest: its digest; None until the image was composed once.
    """

    platform: str
    settings: str
    base: LockedBase | None
    layers: tuple[str, ...]
    buckets: Buckets | None = None
    manifest: str | None = None


@dataclass(frozen=True, kw_only=True)
class LockedIndex:
    """Images for several platforms under one name.

    Attributes:
        platforms: in the order of the recipe.
        digest: of the index over them; None until every one of them was composed once.
    """

    platforms: tuple[str, ...]
    digest: str | None = None


@dataclass(frozen=True, kw_only=True)
class Lock:
    """The whole lock.

    Attributes:
        layers: what declarations were resolved to: by name, or `NAME[variable=value]`.
        files: facts learnt from the content of files, by sha256.
        receipts: what layers became, by key.
        images: bases, layers and manifests, by name; with the platform where there are several: `NAME@os/architecture`.
        indexes: what lies over the platforms of an image, by name; only of images for several platforms.
        unlocked: what could not be reached, and why: a pin key, or `base:REFERENCE`.
    """

    layers: Mapping[str, LockedLayer] = field(default_factory=dict)
    files: Mapping[str, Facts] = field(default_factory=dict)
    receipts: Mapping[str, Receipt] = field(default_factory=dict)
    images: Mapping[str, LockedImage] = field(default_factory=dict)
    indexes: Mapping[str, LockedIndex] = field(default_factory=dict)
    unlocked: Mapping[str, str] = field(default_factory=dict)


def platform_name(name: str, platform: str) -> str:
    """What one of several platforms of an image is called."""
    return f"{name}@{platform}"


def forgetting(
    indexes: Mapping[str, LockedIndex], before: Mapping[str, LockedImage], now: Mapping[str, LockedImage]
) -> dict[str, LockedIndex]:
    """`indexes` without the digests of those of which an image is another `now` than it was `before`."""
    return {
        name: replace(index, digest=None)
        if any(now.get(one) != before.get(one) for one in (platform_name(name, p) for p in index.platforms))
        else index
        for name, index in indexes.items()
    }


def layer_line(kind: str, label: str, key: str | None) -> str:
    """How an image's list names a layer: enough of the key to notice any change."""
    return f"{kind}/{label}@{key[:16] if key else PENDING}"


def key_of_line(line: str) -> str:
    """The beginning of the layer's key, or `PENDING`."""
    return line.rpartition("@")[2]
