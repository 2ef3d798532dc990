"""Upload sessions that registries have opened: what a killed run was sending, the next one goes on with.

A session's address may be a secret in itself. Each lies in a file that only its owner can read, under a
name that tells nothing. That file is locked while its blob is on its way (flock(2)), so that no two
threads or processes send the same blob to the same place; and before it is let go, the store remembers
that the blob has arrived, for whoever asked the registry too early.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from layerbuild.model import sha256_hex
from layerbuild.store.database import Database, unusable
from layerbuild.store.locks import hold, locked, remove

_LIFE = 24 * 3600
"""Seconds after which a session is not asked for any more."""

_LONGEST = 16 * 1024
"""Bytes of an address that is worth remembering."""


class HeldUpload:
    """One blob on its way to one repository, held against everybody else."""

    def __init__(self, descriptor: int, database: Database, place: tuple[str, str, str]) -> None:
        self._descriptor = descriptor
        self._database = database
        self._place = place

    def places(self) -> Sequence[str]:
        """Repositories of the registry that it was sent to from this store."""
        host, _, digest = self._place
        return self._database.pushed_to(host, digest)

    def get(self) -> str | None:
        """The address of its session, if one was remembered during the last 24 hours."""
        if time.time() - os.fstat(self._descriptor).st_mtime > _LIFE:
            return None
        data = os.pread(self._descriptor, _LONGEST, 0)
        address, end, more = data.partition(b"\n")
        # Without its end it was being written when its process died.
        return address.decode("utf-8", "replace") if address and end and not more else None

    def put(self, location: str) -> None:
        """Remembers the address of its session."""
        # What cannot be remembered is sent anew by the next run, which is no reason to end this one.
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, location.encode() + b"\n", 0)

    def drop(self) -> None:
        """Forgets it."""
        os.ftruncate(self._descriptor, 0)

    def done(self) -> None:
        """Forgets it, and remembers that the blob is there."""
        self.drop()
        self._database.remember_push(*self._place)


class UploadSessions:
    """The sessions of a store.

    Args:
        waiting: told of a digest that somebody else is sending, before it is waited for.
    """

    def __init__(self, database: Database, *, waiting: Callable[[str], None]) -> None:
        self._database = database
        self._directory = database.root / "uploads"
        self._anywhere = database.root / "sending"
        self._waiting = waiting
        self._lock = threading.Lock()
        self._prepared = False

    @contextlib.contextmanager
    def held(self, host: str, repository: str, digest: str, *, anywhere: bool = False) -> Iterator[HeldUpload]:
        """Holds the blob `digest` on its way to a repository of a registry. Waits for whoever else sends it there.

        Args:
            anywhere: also for who sends it to another repository of that registry, from which it can be mounted.

        Raises:
            StoreError: the store cannot be used.
        """
        with self._lock:
            if not self._prepared:
                self._prepare()
            self._prepared = True
        place = (host, repository, digest)
        with contextlib.ExitStack() as others:
            if anywhere:
                name = sha256_hex(f"{host}\n{digest}".encode())
                others.enter_context(locked(self._anywhere, name, waiting=lambda: self._waiting(digest)))
            path = self._directory / sha256_hex("\n".join(place).encode())
            descriptor = hold(path, lambda: self._waiting(digest), mode=0o600)
            upload = HeldUpload(descriptor, self._database, place)
            try:
                yield upload
            finally:
                if upload.get() is None:
                    path.unlink(missing_ok=True)
                os.close(descriptor)

    def _prepare(self) -> None:
        """Makes the directories, and removes what is too old to be asked for."""
        try:
            for directory in (self._directory, self._anywhere):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                for path in directory.iterdir():
                    with contextlib.suppress(FileNotFoundError):
                        if time.time() - path.stat().st_mtime > _LIFE:
                            remove(path)
        except OSError as error:
            raise unusable(self._directory.parent, error.strerror or type(error).__name__) from None
