"""An OCI image layout as a destination: a directory that other tools can read (image-spec 1.1, image-layout.md).

All images share one `blobs/sha256`. Files appear under their names only when they are whole and on
disk, and the index is replaced in one step, so that a crash at any point leaves a valid layout.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from layerbuild.destinations.layoutdir import (
    EMPTY_INDEX,
    PART,
    REF_NAME,
    VERSION,
    blob_path,
    check_layout,
    read_index,
    ref_name,
    stored_manifest,
)
from layerbuild.errors import DestinationError
from layerbuild.model import Descriptor, Readable, sha256_hex
from layerbuild.registry.reference import check_repository, check_tag, is_digest
from layerbuild.registry.sending import Counter, Proof, Stream, hashed

_OLD = 3600
"""Seconds after which an unfinished file that nobody holds is taken for a dead one's."""


class LayoutDestination:
    """Images in one layout directory, which is made at the first `put`. See `base.Destination`.

    Args:
        name: as the user wrote it.
        path: the directory.

    Raises:
        DestinationError: `path` is something else than a layout of a version that is known here.
    """

    host: str | None = None

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self._path = path
        self._made = False
        with _explained(path):
            check_layout(path)

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
        with _explained(self._path):
            self._make()
            with _counted(advance) as sent, _new_file(blob_path(self._path, blob.digest)) as part:
                _fill(part, Proof(blob).rest(sent))

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
        with _explained(self._path):
            self._make()
            with _counted(advance) as sent, _part(self._path / "blobs" / "sha256") as (part, keep):
                _fill(part, hashed(Stream(open=open, size=size, title=title), seen, sent))
                digest = f"sha256:{seen.hexdigest()}"
                if not self.has(repository, digest, size):
                    keep(blob_path(self._path, digest))
        return digest

    def manifest(self, repository: str, tag: str) -> bytes | None:
        """See `Destination.manifest`. One that is damaged counts as absent."""
        name = f"{check_repository(repository, where=f'{self.name}:{repository}')}:{check_tag(tag, where=tag)}"
        if not check_layout(self._path):
            return None
        entries = read_index(self._path)["manifests"]
        return next((stored_manifest(self._path, entry) for entry in entries if ref_name(entry) == name), None)

    def put_manifest(self, repository: str, tag: str | None, media_type: str, data: bytes) -> None:
        """See `Destination.put_manifest`. Without a tag the manifest is a blob that an index may name."""
        name = check_repository(repository, where=f"{self.name}:{repository}")
        digest = f"sha256:{sha256_hex(data)}"
        with _explained(self._path):
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
        _sweep(self._path)


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=2).encode() + b"\n"


@contextlib.contextmanager
def _part(directory: Path) -> Iterator[tuple[BinaryIO, Callable[[Path], None]]]:
    """An unfinished file, and what gives it a name once it is whole. Without one it vanishes."""
    descriptor, name = tempfile.mkstemp(prefix=PART, dir=directory)
    part = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            os.fchmod(descriptor, 0o644)

            def keep(target: Path) -> None:
                stream.flush()
                os.fsync(descriptor)
                part.replace(target)
                _sync_directory(directory)

            yield stream, keep
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def _new_file(target: Path) -> Iterator[BinaryIO]:
    """A file that gets the name `target` when the block ends without an error, and vanishes otherwise."""
    with _part(target.parent) as (stream, keep):
        yield stream
        keep(target)


@contextlib.contextmanager
def _counted(advance: Callable[[int], None]) -> Iterator[Counter]:
    """Counts bytes, of which none are told to have gone when the block fails."""
    sent = Counter(advance)
    try:
        yield sent
    except BaseException:
        sent.rewind(0)
        raise


def _fill(part: BinaryIO, pieces: Generator[bytes, None, None]) -> None:
    with contextlib.closing(pieces):
        for piece in pieces:
            part.write(piece)


def _write(target: Path, data: bytes) -> None:
    with _new_file(target) as stream:
        stream.write(data)


def _sweep(path: Path) -> None:
    """Removes what writers left that were killed: old, and locked by nobody."""
    for part in [*path.glob(f"{PART}*"), *path.glob(f"blobs/sha256/{PART}*")]:
        with contextlib.suppress(OSError), part.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # one that was made this moment may not have its lock yet
            if part.stat().st_mtime < time.time() - _OLD:
                part.unlink()


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds the layout against other writers, threads and processes alike. Leaves no file behind."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Errors of the file system as errors that a person can act on."""
    try:
        yield
    except OSError as error:
        hints = {
            errno.ENOSPC: "free some space, or name a directory on another disk",
            errno.EDQUOT: "free some space, or name a directory on another disk",
            errno.EROFS: "name a directory that can be written to",
            errno.EACCES: "name a directory that you may write to",
        }
        raise DestinationError(
            f"the OCI layout {path} cannot be written",
            cause=error.strerror or type(error).__name__,
            hint=hints.get(error.errno or 0, "check the disk and the directory's permissions"),
        ) from None
