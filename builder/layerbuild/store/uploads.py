"""Upload sessions that registries have opened: what a killed run was sending, the next one goes on with.

A session's address may be a secret in itself. Each lies in a file that only its owner can read, under a
name that tells nothing. That file is locked while its blob is on its way (flock(2)), so that no two
threads or processes send the same blob to the same registry; and before it is let go, the store remembers
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
from layerbuild.store.locks import hold, remove

_LIFE = 24 * 3600
"""Seconds after which a session is not asked for any more."""

_LONGEST = 16 * 1024
"""Bytes of an address that is worth remembering."""


class HeldUpload:
    """One blob on its way to one repository, held against everybody else.

    Attributes:
        waited: whether somebody else was sending it to that registry until now.
    """

    def __init__(self, descriptor: int, database: Database, place: tuple[str, str, str], *, waited: bool) -> None:
        self.waited = waited
        self._descriptor = descriptor
        self._database = database
        self._place = place

    @property
    def empty(self) -> bool:
        """Whether there is nothing in it that anybody could go on with."""
        return os.fstat(self._descriptor).st_size == 0 or time.time() - os.fstat(self._descriptor).st_mtime > _LIFE

    def places(self) -> Sequence[str]:
        """Repositories of the registry that it was sent to from this store."""
        host, _, digest = self._place
        return self._database.pushed_to(host, digest)

    def get(self) -> str | None:
        """The address of its session, if one was remembered during the last 24 hours."""
        if time.time() - os.fstat(self._descriptor).st_mtime > _LIFE:
            return None
        data = os.pread(self._descriptor, _LONGEST, 0).decode("utf-8", "replace")
        repository, address, *end = data.split("\n") if data.count("\n") == 2 else ("", "", "")
        # Without its end it was being written when its process died.
        return address if repository == self._place[1] and address and end == [""] else None

    def put(self, location: str) -> None:
        """Remembers the address of its session."""
        # What cannot be remembered is sent anew by the next run, which is no reason to end this one.
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{self._place[1]}\n{location}\n".encode(), 0)

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
        self._waiting = waiting
        self._lock = threading.Lock()
        self._prepared = False

    @contextlib.contextmanager
    def held(self, host: str, repository: str, digest: str) -> Iterator[HeldUpload]:
        """Holds the blob `digest` on its way to a repository of a registry. Waits for whoever else sends it to that
        registry: what is in one repository can be mounted in others.

        Raises:
            StoreError: the store cannot be used.
        """
        with self._lock:
            if not self._prepared:
                self._prepare()
            self._prepared = True
        place = (host, repository, digest)
        path = self._directory / sha256_hex(f"{host}\n{digest}".encode())
        waited = False

        def waiting() -> None:
            nonlocal waited
            waited = True
            self._waiting(digest)

        descriptor = hold(path, waiting, mode=0o600)
        upload = HeldUpload(descriptor, self._database, place, waited=waited)
        try:
            yield upload
        finally:
            if upload.empty:
                path.unlink(missing_ok=True)
            os.close(descriptor)

    def _prepare(self) -> None:
        """Makes the directory, and removes what is too old to be asked for."""
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            for path in self._directory.iterdir():
                with contextlib.suppress(FileNotFoundError):
                    if time.time() - path.stat().st_mtime > _LIFE:
                        remove(path)
        except OSError as error:
            raise unusable(self._directory.parent, error.strerror or type(error).__name__) from None
