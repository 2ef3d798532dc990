"""What the user sees: progress on standard error, results on standard output."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from layerbuild.progress import Progress, Silent, Task

_SLOW = 1.0
"""Seconds after which a task is worth a line where there is no terminal."""


def make_progress(*, quiet: bool, verbose: bool = False) -> Progress:
    """Bars on a terminal, plain lines elsewhere or beside a log, nothing if quiet."""
    if quiet:
        return Silent()
    return Bars() if sys.stderr.isatty() and not verbose else Lines()


class _LineTask:
    """Tells its label once it has taken a while, and its rate at the end."""

    def __init__(self, label: str, total: int | None) -> None:
        self.label = label
        self.total = total
        self.done = 0
        self.started = time.monotonic()
        self._told = self.started
        self._lock = threading.Lock()

    def advance(self, amount: int) -> None:
        with self._lock:
            self.done += amount
            now = time.monotonic()
            if now - self._told < 10 * _SLOW:
                return
            self._told = now
        share = f" of {size(self.total)}" if self.total else ""
        click.echo(f"{self.label}: {size(self.done)}{share}", err=True)


class Lines:
    """Plain lines for logs: one when something long ends, one every ten seconds on the way."""

    @contextmanager
    def task(self, label: str, total: int | None = None) -> Iterator[Task]:
        """See `Progress.task`."""
        task = _LineTask(label, total)
        yield task
        seconds = time.monotonic() - task.started
        if seconds >= _SLOW:
            amount = f"{size(task.done)} in " if task.done else ""
            click.echo(f"{label}: {amount}{seconds:.1f} s", err=True)

    def note(self, text: str) -> None:
        """See `Progress.note`."""
        click.echo(text, err=True)


class Bars:
    """One bar for each task that is under way, gone when it is done."""

    def __init__(self) -> None:
        from rich import progress as rich_progress  # noqa: PLC0415
        from rich.console import Console  # noqa: PLC0415  # only with a terminal

        columns = (
            rich_progress.TextColumn("{task.description}", markup=False),
            rich_progress.BarColumn(bar_width=20),
            rich_progress.DownloadColumn(binary_units=True),
            rich_progress.TransferSpeedColumn(),
            rich_progress.TimeRemainingColumn(compact=True),
        )
        self._rich = rich_progress.Progress(*columns, console=Console(stderr=True), transient=True)
        self._running = 0
        self._lock = threading.Lock()

    @contextmanager
    def task(self, label: str, total: int | None = None) -> Iterator[Task]:
        """See `Progress.task`."""
        with self._lock:
            if self._running == 0:
                self._rich.start()
            self._running += 1
        number = self._rich.add_task(label, total=total)
        try:
            yield _Bar(self._rich, number)
        finally:
            self._rich.remove_task(number)
            with self._lock:
                self._running -= 1
                if self._running == 0:
                    self._rich.stop()

    def note(self, text: str) -> None:
        """See `Progress.note`."""
        self._rich.console.print(text, markup=False, highlight=False)


class _Bar:
    def __init__(self, progress: Any, number: Any) -> None:
        self._progress = progress
        self._number = number

    def advance(self, amount: int) -> None:
        self._progress.advance(self._number, amount)


def size(count: int | None) -> str:
    """Bytes for people: `4.0 GiB`, `512 B`, `?` where nobody knows."""
    if count is None:
        return "?"
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1023.95:
            return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def print_json(value: Any) -> None:
    """A result for programs, on standard output."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(headers: list[str], rows: list[list[str]], *, right: frozenset[int] = frozenset()) -> None:
    """Columns that line up; the first one gives way where a terminal is narrow.

    Args:
        right: indexes of columns of numbers.
    """
    widths = [max(len(row[i]) for row in [headers, *rows]) for i in range(len(headers))]
    spare = 80 - sum(widths[1:]) - 2 * (len(widths) - 1)
    widths[0] = min(widths[0], max(24, spare))

    def line(cells: list[str]) -> str:
        cut = [cells[0] if len(cells[0]) <= widths[0] else cells[0][: widths[0] - 1] + "…", *cells[1:]]
        parts = [c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(cut, widths, strict=True))]
        return "  ".join(parts).rstrip()

    click.secho(line(headers), bold=True)
    for row in rows:
        click.echo(line(row))
