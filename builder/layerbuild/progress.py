"""The one progress interface. Whoever does long work is given a `Progress` and knows no terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Task(Protocol):
    """One thing that takes a while."""

    def advance(self, amount: int) -> None:
        """`amount` more bytes (or steps) are done. Called from any thread."""


class Progress(Protocol):
    """Where long work says how far it is."""

    @contextmanager
    def task(self, label: str, total: int | None = None) -> Iterator[Task]:
        """A task of `total` bytes that is shown while the block runs."""
        ...

    def note(self, text: str) -> None:
        """A line that stays: something that the user should know afterwards."""


class _SilentTask:
    def advance(self, amount: int) -> None:
        pass


class Silent:
    """Shows nothing: for programs that use layerbuild as a library, and for tests."""

    @contextmanager
    def task(self, label: str, total: int | None = None) -> Iterator[Task]:
        yield _SilentTask()

    def note(self, text: str) -> None:
        pass
