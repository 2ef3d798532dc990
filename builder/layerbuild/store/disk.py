"""Files enter the store through a temporary name and a rename: whatever lies under its digest is whole."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from layerbuild.digests import CHUNK
from layerbuild.errors import StoreError
from layerbuild.store.database import unusable
from layerbuild.store.locks import locked

_ABANDONED = 3600
"""Seconds without a byte after which a temporary file belongs to nobody."""


class Disk:
    """The directories of a store at `root`.

    Raises:
        StoreError: they cannot be made.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        try:
            for name in ("files", "blobs", "tmp", "fetching"):
                (root / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unusable(root, error.strerror or type(error).__name__) from None
        self._sweep()

    def _sweep(self) -> None:
        """Remove what an interrupted run left. A file that is still being written is young."""
        for leftover in (self.root / "tmp").iterdir():
            with contextlib.suppress(FileNotFoundError):
                if time.time() - leftover.stat().st_mtime > _ABANDONED:
                    leftover.unlink()

    def file(self, sha256: str) -> Path:
        """Where the content of that digest lies, or would."""
        return self.root / "files" / sha256[:2] / sha256

    def blob(self, digest: str) -> Path:
        """Where the blob of that digest lies, or would."""
        value = digest.removeprefix("sha256:")
        return self.root / "blobs" / value[:2] / value

    def locked(self, name: str, waiting: Callable[[], None]) -> AbstractContextManager[None]:
        """Holds `name` against every other process that uses this store; see `locks.locked`."""
        return locked(self.root / "fetching", name, waiting=waiting)

    def temporary(self) -> Path:
        """A new empty file."""
        try:
            handle, name = tempfile.mkstemp(dir=self.root / "tmp")
        except OSError as error:
            raise unusable(self.root, error.strerror or type(error).__name__) from None
        os.close(handle)
        return Path(name)

    def written(self, temporary: Path, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Passes `chunks` on, and writes them; at their end they are on disk."""
        size = 0
        try:
            # Buffered: what an unbuffered file takes may be less than it was given, on a disk that gets full.
            with temporary.open("wb") as file:
                for chunk in chunks:
                    file.write(chunk)
                    size += len(chunk)
                    yield chunk
                if size > CHUNK:
                    # A smaller file is hashed again whenever it is read.
                    file.flush()
                    os.fsync(file.fileno())
        except OSError as error:
            raise StoreError(
                f"the store at {self.root} cannot take {size} bytes more",
                cause=error.strerror,
                hint="make room on its disk",
            ) from None

    def keep(self, temporary: Path, final: Path) -> None:
        """Gives a whole file its name."""
        try:
            final.parent.mkdir(exist_ok=True)
            temporary.chmod(0o644)
            temporary.replace(final)
        except OSError as error:
            raise StoreError(f"{final} cannot be written", cause=error.strerror) from None
