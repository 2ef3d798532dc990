"""Progress on a terminal: a few lines that stay where they are, below everything that is printed.

Nothing is drawn, and rich is not even loaded, before something has taken a second. What is printed meanwhile,
results included, comes above: the lines are taken away first.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from layerbuild.cli.board import Board, Line, Row
from layerbuild.cli.failure import printable
from layerbuild.progress import Silent, Spared, Task

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

_TICK = 0.2
"""Seconds between two looks."""

_LINGER = 0.6
"""Seconds for which the lines stay when nothing is under way: what follows at once shall not make them flicker."""


class Bars(Silent):
    """The lines of a `Board`, drawn by a thread of its own."""

    def __init__(self) -> None:
        self._board = Board(time.monotonic)
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()
        self._console: Console | None = None
        self._live: Live | None = None
        self._stdout: Any = None
        self._covered: _Above | None = None
        self._idle_since: float | None = None

    @contextmanager
    def task(self, label: str, total: int | None = None) -> Iterator[Task]:
        """See `Progress.task`."""
        row = self._board.begin(label, total)
        self._start()
        try:
            yield _Bar(self._board, row)
        finally:
            self._board.end(row)

    def expect(self, amount: int) -> None:
        """See `Progress.expect`."""
        self._board.expect(amount)

    def skip(self, label: str, amount: int, why: Spared) -> None:
        """See `Progress.skip`."""
        super().skip(label, amount, why)
        self._board.spare(why, amount)

    def note(self, text: str) -> None:
        """See `Progress.note`."""
        with self._lock:
            if self._live is None:
                click.echo(printable(text), err=True)
            else:
                plain: dict[str, Any] = {"markup": False, "highlight": False, "emoji": False, "soft_wrap": True}
                self._live.console.print(printable(text), **plain)

    def hide(self) -> None:
        """Takes the lines away, until the next look."""
        with self._lock:
            live, self._live = self._live, None
            if live is not None:
                live.stop()
            if self._stdout is not None:
                sys.stdout, self._stdout = self._stdout, None

    def close(self) -> None:
        """Takes the lines away for good, and gives the cursor back. For the end, however it came."""
        self._closed.set()
        # A thread that hangs in writing to a stopped terminal must not keep anybody from leaving.
        if self._lock.acquire(timeout=1):
            try:
                self.hide()
            finally:
                self._lock.release()

    # --- drawing -----------------------------------------------------------------------------------

    def _start(self) -> None:
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._watch, name="progress", daemon=True)
                    self._thread.start()

    def _watch(self) -> None:
        while not self._closed.wait(_TICK):
            # A terminal that is gone takes no lines; the work goes on.
            with contextlib.suppress(OSError):
                self._look()

    def _look(self) -> None:
        with self._lock:
            if self._closed.is_set() or (self._live is None and not self._board.lines(80)):
                return
            console = self._made_console()
            lines = self._board.lines(console.width)
            if lines or self._board.rows:
                self._idle_since = None
                self._draw(console, lines)
            elif self._idle_since is None:
                self._idle_since = time.monotonic()
            elif time.monotonic() - self._idle_since > _LINGER:
                self.hide()

    def _made_console(self) -> Console:
        if self._console is None:
            from rich.console import Console  # noqa: PLC0415  # loaded when there is something to draw

            self._console = Console(stderr=True)
        return self._console

    def _draw(self, console: Console, lines: list[Line]) -> None:
        if self._live is None:
            from rich.live import Live  # noqa: PLC0415

            plain: dict[str, Any] = {"auto_refresh": False, "redirect_stdout": False, "redirect_stderr": False}
            self._live = Live(_text(lines), console=console, transient=True, vertical_overflow="crop", **plain)
            if sys.stdout.isatty():
                sys.stdout, self._stdout = self._above(sys.stdout), sys.stdout
            self._live.start()
        if lines:
            self._live.update(_text(lines), refresh=True)

    def _above(self, stream: Any) -> Any:
        # One for all times: click remembers every stream that it has written to.
        if self._covered is None or self._covered.stream is not stream:
            self._covered = _Above(stream, self.hide)
        return self._covered


class _Bar:
    def __init__(self, board: Board, row: Row) -> None:
        self._board = board
        self._row = row

    def advance(self, amount: int) -> None:
        self._board.advance(self._row, amount)


class _Above:
    """Standard output while lines are drawn on the same terminal: they go away before anything is written."""

    def __init__(self, stream: Any, hide: Callable[[], None]) -> None:
        self.stream = stream
        self._hide = hide

    def write(self, text: str) -> int:
        """As of the stream."""
        self._hide()
        written: int = self.stream.write(text)
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def _text(lines: list[Line]) -> Text:
    from rich.text import Text  # noqa: PLC0415

    text = Text(no_wrap=True, overflow="crop", end="")
    for number, line in enumerate(lines):
        text.append("\n" if number else "")
        text.append(line.label)
        if line.bar or line.rest:
            text.append(" ").append(line.bar, "cyan").append(line.rest, "bright_black").append(" ")
        text.append(line.figures)
    return text
