"""Progress where there is no terminal, or none that can move its cursor: plain lines, few of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click

from layerbuild.cli.board import SLOW
from layerbuild.cli.failure import printable
from layerbuild.cli.units import size
from layerbuild.progress import Silent, Task


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
            if now - self._told < 10 * SLOW:
                return
            self._told = now
        share = f" of {size(self.total)}" if self.total else ""
        click.echo(f"{self.label}: {size(self.done)}{share}", err=True)


class Lines(Silent):
    """Plain lines for logs: one when something long ends, one every ten seconds on the way."""

    @contextmanager
    def task(self, label: str, total: int | None = None) -> Iterator[Task]:
        """See `Progress.task`."""
        task = _LineTask(printable(label), total)
        yield task
        seconds = time.monotonic() - task.started
        if seconds >= SLOW:
            amount = f"{size(task.done)} in " if task.done else ""
            click.echo(f"{task.label}: {amount}{seconds:.1f} s", err=True)

    def note(self, text: str) -> None:
        """See `Progress.note`."""
        click.echo(printable(text), err=True)
