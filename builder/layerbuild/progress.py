"""The one progress interface. Whoever does long work is given a `Progress` and knows no terminal."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from typing_extensions import Self

Spared = Literal["known", "present", "mounted"]
"""Why bytes did not have to move: their layer has a receipt, the destination had them, or took them over from
another repository of its own."""

Counted = Literal["fetched", "read", "sent"] | Spared
"""What is counted of bytes. Fetched: from a source. Read: of an image, to be checked. Sent: to a destination."""

COUNTED: tuple[Counted, ...] = ("fetched", "read", "sent", "known", "present", "mounted")
"""All of it."""


class Tally:
    """Bytes that moved, bytes that did not have to, and the seconds since it began. Counted from any thread."""

    def __init__(self) -> None:
        self._bytes: dict[Counted, int] = dict.fromkeys(COUNTED, 0)
        self._lock = threading.Lock()
        self._started = time.monotonic()

    def add(self, what: Counted, amount: int) -> None:
        """`amount` more bytes."""
        with self._lock:
            self._bytes[what] += amount

    def __getitem__(self, what: Counted) -> int:
        return self._bytes[what]

    @property
    def seconds(self) -> float:
        """Since the work began."""
        return time.monotonic() - self._started

    def as_json(self) -> dict[str, int | float]:
        """For programs: `fetched_bytes` and so on, and `seconds`."""
        return {**{f"{what}_bytes": amount for what, amount in self._bytes.items()}, "seconds": round(self.seconds, 3)}


class Task(Protocol):
    """One thing that takes a while."""

    def advance(self, amount: int) -> None:
        """`amount` more bytes (or steps) are done. Called from any thread."""


class Progress(Protocol):
    """Where long work says how far it is."""

    @property
    def tally(self) -> Tally:
        """What was moved so far."""
        ...

    @contextmanager
    def task(self, label: str, total: int | None = None) -> Iterator[Task]:
        """A task of `total` bytes that is shown while the block runs."""
        ...

    def expect(self, amount: int) -> None:
        """Tasks of so many bytes together will come: they belong to the whole from now on."""

    def skip(self, label: str, amount: int, why: Spared) -> None:
        """Something of `amount` bytes that does not have to move."""

    def note(self, text: str) -> None:
        """A line that stays: something that the user should know afterwards."""


class _SilentTask:
    def advance(self, amount: int) -> None:
        pass


class Silent:
    """Shows nothing, and counts: for programs that use layerbuild as a library, and for tests."""

    tally: Tally

    def __new__(cls, *_: object, **__: object) -> Self:
        """With a tally also where a subclass has a constructor of its own."""
        made = super().__new__(cls)
        made.tally = Tally()
        return made

    @contextmanager
    def task(self, label: str, total: int | None = None) -> Iterator[Task]:
        """See `Progress.task`."""
        yield _SilentTask()

    def expect(self, amount: int) -> None:
        """See `Progress.expect`."""

    def skip(self, label: str, amount: int, why: Spared) -> None:
        """See `Progress.skip`."""
        self.tally.add(why, amount)

    def note(self, text: str) -> None:
        """See `Progress.note`."""
