"""Files that appear under their names only when they are whole and on disk."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from io import FileIO
from pathlib import Path

from layerbuild.destinations.layoutdir import PART
from layerbuild.errors import DestinationError
from layerbuild.registry.sending import Counter

_OLD = 3600
"""Seconds after which an unfinished file that nobody holds is taken for a dead one's."""


@contextlib.contextmanager
def unfinished(directory: Path, prefix: str = PART) -> Iterator[tuple[FileIO, Callable[[Path], None]]]:
    """An unfinished file, and what gives it a name once it is whole. Without one it vanishes."""
    descriptor, name = tempfile.mkstemp(prefix=prefix, dir=directory)
    part = Path(name)
    try:
        # unbuffered: what a full disk did not take must not come up again when the file is closed
        with FileIO(descriptor, "r+") as stream:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            os.fchmod(descriptor, 0o644)

            def keep(target: Path) -> None:
                os.fsync(descriptor)
                part.replace(target)
                _sync_directory(directory)

            yield stream, keep
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def new_file(target: Path) -> Iterator[FileIO]:
    """A file that gets the name `target` when the block ends without an error, and vanishes otherwise."""
    with unfinished(target.parent) as (stream, keep):
        yield stream
        keep(target)


def write(stream: FileIO, data: bytes) -> None:
    """All of `data`: a file that is not buffered may take a part only."""
    left = memoryview(data)
    while left:
        left = left[stream.write(left) :]


def fill(stream: FileIO, pieces: Generator[bytes, None, None]) -> None:
    """All of `pieces`, which are closed."""
    with contextlib.closing(pieces):
        for piece in pieces:
            write(stream, piece)


@contextlib.contextmanager
def counted(advance: Callable[[int], None]) -> Iterator[Counter]:
    """Counts bytes, of which none are told to have gone when the block fails."""
    sent = Counter(advance)
    try:
        yield sent
    except BaseException:
        sent.rewind(0)
        raise


def sweep(parts: Iterable[Path]) -> None:
    """Removes what writers left that were killed: old, and locked by nobody."""
    for part in parts:
        with contextlib.suppress(OSError), part.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # one that was made this moment may not have its lock yet
            if part.stat().st_mtime < time.time() - _OLD:
                part.unlink()


@contextlib.contextmanager
def explained(what: str, *, error: type[DestinationError] = DestinationError) -> Iterator[None]:
    """Errors of the file system as errors that a person can act on.

    Args:
        what: cannot be written.
    """
    try:
        yield
    except OSError as failure:
        hints = {
            errno.ENOSPC: "free some space, or name a place on another disk",
            errno.EDQUOT: "free some space, or name a place on another disk",
            errno.EROFS: "name a place that can be written to",
            errno.EACCES: "name a place that you may write to",
        }
        raise error(
            f"{what} cannot be written",
            cause=failure.strerror or type(failure).__name__,
            hint=hints.get(failure.errno or 0, "check the disk and the directory's permissions"),
        ) from None


def free_at(path: Path) -> int | None:
    """Bytes that may be written where `path` is, or will be; None where nobody can tell."""
    for place in (path, *path.absolute().parents):
        try:
            found = os.statvfs(place)
        except FileNotFoundError:
            continue
        except OSError:
            return None
        return found.f_bavail * found.f_frsize
    return None


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
