"""Who uses a store, and since when: by that, garbage collection knows what it must leave alone.

Every open store holds a file of its own in `users/` (flock(2)); the kernel lets go of it when its process dies.
The time of that file is when it began. Whatever a process relies on it touches first, once: the mtime of a stored
file is when it was last used. So nothing that was used since the oldest of the living began may be removed, and
for all that is older nobody has asked yet.

Touching and removing exclude each other (`gate`): who touches finds the file there, and it stays, or finds it gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

from layerbuild.errors import StoreError
from layerbuild.store.locks import held, hold, remove

_SLACK_NS = 1_000_000_000
"""What clocks of file systems may be late by."""


class Usage:
    """One user of the store at `root`, from now on. Safe to share between threads.

    Raises:
        OSError, StoreError: the store cannot be used.
    """

    def __init__(self, root: Path) -> None:
        directory = root / "users"
        directory.mkdir(exist_ok=True)
        path = directory / secrets.token_hex(8)
        descriptor = hold(path, lambda: None)
        self.since = time.time_ns()
        """Nanoseconds since 1970."""
        os.utime(descriptor, ns=(self.since, self.since))
        self._gate = os.open(root / "gate", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._turn = threading.Lock()
        self._leaving = weakref.finalize(self, _leave, os.getpid(), path, descriptor, self._gate)

    def leave(self) -> None:
        """Nothing is used any more."""
        self._leaving()

    def present(self, path: Path) -> bool:
        """Whether there is such a file; if so, it stays as long as this user does."""
        try:
            if path.stat().st_mtime_ns >= self.since:
                return True
            with self._open_gate(fcntl.LOCK_SH):
                self.touch(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except PermissionError:
            # Somebody else's file, in a store that several people have: readable, and theirs to remove.
            return path.exists()
        return True

    def place(self, temporary: Path, final: Path) -> None:
        """Gives a whole file its name, as used now."""
        self.touch(temporary)
        with self._open_gate(fcntl.LOCK_SH):
            temporary.replace(final)

    def touch(self, path: Path) -> None:
        """Says of a file that it is used now."""
        now = max(time.time_ns(), self.since)
        os.utime(path, ns=(now, now))

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody begins to use a file meanwhile: for as short as can be."""
        with self._open_gate(fcntl.LOCK_EX):
            yield

    @contextlib.contextmanager
    def _open_gate(self, how: int) -> Iterator[None]:
        with self._turn:
            fcntl.flock(self._gate, how)
            try:
                yield
            finally:
                fcntl.flock(self._gate, fcntl.LOCK_UN)


def others_since(root: Path, *, own: Usage | None = None) -> list[int]:
    """When each of the users began that live, in nanoseconds since 1970. What the dead have left is removed.

    Args:
        own: a user who does not count.

    Raises:
        StoreError: the store cannot be read.
    """
    found: list[int] = []
    try:
        for path in (root / "users").iterdir():
            with contextlib.suppress(FileNotFoundError):
                began = path.stat().st_mtime_ns
                if not held(path):
                    remove(path)
                elif own is None or began != own.since:
                    found.append(began - _SLACK_NS)
    except OSError as error:
        raise StoreError(f"{root / 'users'} cannot be read", cause=error.strerror, hint="check its owner") from None
    return found


def _leave(process: int, path: Path, descriptor: int, gate: int) -> None:
    # A forked child has the descriptors, and is not who holds them.
    if os.getpid() == process:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
    os.close(descriptor)
    os.close(gate)
