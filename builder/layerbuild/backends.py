"""Where an image lies that is there already: a registry, or an OCI layout. Gives documents and blobs by digest.

What documents mean is `baseimage`'s business; here they are only fetched, and held against their digests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from layerbuild.destinations import layoutdir
from layerbuild.errors import NotFound, UsageError
from layerbuild.model import Descriptor, Readable
from layerbuild.registry import receiving
from layerbuild.registry.manifests import INDEX_TYPE, INDEXES, MANIFESTS, nonsense, read_descriptor, read_object
from layerbuild.registry.reference import Reference, is_digest

if TYPE_CHECKING:
    from layerbuild.registry.client import RegistryClient

LARGEST_DOCUMENT = 4 * 1024 * 1024
"""Bytes of a manifest or a config (distribution-spec 1.1: what registries agree to take)."""


class Backend(Protocol):
    """One image's place.

    Attributes:
        host: the registry, as in `Reference.host`; None for a layout.
        repository: the full name on that registry; None for a layout.
        name: what the image is called there, without its tag; None where only a digest is known.
        tag: by which it was asked for; None where it was by a digest.
    """

    host: str | None
    repository: str | None
    name: str | None
    tag: str | None

    def top(self) -> tuple[str, bytes]:
        """Media type and bytes of what the reference names."""

    def document(self, digest: str) -> tuple[str, bytes]:
        """Media type and bytes of a manifest or an index."""

    def blob(self, descriptor: Descriptor) -> Readable:
        """A blob, not opened yet."""

    def stored_size(self, digest: str) -> int | None:
        """Bytes of a blob by what the place says, None if it has none of that digest."""


@dataclass(frozen=True, kw_only=True)
class _RegistryBlob:
    digest: str
    size: int
    client: RegistryClient
    repository: str

    def open(self, offset: int = 0) -> Iterator[bytes]:
        pieces = self.client.open_blob(self.repository, self.digest, offset=offset)
        return receiving.sized(pieces, self.size - offset, f"the blob {self.digest} of {self.repository}")


class RegistryBackend:
    """An image in a registry. See `Backend`."""

    def __init__(self, open_client: Callable[[], RegistryClient], reference: Reference) -> None:
        self._open_client = open_client
        self._reference = reference
        self.host: str | None = reference.host
        self.repository: str | None = reference.repository
        self.name: str | None = reference.repository
        self.tag: str | None = reference.tag

    @cached_property
    def _client(self) -> RegistryClient:
        # What is known of the image may be on this machine: then none is asked for.
        return self._open_client()

    def top(self) -> tuple[str, bytes]:
        """See `Backend.top`."""
        return self.document(self._reference.digest or self._reference.tag or "latest")

    def document(self, digest: str) -> tuple[str, bytes]:
        """See `Backend.document`."""
        media_type, data, _ = self._client.get_manifest(self._reference.repository, digest, accept=MANIFESTS + INDEXES)
        return media_type, data

    def blob(self, descriptor: Descriptor) -> Readable:
        """See `Backend.blob`."""
        return _RegistryBlob(
            digest=descriptor.digest,
            size=descriptor.size,
            client=self._client,
            repository=self._reference.repository,
        )

    def stored_size(self, digest: str) -> int | None:
        """See `Backend.stored_size`."""
        return self._client.head_blob(self._reference.repository, digest)


class LayoutBackend:
    """An image in an OCI layout. See `Backend`."""

    host: str | None = None
    repository: str | None = None

    def __init__(self, path: Path, *, name: str | None, digest: str | None) -> None:
        self._path = path
        self._entry_name = name
        self._digest = digest
        said, _, tag = (name or "").partition(":")
        self.name: str | None = said or None
        self.tag: str | None = tag or None

    @classmethod
    def of(cls, reference: str, directory: Path) -> LayoutBackend:
        """The image that `oci:DIR:NAME[:TAG]`, `oci:DIR@sha256:HEX` or both together name, DIR relative to `directory`.
        As in a registry, a digest decides.

        Raises:
            UsageError: `reference` is none of these.
        """
        text = reference.removeprefix("oci:")
        named, at, digest = text.rpartition("@")
        if not at or not is_digest(digest):
            named, digest = text, ""
        path, colon, said = named.partition(":")
        name = said if colon or not digest else None
        if not path or name == "" or "\0" in path:
            raise UsageError(
                f"{reference[:200]!r} is not the name of an image in an OCI layout",
                hint="write it like oci:DIR:NAME:TAG or oci:DIR@sha256:…",
            )
        return cls(directory / path, name=name, digest=digest or None)

    def top(self) -> tuple[str, bytes]:
        """See `Backend.top`."""
        if self._digest:
            return self.document(self._digest)
        entry = self._entry()
        return entry.media_type, self._small(entry)

    def document(self, digest: str) -> tuple[str, bytes]:
        """See `Backend.document`."""
        layoutdir.require_layout(self._path)
        data = self._small(layoutdir.stored_blob(self._path, digest))
        document = read_object(data, str(self._path))
        # a layout does not tell the type of a blob, and the document itself need not
        implied = INDEX_TYPE if "manifests" in document else MANIFESTS[0]
        return str(document.get("mediaType") or implied), data

    def blob(self, descriptor: Descriptor) -> Readable:
        """See `Backend.blob`."""
        return layoutdir.FileBlob(digest=descriptor.digest, size=descriptor.size, layout=self._path)

    def stored_size(self, digest: str) -> int | None:
        """See `Backend.stored_size`."""
        try:
            return layoutdir.stored_blob(self._path, digest).size
        except NotFound:
            return None

    def _small(self, described: Descriptor) -> bytes:
        if described.size > LARGEST_DOCUMENT:
            raise nonsense(str(self._path), f"its manifest has {described.size} bytes")
        return b"".join(self.blob(described).open())

    def _entry(self) -> Descriptor:
        layoutdir.require_layout(self._path)
        entries = layoutdir.read_index(self._path)["manifests"]
        wanted = {self._entry_name, f"{self._entry_name}:latest"}
        found = [e for e in entries if self._entry_name is None or layoutdir.ref_name(e) in wanted]
        if len(found) != 1:
            names = sorted(layoutdir.ref_name(e) or "(an image without a name)" for e in entries)
            raise NotFound(
                f"there is no single image {self._entry_name or ''!s} in the OCI layout {self._path}",
                cause=f"it holds {', '.join(names)[:500] or 'nothing'}",
                hint="name one of these as oci:DIR:NAME:TAG",
            )
        return read_descriptor(found[0], str(self._path))
