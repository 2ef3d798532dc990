"""Base images: reading what is there already, from a registry or an OCI layout.

Everything is read by digest and checked against it. What a manifest says of itself is held against
what was asked for (image-spec 1.1, manifest.md and image-index.md; Docker's schema 2 equivalents).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from layerbuild.destinations import layoutdir
from layerbuild.errors import NotFound, UsageError
from layerbuild.model import Descriptor, Readable, sha256_hex
from layerbuild.registry import receiving
from layerbuild.registry.layertar import layer_headers
from layerbuild.registry.manifests import (
    INDEX_TYPE,
    INDEXES,
    MANIFESTS,
    config_of,
    layers_of,
    nonsense,
    read_descriptor,
    read_document,
    read_object,
)
from layerbuild.registry.reference import Reference, is_digest, parse_reference
from layerbuild.registry.union import Found, Occupied, Union

if TYPE_CHECKING:
    from layerbuild.registry.client import RegistryClient

__all__ = ["BaseSource", "Found", "Occupied", "directories", "open_base"]

_LARGEST_DOCUMENT = 4 * 1024 * 1024


class BaseSource(Protocol):
    """One base image. Errors name it."""

    @property
    def reference(self) -> str:
        """As the user wrote it."""

    @property
    def host(self) -> str | None:
        """The registry, as in `Reference.host`; None for a layout."""

    @property
    def repository(self) -> str | None:
        """The full name on that registry; None for a layout."""

    def resolve(self, platform: str) -> str:
        """The digest of the image manifest for a platform, `linux/amd64` or `linux/arm64/v8`.

        Raises:
            NotFound: there is no such image, or it has no such platform.
            SourceError: what is there makes no sense.
            LayerbuildError: it cannot be read.
        """

    def platforms(self) -> dict[str, str]:
        """Digests of the image manifests, by platform: every one of an index, or the only one."""

    def manifest(self, digest: str) -> bytes:
        """An image manifest, verified, its shape checked."""

    def config(self, manifest: bytes) -> bytes:
        """The image config that a manifest names, verified."""

    def blob(self, descriptor: Descriptor) -> Readable:
        """A blob, not opened yet. A read of the whole is verified."""


class _Backend(Protocol):
    """Where an image lies."""

    host: str | None
    repository: str | None

    def top(self) -> tuple[str, bytes]: ...

    def document(self, digest: str) -> tuple[str, bytes]: ...

    def blob(self, descriptor: Descriptor) -> Readable: ...


def open_base(reference: str, *, client_for: Callable[[str], RegistryClient], project: Path) -> BaseSource:
    """A base image. Nothing is read yet.

    Args:
        reference: `HOST/REPOSITORY:TAG`, `HOST/REPOSITORY@sha256:HEX`, `oci:DIR:NAME[:TAG]` or
            `oci:DIR@sha256:HEX`.
        client_for: gives the client of a registry, for example `registry.clients.Clients`.
        project: what a relative DIR is relative to.

    Raises:
        UsageError: `reference` is none of these.
    """
    if reference.startswith("oci:"):
        return _Base(reference, _layout(reference, project))
    parsed = parse_reference(reference)
    return _Base(reference, _RegistryBackend(client_for(parsed.host), parsed))


class _Base:
    """What registries and layouts have in common. See `BaseSource`."""

    def __init__(self, reference: str, backend: _Backend) -> None:
        self.reference = reference
        self.host = backend.host
        self.repository = backend.repository
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
            return {_platform(offered): digest for offered, digest in reversed(list(self._offers(document)))}
        return {_platform(read_object(self.config(data), self.reference)): f"sha256:{sha256_hex(data)}"}

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
        if described.size > _LARGEST_DOCUMENT:
            raise nonsense(self.reference, f"its config has {described.size} bytes")
        return b"".join(self._backend.blob(described).open())

    def blob(self, descriptor: Descriptor) -> Readable:
        """See `BaseSource.blob`."""
        return self._backend.blob(descriptor)

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


@dataclass(frozen=True, kw_only=True)
class _RegistryBlob:
    digest: str
    size: int
    client: RegistryClient
    repository: str

    def open(self, offset: int = 0) -> Iterator[bytes]:
        pieces = self.client.open_blob(self.repository, self.digest, offset=offset)
        return receiving.sized(pieces, self.size - offset, f"the blob {self.digest} of {self.repository}")


class _RegistryBackend:
    def __init__(self, client: RegistryClient, reference: Reference) -> None:
        self._client = client
        self._reference = reference
        self.host: str | None = reference.host
        self.repository: str | None = reference.repository

    def top(self) -> tuple[str, bytes]:
        return self.document(self._reference.digest or self._reference.tag or "latest")

    def document(self, digest: str) -> tuple[str, bytes]:
        media_type, data, _ = self._client.get_manifest(self._reference.repository, digest, accept=MANIFESTS + INDEXES)
        return media_type, data

    def blob(self, descriptor: Descriptor) -> Readable:
        return _RegistryBlob(
            digest=descriptor.digest,
            size=descriptor.size,
            client=self._client,
            repository=self._reference.repository,
        )


class _LayoutBackend:
    host: str | None = None
    repository: str | None = None

    def __init__(self, path: Path, *, name: str | None, digest: str | None) -> None:
        self._path = path
        self._name = name
        self._digest = digest

    def top(self) -> tuple[str, bytes]:
        if self._digest:
            return self.document(self._digest)
        entry = self._entry()
        return entry.media_type, self._small(entry)

    def document(self, digest: str) -> tuple[str, bytes]:
        layoutdir.require_layout(self._path)
        data = self._small(layoutdir.stored_blob(self._path, digest))
        document = read_object(data, str(self._path))
        # a layout does not tell the type of a blob, and the document itself need not
        implied = INDEX_TYPE if "manifests" in document else MANIFESTS[0]
        return str(document.get("mediaType") or implied), data

    def blob(self, descriptor: Descriptor) -> Readable:
        return layoutdir.FileBlob(digest=descriptor.digest, size=descriptor.size, layout=self._path)

    def _small(self, described: Descriptor) -> bytes:
        if described.size > _LARGEST_DOCUMENT:
            raise nonsense(str(self._path), f"its manifest has {described.size} bytes")
        return b"".join(self.blob(described).open())

    def _entry(self) -> Descriptor:
        layoutdir.require_layout(self._path)
        entries = layoutdir.read_index(self._path)["manifests"]
        wanted = {self._name, f"{self._name}:latest"}
        found = [e for e in entries if self._name is None or layoutdir.ref_name(e) in wanted]
        if len(found) != 1:
            names = sorted(layoutdir.ref_name(e) or "(an image without a name)" for e in entries)
            raise NotFound(
                f"there is no single image {self._name or ''!s} in the OCI layout {self._path}",
                cause=f"it holds {', '.join(names)[:500] or 'nothing'}",
                hint="name one of these as oci:DIR:NAME:TAG",
            )
        return read_descriptor(found[0], str(self._path))


def _layout(reference: str, project: Path) -> _LayoutBackend:
    text = reference.removeprefix("oci:")
    directory, at, digest = text.rpartition("@")
    name = None
    if not at or not is_digest(digest):
        directory, _, name = text.partition(":")
        digest = ""
    if not directory or name == "" or "\0" in directory:
        raise UsageError(
            f"{reference[:200]!r} is not the name of an image in an OCI layout",
            hint="write it like oci:DIR:NAME:TAG or oci:DIR@sha256:…",
        )
    return _LayoutBackend(project / directory, name=name, digest=digest or None)


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
