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
from layerbuild.store.usage import Usage

_ABANDONED = 3600
"""Seconds without a byte after which a temporary file belongs to nobody."""

_KEPT = 7 * 24 * 3600
"""Seconds for which the beginning of a download is kept after its last byte."""

_WORTH = 1024 * 1024
"""Bytes from which on the beginning of a download is worth a file."""


class Disk:
    """The directories of a store at `root`.

    Raises:
        StoreError: they cannot be made.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        try:
            for name in ("files", "blobs", "tmp", "fetching", "partial"):
                (root / name).mkdir(parents=True, exist_ok=True)
            self.usage = Usage(root)
        except OSError as error:
            raise unusable(root, error.strerror or type(error).__name__) from None
        self._sweep()

    def _sweep(self) -> None:
        """Remove what an interrupted run left. A file that is still being written is young."""
        for directory, age in (("tmp", _ABANDONED), ("partial", _KEPT)):
            for leftover in (self.root / directory).iterdir():
                with contextlib.suppress(FileNotFoundError):
                    if time.time() - leftover.stat().st_mtime > age:
                        leftover.unlink()

    def file(self, sha256: str) -> Path:
        """Where the content of that digest lies, or would."""
        return self.root / "files" / sha256[:2] / sha256

    def blob(self, digest: str) -> Path:
        """Where the blob of that digest lies, or would."""
        value = digest.removeprefix("sha256:")
        return self.root / "blobs" / value[:2] / value

    def present(self, path: Path) -> bool:
        """Whether there is such a file; if so, no garbage collection takes it as long as this store is open."""
        return self.usage.present(path)

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

    @contextlib.contextmanager
    def partial(self, name: str, limit: int | None) -> Iterator[tuple[Path, int]]:
        """The file where a download is written to, and how many bytes an earlier run left there. What is there in
        the end stays for the next one, if it is worth it. The caller holds `name` (`locked`).

        Args:
            limit: bytes of the whole; a longer beginning is none.

        Raises:
            StoreError: it cannot be used.
        """
        path, held = self.root / "partial" / name.replace(":", "-"), 0
        try:
            with contextlib.suppress(FileNotFoundError):
                # A week begins anew: nobody else may take it for abandoned.
                os.utime(path)
                held = path.stat().st_size
            if limit is not None and held > limit:
                path.unlink()
                held = 0
        except OSError as error:
            raise unusable(self.root, error.strerror or type(error).__name__) from None
        try:
            yield path, held
        finally:
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_size < _WORTH:
                    path.unlink()

    def written(self, path: Path, chunks: Iterable[bytes], *, held: int = 0) -> Iterator[bytes]:
        """Passes `chunks` on, and writes them; at their end they are on disk.

        Args:
            held: bytes that the file holds already: those of the first chunks.
        """
        size = 0
        try:
            # Buffered: what an unbuffered file takes may be less than it was given, on a disk that gets full.
            with path.open("ab" if held else "wb") as file:
                for chunk in chunks:
                    if size >= held:
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
                hint="make room on its disk, for example with 'layerbuild gc'",
            ) from None

    def keep(self, temporary: Path, final: Path) -> None:
        """Gives a whole file its name."""
        try:
            final.parent.mkdir(exist_ok=True)
            temporary.chmod(0o644)
            self.usage.place(temporary, final)
        except OSError as error:
            raise StoreError(
                f"{final} cannot be written",
                cause=error.strerror,
                hint="check the disk, and who may write there; LAYERBUILD_STORE names another directory",
            ) from None
