"""What an OCI image layout looks like on disk, for who reads one (image-spec 1.1, image-layout.md)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layerbuild.errors import DestinationError, NotFound, SourceError
from layerbuild.model import Descriptor, sha256_hex
from layerbuild.registry import receiving
from layerbuild.registry.manifests import INDEX_TYPE, MANIFEST_LIMIT, MANIFEST_TYPE, read_descriptor
from layerbuild.wire import BLOCK

REF_NAME = "org.opencontainers.image.ref.name"
"""Annotation by which tools find an image in a layout."""

VERSION = "1.0.0"
PART = ".layerbuild-"
"""Beginning of the names of unfinished files."""

_LARGEST_INDEX = 64 * 1024 * 1024

EMPTY_INDEX: dict[str, Any] = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": []}


def blob_path(layout: Path, digest: str) -> Path:
    """Where a layout keeps the blob of that sha256 digest."""
    return layout / "blobs" / "sha256" / digest.removeprefix("sha256:")


def ref_name(entry: Mapping[str, Any]) -> str | None:
    """The name of an entry of an index, where it has one."""
    annotations = entry.get("annotations")
    name = annotations.get(REF_NAME) if isinstance(annotations, dict) else None
    return name if isinstance(name, str) else None


def check_layout(path: Path) -> bool:
    """Whether `path` is a layout; False if there is nothing yet.

    Raises:
        DestinationError: it is something else, or a layout of a version that is not known here.
    """
    try:
        names = [n for n in os.listdir(path) if not n.startswith(PART)]  # noqa: PTH208  # names are enough
    except FileNotFoundError:
        return False
    except NotADirectoryError:
        raise DestinationError(f"{path} is not a directory", hint="name a directory that is empty or new") from None
    except OSError as error:
        raise _unreadable(path, error) from None
    if "oci-layout" not in names:
        if _is_unfinished(path, names):
            return False
        raise DestinationError(
            f"{path} is not an OCI image layout",
            cause="it holds other files, and no 'oci-layout'",
            hint="name a directory that is empty or new: this one is left as it is",
        )
    marker = _read_json(path / "oci-layout")
    version = marker.get("imageLayoutVersion")
    if version != VERSION:
        raise DestinationError(
            f"{path} is an OCI image layout of another version",
            cause=f"its 'oci-layout' says {str(version)[:40]!r}, and {VERSION} is what is known here",
            hint="name another directory",
        )
    read_index(path)
    return True


def read_index(path: Path) -> dict[str, Any]:
    """The index of a layout, with a list of `manifests`.

    Raises:
        DestinationError: it is damaged, or of a version that is not known here.
    """
    file = path / "index.json"
    index = _read_json(file)
    version, entries = index.get("schemaVersion"), index.get("manifests")
    if version != 2 or not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise DestinationError(
            f"{file} is not an index that is known here",
            cause=f"its schemaVersion is {str(version)[:40]} where 2 is what is known, or its manifests are no objects",
            hint="name another directory, or a newer layerbuild",
        )
    return index


def _is_unfinished(path: Path, names: Sequence[str]) -> bool:
    """Whether nothing is there but what an interrupted `_make` leaves."""
    if set(names) - {"blobs", "index.json"}:
        return False
    if any(not name.startswith(PART) for _, _, files in os.walk(path / "blobs") for name in files):
        return False
    return "index.json" not in names or _read_json(path / "index.json") == EMPTY_INDEX


def _read_json(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as stream:
            data = stream.read(_LARGEST_INDEX + 1)
    except OSError as error:
        raise _unreadable(file, error) from None
    try:
        value = json.loads(data) if len(data) <= _LARGEST_INDEX else None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise DestinationError(f"{file} is damaged", cause="it is not a JSON object", hint="name another directory")
    return value


def _unreadable(path: Path, error: OSError) -> DestinationError:
    return DestinationError(
        f"{path} cannot be read",
        cause=error.strerror or type(error).__name__,
        hint="check the directory and its permissions; a layout that lacks a file is damaged",
    )


def require_layout(path: Path) -> None:
    """Raises:
    NotFound: there is no layout at `path`.
    DestinationError: there is something else.
    """
    if not check_layout(path):
        raise NotFound(f"there is no OCI image layout at {path}", hint="check the directory after 'oci:'")


def stored_blob(layout: Path, digest: str) -> Descriptor:
    """The descriptor of a blob by what the layout holds; its media type is not known to a layout.

    Raises:
        NotFound: the layout has no such blob.
    """
    try:
        size = blob_path(layout, digest).stat().st_size
    except OSError:
        raise NotFound(f"the OCI layout {layout} has no {digest}", hint="check the digest") from None
    return Descriptor(media_type="application/octet-stream", digest=digest, size=size)


def stored_manifest(layout: Path, entry: Mapping[str, Any]) -> bytes | None:
    """The image manifest or index that an entry of a layout's index names; None if it names none that is there
    whole."""
    try:
        described = read_descriptor(entry, str(layout))
    except SourceError:
        return None
    if described.media_type not in (MANIFEST_TYPE, INDEX_TYPE):
        return None
    data = stored_document(layout, described.digest)
    return data if data is not None and len(data) == described.size else None


def stored_document(layout: Path, digest: str) -> bytes | None:
    """A manifest or an index of a layout; None if none of that digest is there whole."""
    try:
        with blob_path(layout, digest).open("rb") as stream:
            data = stream.read(MANIFEST_LIMIT + 1)
    except OSError:
        return None
    return data if len(data) <= MANIFEST_LIMIT and f"sha256:{sha256_hex(data)}" == digest else None


@dataclass(frozen=True, kw_only=True)
class FileBlob:
    """A blob of a layout, as a `Readable`."""

    digest: str
    size: int
    layout: Path

    def open(self, offset: int = 0) -> Iterator[bytes]:
        """Chunks from `offset` on; a read of the whole is verified."""
        what = f"the blob {self.digest} in {self.layout}"
        pieces = receiving.sized(self._read(offset), self.size - offset, what)
        return pieces if offset else receiving.verified(pieces, self.digest, what)

    def _read(self, offset: int) -> Iterator[bytes]:
        try:
            with blob_path(self.layout, self.digest).open("rb") as stream:
                stream.seek(offset)
                while piece := stream.read(BLOCK):
                    yield piece
        except OSError as error:
            raise _unreadable(blob_path(self.layout, self.digest), error) from None
