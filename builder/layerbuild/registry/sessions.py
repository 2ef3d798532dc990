"""What the registry client needs of a memory for upload sessions, so that another process can go on with them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class HeldSession(Protocol):
    """What is remembered of one blob on its way to one repository. Addresses may be secrets in themselves."""

    @property
    def arrived(self) -> bool:
        """Whether somebody on this machine has sent that blob there before, maybe while this one waited."""

    def get(self) -> str | None:
        """The address of the session that an earlier process left, if any."""

    def put(self, location: str) -> None:
        """Remembers where the session is now."""

    def drop(self) -> None:
        """Forgets it."""

    def done(self) -> None:
        """Forgets it, and remembers that the blob is there."""


class Sessions(Protocol):
    """A memory for upload sessions."""

    def held(self, host: str, repository: str, digest: str) -> AbstractContextManager[HeldSession]:
        """Holds a blob on its way against everybody else who would send it there, and waits for who does."""


class Forgetful:
    """No memory: `Sessions` and `HeldSession` at once."""

    arrived = False

    @contextmanager
    def held(self, host: str, repository: str, digest: str) -> Iterator[HeldSession]:
        """Holds nothing."""
        yield self

    def get(self) -> str | None:
        """Nothing."""
        return None

    def put(self, location: str) -> None:
        """Remembers nothing."""

    def drop(self) -> None:
        """There is nothing to forget."""

    def done(self) -> None:
        """Remembers nothing."""
