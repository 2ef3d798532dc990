"""Base images: reading what is there already, from a registry or an OCI layout.

Everything is read by digest and checked against it. What a manifest says of itself is held against
what was asked for (image-spec 1.1, manifest.md and image-index.md; Docker's schema 2 equivalents).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from layerbuild.backends import LARGEST_DOCUMENT, Backend, LayoutBackend, RegistryBackend
from layerbuild.errors import NotFound
from layerbuild.model import Descriptor, Readable, sha256_hex
from layerbuild.registry.layertar import layer_headers
from layerbuild.registry.manifests import (
    INDEXES,
    MANIFESTS,
    config_of,
    layers_of,
    nonsense,
    read_descriptor,
    read_document,
    read_object,
)
from layerbuild.registry.reference import parse_reference
from layerbuild.registry.union import Found, Occupied, Union

if TYPE_CHECKING:
    from layerbuild.registry.client import RegistryClient

__all__ = ["BaseSource", "Found", "Occupied", "directories", "open_base"]

MOST_MANIFESTS = 32
"""Images of an index that are looked at: one for each platform, and nobody builds for more."""


class BaseSource(Protocol):
    """One image that is there already: a base, or one that a command line names. Errors name it."""

    @property
    def reference(self) -> str:
        """As the user wrote it."""

    @property
    def host(self) -> str | None:
        """The registry, as in `Reference.host`; None for a layout."""

    @property
    def repository(self) -> str | None:
        """The full name on that registry; None for a layout."""

    @property
    def name(self) -> str | None:
        """What the image is called there, without its tag; None where only a digest is known."""

    @property
    def tag(self) -> str | None:
        """The tag that the reference names; None where it names none."""

    def resolve(self, platform: str) -> str:
        """The digest of the image manifest for a platform, `linux/amd64` or `linux/arm64/v8`.

        Raises:
            NotFound: there is no such image, or it has no such platform.
            SourceError: what is there makes no sense.
            LayerbuildError: it cannot be read.
        """

    def platforms(self) -> dict[str, str]:
        """Digests of the image manifests, by platform: every one of an index, or the only one."""

    def index(self) -> tuple[bytes, dict[str, str]] | None:
        """The index that the reference names, and the digests of its image manifests by platform; None where it
        names the manifest of an image.

        Raises:
            SourceError: what is there makes no sense.
        """

    def manifests(self) -> tuple[str, ...]:
        """Digests of the image manifests, in their order: of an index, or the only one. No config is read.

        Raises:
            SourceError: what is there makes no sense, or names more than `MOST_MANIFESTS`.
        """

    def manifest(self, digest: str) -> bytes:
        """An image manifest, verified, its shape checked."""

    def config(self, manifest: bytes) -> bytes:
        """The image config that a manifest names, verified."""

    def blob(self, descriptor: Descriptor) -> Readable:
        """A blob, not opened yet. A read of the whole is verified."""

    def stored_size(self, digest: str) -> int | None:
        """Bytes of a blob by what the place says, None if it has none of that digest. Nothing is read."""


def open_base(reference: str, *, client_for: Callable[[str], RegistryClient], project: Path) -> BaseSource:
    """A base image. Nothing is read yet.

    Args:
        reference: `HOST/REPOSITORY:TAG`, `HOST/REPOSITORY@sha256:HEX`, `oci:DIR:NAME[:TAG]`,
            `oci:DIR@sha256:HEX`, or a name and a digest, of which the digest decides.
        client_for: gives the client of a registry, for example `registry.clients.Clients`.
        project: what a relative DIR is relative to.

    Raises:
        UsageError: `reference` is none of these.
    """
    if reference.startswith("oci:"):
        return _Base(reference, LayoutBackend.of(reference, project))
    parsed = parse_reference(reference)
    return _Base(reference, RegistryBackend(lambda: client_for(parsed.host), parsed))


class _Base:
    """What registries and layouts have in common. See `BaseSource`."""

    def __init__(self, reference: str, backend: Backend) -> None:
        self.reference = reference
        self.host = backend.host
        self.repository = backend.repository
        self.name = backend.name
        self.tag = backend.tag
        self._backend = backend

    def resolve(self, platform: str) -> str:
        """See `BaseSource.resolve`."""
        media_type, data = self._backend.top()
        document = read_document(media_type, data, self.reference)
        if media_type in INDEXES:
            return self._choose(document, platform)
        config = read_object(self.config(data), self.reference)
        if not _suits(config, platform):
            raise self._no_platform(platform, [_platform(config)])
        return f"sha256:{sha256_hex(data)}"

    def platforms(self) -> dict[str, str]:
        """See `BaseSource.platforms`."""
        media_type, data = self._backend.top()
        document = read_document(media_type, data, self.reference)
        if media_type in INDEXES:
            return self._by_platform(document)
        return {_platform(read_object(self.config(data), self.reference)): f"sha256:{sha256_hex(data)}"}

    def index(self) -> tuple[bytes, dict[str, str]] | None:
        """See `BaseSource.index`."""
        media_type, data = self._backend.top()
        document = read_document(media_type, data, self.reference)
        return (data, self._by_platform(document)) if media_type in INDEXES else None

    def manifests(self) -> tuple[str, ...]:
        """See `BaseSource.manifests`."""
        media_type, data = self._backend.top()
        document = read_document(media_type, data, self.reference)
        if media_type not in INDEXES:
            return (f"sha256:{sha256_hex(data)}",)
        found = tuple(dict.fromkeys(digest for _, digest in self._offers(document)))
        if not 0 < len(found) <= MOST_MANIFESTS:
            raise nonsense(self.reference, f"it is an index of {len(found)} images")
        return found

    def manifest(self, digest: str) -> bytes:
        """See `BaseSource.manifest`."""
        media_type, data = self._backend.document(digest)
        document = read_document(media_type, data, self.reference)
        if media_type not in MANIFESTS:
            raise nonsense(self.reference, f"{digest} is an index, and not the manifest of an image")
        config_of(document, self.reference)
        layers_of(document, self.reference)
        return data

    def config(self, manifest: bytes) -> bytes:
        """See `BaseSource.config`."""
        described = config_of(read_object(manifest, self.reference), self.reference)
        if described.size > LARGEST_DOCUMENT:
            raise nonsense(self.reference, f"its config has {described.size} bytes")
        return b"".join(self._backend.blob(described).open())

    def blob(self, descriptor: Descriptor) -> Readable:
        """See `BaseSource.blob`."""
        return self._backend.blob(descriptor)

    def stored_size(self, digest: str) -> int | None:
        """See `BaseSource.stored_size`."""
        return self._backend.stored_size(digest)

    def _by_platform(self, index: Mapping[str, Any]) -> dict[str, str]:
        found: dict[str, str] = {}
        for offered, digest in self._offers(index):
            found.setdefault(_platform(offered), digest)
        return found

    def _choose(self, index: Mapping[str, Any], platform: str) -> str:
        available = []
        for offered, digest in self._offers(index):
            if _suits(offered, platform):
                return digest
            available.append(_platform(offered))
        raise self._no_platform(platform, available)

    def _offers(self, index: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], str]]:
        """Platforms of an index with the digests of their manifests."""
        entries = index.get("manifests")
        for entry in entries if isinstance(entries, list) else []:
            described = read_descriptor(entry, self.reference)
            offered = entry.get("platform")
            # an attestation stands in an index as the image of an unknown platform
            if described.media_type in MANIFESTS and isinstance(offered, dict) and offered.get("os") != "unknown":
                yield offered, described.digest

    def _no_platform(self, platform: str, available: Sequence[str]) -> NotFound:
        return NotFound(
            f"the base image {self.reference} is not there for {platform}",
            cause=f"it is there for {', '.join(available)[:500] or 'no platform'}",
            hint="choose one of these platforms, or another base",
        )


def _platform(offered: Mapping[str, Any]) -> str:
    return "/".join(str(offered[key])[:40] for key in ("os", "architecture", "variant") if offered.get(key))


def _suits(offered: Mapping[str, Any], platform: str) -> bool:
    """A platform without a variant takes any; arm64 and arm64/v8 are the same."""
    wanted = platform.split("/")
    if [offered.get("os"), offered.get("architecture")] != wanted[:2]:
        return False
    variant = offered.get("variant") or ("v8" if wanted[1] == "arm64" else "")
    return len(wanted) < 3 or variant == wanted[2]


def directories(source: BaseSource, manifest: bytes, wanted: Sequence[str]) -> dict[str, Found]:
    """What a base image has at some paths, so that a layer above can repeat the attributes.

    Layers are read from the top down, and no further than needed; memory does not grow with them.
    Of a plain tar, large bodies are not transferred, so its headers are not held against its digest.

    Args:
        source: the base image.
        manifest: as `source.manifest` gave it.
        wanted: paths without a leading slash, `/`-separated.

    Returns:
        For each of them a `Directory`, `Occupied` where it is a file or a symlink, or None.

    Raises:
        SourceError: a layer is damaged, hostile, or of a type that is not known here.
    """
    union = Union(wanted)
    where = source.reference
    for layer in reversed(layers_of(read_object(manifest, where), where)):
        if union.decided:
            break
        union.add(layer_headers(source.blob(layer), layer.media_type))
    return union.result()
