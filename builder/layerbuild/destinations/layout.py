"""An OCI image layout as a destination: a directory that other tools can read (image-spec 1.1, image-layout.md).

All images share one `blobs/sha256`. Files appear under their names only when they are whole and on
disk, and the index is replaced in one step, so that a crash at any point leaves a valid layout.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from layerbuild.destinations.base import Room
from layerbuild.destinations.files import counted, explained, fill, free_at, new_file, sweep, unfinished, write
from layerbuild.destinations.layoutdir import (
    EMPTY_INDEX,
    PART,
    REF_NAME,
    VERSION,
    blob_path,
    check_layout,
    read_index,
    ref_name,
    stored_document,
    stored_manifest,
)
from layerbuild.model import Descriptor, Readable, sha256_hex
from layerbuild.registry.reference import check_repository, check_tag, is_digest
from layerbuild.registry.sending import Proof, Stream, hashed, telling


class LayoutDestination:
    """Images in one layout directory, which is made at the first `put`. See `base.Destination`.

    Args:
        name: as the user wrote it.
        path: the directory.

    Raises:
        DestinationError: `path` is something else than a layout of a version that is known here.
    """

    host: str | None = None
    ordered = False

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self._path = path
        self._made = False
        with explained(f"the OCI layout {path}"):
            check_layout(path)

    def whole(self) -> contextlib.AbstractContextManager[None]:
        """See `Destination.whole`: files of a layout appear one by one."""
        return contextlib.nullcontext()

    def room(self) -> Room:
        """See `Destination.room`."""
        return Room(free=free_at(self._path))

    def check_push(self, repository: str, *, soon: bool) -> None:
        """See `Destination.check_push`: a directory says at once what it does not take."""

    def full_name(self, repository: str) -> str:
        """See `Destination.full_name`: a layout has no prefix."""
        return repository

    def has(self, repository: str, digest: str, size: int | None = None) -> bool:
        """See `Destination.has`. All images of a layout share its blobs."""
        if not is_digest(digest):
            return False
        path = blob_path(self._path, digest)
        return path.is_file() and (size is None or path.stat().st_size == size)

    def mount(self, repository: str, digest: str, candidates: Sequence[str]) -> bool:
        """See `Destination.mount`: nothing to do where blobs are shared."""
        return self.has(repository, digest)

    def put(self, repository: str, blob: Readable, *, advance: Callable[[int], None]) -> None:
        """See `Destination.put`."""
        check_repository(repository, where=f"{self.name}:{repository}")
        with self._explained():
            self._make()
            with counted(advance) as sent, new_file(blob_path(self._path, blob.digest)) as part:
                fill(part, telling(Proof(blob).rest(), sent))

    def put_unnamed(
        self,
        repository: str,
        size: int,
        open: Callable[[], Iterator[bytes]],
        *,
        title: str,
        advance: Callable[[int], None],
    ) -> str:
        """See `Destination.put_unnamed`."""
        check_repository(repository, where=f"{self.name}:{repository}")
        seen = hashlib.sha256()
        with self._explained():
            self._make()
            with counted(advance) as sent, unfinished(self._path / "blobs" / "sha256") as (part, keep):
                fill(part, telling(hashed(Stream(open=open, size=size, title=title), seen), sent))
                digest = f"sha256:{seen.hexdigest()}"
                if not self.has(repository, digest, size):
                    keep(blob_path(self._path, digest))
        return digest

    def manifest(self, repository: str, reference: str) -> bytes | None:
        """See `Destination.manifest`. One that is damaged counts as absent."""
        repository = check_repository(repository, where=f"{self.name}:{repository}")
        if not check_layout(self._path):
            return None
        if is_digest(reference):
            return stored_document(self._path, reference)
        name = f"{repository}:{check_tag(reference, where=reference)}"
        entries = read_index(self._path)["manifests"]
        return next((stored_manifest(self._path, entry) for entry in entries if ref_name(entry) == name), None)

    def put_manifest(self, repository: str, tag: str | None, media_type: str, data: bytes) -> None:
        """See `Destination.put_manifest`. Without a tag the manifest is a blob that an index may name."""
        name = check_repository(repository, where=f"{self.name}:{repository}")
        digest = f"sha256:{sha256_hex(data)}"
        with self._explained():
            self._make()
            _write(blob_path(self._path, digest), data)
            if tag is None:
                return
            name = f"{name}:{check_tag(tag, where=f'{name}:{tag}')}"
            entry = Descriptor(
                media_type=media_type, digest=digest, size=len(data), annotations=((REF_NAME, name),)
            ).as_json()
            with _locked(self._path):
                index = read_index(self._path)
                kept = [e for e in index["manifests"] if ref_name(e) != name]
                index["manifests"] = sorted([*kept, entry], key=lambda e: (ref_name(e) or "", str(e.get("digest"))))
                _write(self._path / "index.json", _json(index))

    def _make(self) -> None:
        """Makes the layout if it is not there. What says that it is one comes last."""
        if self._made:
            return
        self._path.mkdir(parents=True, exist_ok=True)
        with _locked(self._path):
            if not check_layout(self._path):
                (self._path / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
                _write(self._path / "index.json", _json(EMPTY_INDEX))
                _write(self._path / "oci-layout", _json({"imageLayoutVersion": VERSION}))
            self._made = True
        sweep([*self._path.glob(f"{PART}*"), *self._path.glob(f"blobs/sha256/{PART}*")])

    def _explained(self) -> contextlib.AbstractContextManager[None]:
        return explained(f"the OCI layout {self._path}")


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=2).encode() + b"\n"


def _write(target: Path, data: bytes) -> None:
    with new_file(target) as stream:
        write(stream, data)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds the layout against other writers, threads and processes alike. Leaves no file behind."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
