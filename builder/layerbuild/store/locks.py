"""One process at a time brings a content: the others wait for it, and find it there.

An advisory lock on a small file for each content (flock(2)). The kernel lets go of it when its
holder dies, however that happens, so nothing is ever left locked.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from layerbuild.errors import StoreError


@contextmanager
def locked(directory: Path, name: str, *, waiting: Callable[[], None]) -> Iterator[None]:
    """Holds `name` against every other thread and process that wants it in `directory`.

    Args:
        waiting: called once, before the block waits for somebody else.

    Raises:
        StoreError: the directory cannot be used.
    """
    path = directory / name.replace(":", "-")
    descriptor = hold(path, waiting)
    try:
        yield
    finally:
        # Removed while it is held: whoever waits for it sees that its name leads elsewhere now.
        path.unlink(missing_ok=True)
        os.close(descriptor)


def hold(path: Path, waiting: Callable[[], None], *, mode: int = 0o666) -> int:
    """Holds the file at `path`, which is made if there is none: an open descriptor, to be closed.

    Args:
        waiting: called once, before it waits for somebody else.
        mode: of a new file, before the umask.

    Raises:
        StoreError: there can be no such file.
    """
    told = False
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)
        except OSError as error:
            raise StoreError(
                f"{path} cannot be made", cause=error.strerror, hint="check the store's disk, and who may write there"
            ) from None
        try:
            if not told and not _try(descriptor):
                told = True
                waiting()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is(path, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def remove(path: Path) -> None:
    """Removes the file at `path`, unless somebody holds it.

    Raises:
        OSError: it cannot be opened or removed.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        if _try(descriptor):
            path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


@contextmanager
def try_hold(path: Path) -> Iterator[bool]:
    """Holds the file at `path`, which is made if there is none; False where somebody else does. It stays.

    Raises:
        OSError: there can be no such file.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        yield _try(descriptor)
    finally:
        os.close(descriptor)


def held(path: Path) -> bool:
    """Whether somebody holds the file at `path`.

    Raises:
        OSError: there is none, or it cannot be opened.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        return not _try(descriptor)
    finally:
        os.close(descriptor)


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is(path: Path, descriptor: int) -> bool:
    """Whether `path` still leads to the open file."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
