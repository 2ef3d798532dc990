"""What the user sees: progress on standard error, results on standard output."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import Any

import click

from layerbuild.cli import events, tables
from layerbuild.cli.bars import Bars
from layerbuild.cli.events import Events, emit
from layerbuild.cli.failure import printable
from layerbuild.cli.lines import Lines
from layerbuild.cli.units import duration, size
from layerbuild.progress import Silent, Tally

__all__ = ["Bars", "Events", "Lines", "Silent", "emit", "log", "make_progress", "print_json", "print_table", "settle"]
__all__ += ["closing", "duration", "progress_for", "size"]

_shown: list[Silent] = []
"""Displays of this process. There is one terminal, and one standard error."""


def make_progress(*, quiet: bool, verbose: bool = False, events: bool = False) -> Silent:
    """Lines that move on a terminal, plain lines elsewhere or beside a log, events for programs, nothing if quiet."""
    made = _made(quiet=quiet, verbose=verbose, events=events)
    _shown.append(made)
    return made


def _made(*, quiet: bool, verbose: bool, events: bool) -> Silent:
    if quiet:
        return Silent()
    if events:
        return Events()
    able = sys.stderr.isatty() and os.environ.get("TERM", "") not in ("", "dumb", "unknown")
    return Bars() if able and not verbose else Lines()


def progress_for(options: Mapping[str, Any]) -> Silent:
    """What the options of the command group, and a command's `--json`, ask for."""
    return make_progress(**{name: bool(options.get(name)) for name in ("quiet", "verbose", "events")})


def settle() -> Tally:
    """Takes every display away, at the end of a command. Returns what the last one has counted."""
    tally = _shown[-1].tally if _shown else Tally()
    for display in _shown:
        if isinstance(display, Bars):
            display.close()
    _shown.clear()
    return tally


def log(text: str) -> None:
    """A line of `-v`."""
    if _shown and isinstance(_shown[-1], Events):
        events.emit("log", message=text)
    else:
        click.echo(printable(text), err=True)


def closing(tally: Tally, *, moved: str, spared: Mapping[str, int]) -> str:
    """The last words of a long command: `sent 14.2 MiB in 3.1 s; 5.9 GiB were there already`.

    Args:
        moved: what moved, with its verb.
        spared: what did not have to, by what is said of it; zeros are left out.
    """
    rest = [f"{size(amount)} {words}" for words, amount in spared.items() if amount]
    return "; ".join([f"{moved} in {duration(tally.seconds)}", ", ".join(rest)]).removesuffix("; ")


def print_json(value: Any) -> None:
    """A result for programs, on standard output."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        # Names of files may be no text, and standard output may take less than all of Unicode.
        text = json.dumps(value, indent=2)
    click.echo(text)


def print_table(headers: list[str], rows: list[list[str]], *, right: frozenset[int] = frozenset()) -> None:
    """Columns that line up; the first one gives way where a terminal is narrow.

    Args:
        right: indexes of columns of numbers.
    """
    tables.print_rows(headers, [tables.Row(cells=row) for row in rows], right=right)
