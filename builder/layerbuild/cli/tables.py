"""Tables and lists for people that stay within 80 columns, whatever names they hold.

Only what is printable gets out: a name may come from a stranger's file, and a terminal obeys escape sequences.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import click

from layerbuild.audit.findings import printable

WIDTH = 80
_GAP = "  "
_LEAST = 12
"""Columns that a text keeps that has to give way."""

_WORD = re.compile(r"[^\s/@,?&=]*(?:[/@,?&=]+|\s+)?")
"""What is not broken between lines: a digest, a directory's name."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of a table.

    Attributes:
        cells: texts, one for each column.
        bold: whether it is a heading or a sum.
        colour: of the whole line, by what it means; None for none.
    """

    cells: Sequence[str]
    bold: bool = False
    colour: str | None = None


def columns(text: str) -> int:
    """How many columns a terminal takes for `text`."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(bool(unicodedata.combining(c)) for c in text)


def cut(text: str, width: int) -> str:
    """`text` in at most `width` columns, without its middle: what is called alike mostly differs at the end."""
    if columns(text) <= width:
        return text
    tail = max(0, width - 1) // 3
    head = max(0, width - 1) - tail
    return f"{_beginning(text, head)}…{_beginning(text[::-1], tail)[::-1]}"


def _beginning(text: str, width: int) -> str:
    """As much of `text` as takes at most `width` columns."""
    kept = text[:width]
    while columns(kept) > width:
        kept = kept[:-1]
    return kept


def fold(text: str, width: int) -> list[str]:
    """`text` as lines of at most `width` columns, broken behind the separators of paths and addresses.

    A digest is never broken; any other word is that is longer than a line.
    """
    lines = [""]
    for word in _WORD.findall(printable(text)):
        rest = word
        if columns(lines[-1] + rest.rstrip()) > width and lines[-1]:
            lines.append("")
        while columns(rest.rstrip()) > width:
            piece = _beginning(rest, width)
            lines[-1], rest = piece, rest[len(piece) :]
            lines.append("")
        lines[-1] += rest
    return [line.rstrip() for line in lines if line.strip()] or [""]


def print_rows(
    headers: Sequence[str], rows: Iterable[Row], *, right: frozenset[int] = frozenset(), yielding: Sequence[int] = (0,)
) -> None:
    """Columns that line up, within `WIDTH`.

    Args:
        right: indexes of columns of numbers.
        yielding: indexes of columns that give way where there is too little room; without any, lines are as long as
            they are.
    """
    shown = [Row(cells=headers, bold=True)]
    shown += [Row(cells=[printable(c) for c in row.cells], bold=row.bold, colour=row.colour) for row in rows]
    widths = _widths([row.cells for row in shown], yielding)
    for row in shown:
        cells = [_padded(cut(cell, w), w, right=i in right) for i, (cell, w) in enumerate(zip(row.cells, widths))]  # noqa: B905
        click.echo(click.style(_GAP.join(cells).rstrip(), bold=row.bold or None, fg=row.colour))


def _widths(lines: Sequence[Sequence[str]], yielding: Sequence[int]) -> list[int]:
    widths = [max(columns(line[i]) for line in lines) for i in range(len(lines[0]))]
    excess = sum(widths) + len(_GAP) * (len(widths) - 1) - WIDTH
    while excess > 0 and yielding:
        # The widest gives way first: short names stay whole beside long ones.
        widest = max(yielding, key=lambda i: widths[i])
        if widths[widest] <= _LEAST:
            break
        widths[widest] -= 1
        excess -= 1
    return widths


def _padded(text: str, width: int, *, right: bool) -> str:
    space = " " * (width - columns(text))
    return space + text if right else text + space


def print_field(name: str, values: str | Sequence[str], *, indent: int = 9) -> None:
    """A name and its values below each other; nothing where there are none."""
    lines = [
        line for value in ([values] if isinstance(values, str) else values) for line in fold(value, WIDTH - indent)
    ]
    for i, line in enumerate(lines):
        label = click.style(name, bold=True) + " " * (indent - len(name)) if i == 0 else " " * indent
        click.echo(label + line)


def listed(names: Sequence[str], noun: str, most: int = 2) -> str:
    """`names`, or how many there are."""
    return ", ".join(names) if len(names) <= most else f"{len(names)} {noun}"
