"""What the registry client needs of a memory for upload sessions, so that another process can go on with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class HeldSession(Protocol):
    """What is remembered of one blob on its way to one repository. Addresses may be secrets in themselves."""

    def places(self) -> Sequence[str]:
        """Repositories that it was sent to from this machine, also since the registry was last asked for it."""

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

    def held(
        self, host: str, repository: str, digest: str, *, anywhere: bool = False
    ) -> AbstractContextManager[HeldSession]:
        """Holds a blob on its way against everybody else who would send it there, and waits for who does.

        Args:
            anywhere: also for who sends it to another repository of that registry, from which it can be mounted.
        """


class Forgetful:
    """No memory: `Sessions` and `HeldSession` at once."""

    @contextmanager
    def held(self, host: str, repository: str, digest: str, *, anywhere: bool = False) -> Iterator[HeldSession]:
        """Holds nothing."""
        yield self

    def places(self) -> Sequence[str]:
        """None."""
        return ()

    def get(self) -> str | None:
        """Nothing."""
        return None

    def put(self, location: str) -> None:
        """Remembers nothing."""

    def drop(self) -> None:
        """There is nothing to forget."""

    def done(self) -> None:
        """Remembers nothing."""
