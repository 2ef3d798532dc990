"""Local files are used where they lie: the store remembers their digest, and by which marks they are the
same. git's care for files that are touched in the same instant is taken over.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

from layerbuild.digests import CHUNK, Digester, SafetensorsScan, feed
from layerbuild.errors import ContentMismatch
from layerbuild.model import Content, sha256_hex
from layerbuild.store.database import Database
from layerbuild.store.reading import Advance, drain, read, unreadable

_SAME_INSTANT_NS = 50_000_000
"""A file whose times are this close to when it was read could change again without showing it."""


@dataclass(frozen=True, kw_only=True)
class Marks:
    """By what a local file is recognised."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, stat: os.stat_result) -> Marks:
        # SQLite's integers have a sign, and stacked file systems use the highest bit of an inode number.
        device, inode = (number % 2**63 for number in (stat.st_dev, stat.st_ino))
        return cls(
            device=device,
            inode=inode,
            size=stat.st_size,
            mtime_ns=stat.st_mtime_ns,
            ctime_ns=stat.st_ctime_ns,
        )


class LocalFiles:
    """Files outside the store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def hash(self, path: Path, advance: Advance) -> tuple[Content, SafetensorsScan | None]:
        """sha256 and size of a file where it lies; read only if it changed since it was last read.

        Returns:
            The content, and, if it was read, what the same pass saw of a safetensors header.

        Raises:
            StoreError: it cannot be read.
            ContentMismatch: it changed while it was read.
        """
        path = path.resolve()
        known = self.known(path)
        if known is not None:
            return known, None
        scan = SafetensorsScan()
        return drain(self.passing(path, scan), advance), scan

    def passing(self, path: Path, scan: SafetensorsScan | None) -> Generator[bytes, None, Content]:
        """The bytes of a file where it lies, hashed on the way; at their end its digest is remembered.

        Args:
            path: without links in it.

        Raises:
            StoreError: it cannot be read.
            ContentMismatch: it changed meanwhile.
        """
        try:
            marks = Marks.of(path.stat())
            seen = time.time_ns()
            whole = hashlib.sha256()
            digesters: list[Digester] = [whole] if scan is None else [whole, scan]
            yield from feed(read(path, 0), digesters, threads=marks.size > CHUNK)
            if Marks.of(path.stat()) != marks:
                raise ContentMismatch(
                    f"{path} changed while it was read", hint="run the command again when it is complete"
                )
        except OSError as error:
            raise unreadable(path, error) from None
        content = Content(size=marks.size, sha256=whole.hexdigest())
        values = (os.fsencode(path), content.sha256, *asdict(marks).values(), seen)
        self._database.query("INSERT OR REPLACE INTO local_files VALUES (?, ?, ?, ?, ?, ?, ?, ?)", *values)
        return content

    def known(self, path: Path) -> Content | None:
        """What a file holds, if its marks say that it has not changed since it was read.

        Raises:
            StoreError: it cannot be looked at.
        """
        try:
            marks = Marks.of(path.stat())
        except OSError as error:
            raise unreadable(path, error) from None
        rows = self._database.query(
            "SELECT sha256, device, inode, size, mtime_ns, ctime_ns, seen_ns FROM local_files WHERE path = ?",
            os.fsencode(path),
        )
        if not rows:
            return None
        sha256, *stored, seen = rows[0]
        settled = max(marks.mtime_ns, marks.ctime_ns) + _SAME_INSTANT_NS < int(str(seen))
        same = settled and stored == list(asdict(marks).values())
        return Content(size=marks.size, sha256=str(sha256)) if same else None

    def path(self, sha256: str) -> Path | None:
        """Where a local file with this content lies, if it still looks the same."""
        rows = self._database.query(
            "SELECT path, device, inode, size, mtime_ns, ctime_ns FROM local_files WHERE sha256 = ?", sha256
        )
        for name, *stored in rows:
            path = Path(os.fsdecode(cast("bytes", name)))
            with contextlib.suppress(OSError):
                if stored == list(asdict(Marks.of(path.stat())).values()):
                    return path
        return None

    def read(self, path: Path, sha256: str, offset: int) -> Iterator[bytes]:
        """A file's bytes, as long as it is what it was.

        Raises:
            ContentMismatch: it changed; where it lies is forgotten.
            StoreError: it cannot be read.
        """
        try:
            before = Marks.of(path.stat())
            if before.size > CHUNK:
                yield from read(path, offset)
                if Marks.of(path.stat()) != before:
                    raise ContentMismatch(f"{path} changed while it was read", hint="run 'layerbuild lock' again")
                return
        except OSError as error:
            raise unreadable(path, error) from None
        # A change in the instant in which it was hashed leaves the same marks.
        data = b"".join(read(path, 0))
        if sha256_hex(data) != sha256:
            self.forget(sha256)
            raise ContentMismatch(f"{path} has changed since it was hashed", hint="run 'layerbuild lock' again")
        if data[offset:]:
            yield data[offset:]

    def forget(self, sha256: str) -> None:
        """Forget where a content lies."""
        self._database.query("DELETE FROM local_files WHERE sha256 = ?", sha256)
