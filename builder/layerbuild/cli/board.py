"""What is under way, and the few lines that tell of it. Knows no terminal: whoever draws says how wide it is.

A task is shown once it has taken a second, the oldest first, so that lines keep their places. At most `ROWS` of
them, then one line for all others, then the sum of everything.
"""

from __future__ import annotations

import re
import threading
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from layerbuild.cli.units import clock, size
from layerbuild.progress import Spared

SLOW = 1.0
"""Seconds after which a task is shown."""

ROWS = 6
"""Tasks with a line of their own."""

_WINDOW = 10.0
"""Seconds over which a rate is measured."""

_WIDEST = 120
"""Columns that a line fills at most: eyes have to find its end."""

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Pace:
    """How fast something moves, over the last seconds."""

    def __init__(self, now: float) -> None:
        self._seen: deque[tuple[float, int]] = deque([(now, 0)])

    def rate(self, now: float, done: int) -> float | None:
        """Bytes per second; None as long as nobody can tell."""
        if now - self._seen[-1][0] >= _WINDOW / 40:
            self._seen.append((now, done))
        while len(self._seen) > 2 and self._seen[1][0] <= now - _WINDOW:
            self._seen.popleft()
        then, before = self._seen[0]
        return (done - before) / (now - then) if now - then >= SLOW and done > before else None


@dataclass
class Row:
    """A task that is under way."""

    label: str
    total: int | None
    started: float
    pace: Pace
    done: int = 0


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line: a name, the full part of a bar, the rest of it, figures. No bar where there is no room."""

    label: str
    bar: str = ""
    rest: str = ""
    figures: str = ""


@dataclass
class Board:
    """Everything under way. Safe to share between threads.

    Args:
        clock: seconds that only grow.
    """

    clock: Callable[[], float]
    rows: list[Row] = field(default_factory=list)
    _finished: int = 0
    _finished_total: int = 0
    _expected: int = 0
    _begun: int = 0
    _spared: Counter[Spared] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._pace = Pace(self.clock())

    def begin(self, label: str, total: int | None) -> Row:
        """A task starts."""
        now = self.clock()
        row = Row(_CONTROLS.sub("\N{REPLACEMENT CHARACTER}", label), total, now, Pace(now))
        with self._lock:
            self.rows.append(row)
            self._begun += 1
            self._expected = max(0, self._expected - (total or 0))
        return row

    def advance(self, row: Row, amount: int) -> None:
        """More of it is done."""
        with self._lock:
            row.done += amount

    def end(self, row: Row) -> None:
        """It is over. What it did stays in the sum."""
        with self._lock:
            self.rows.remove(row)
            if row.total is not None:
                self._finished += row.done
                self._finished_total += row.done

    def expect(self, amount: int) -> None:
        """See `Progress.expect`."""
        with self._lock:
            self._expected += amount

    def spare(self, why: Spared, amount: int) -> None:
        """Bytes that do not have to move."""
        with self._lock:
            self._spared[why] += amount

    def lines(self, width: int) -> list[Line]:
        """What to show in `width` columns; nothing as long as nothing takes long."""
        now = self.clock()
        width = min(width, _WIDEST)
        with self._lock:
            slow = [row for row in self.rows if now - row.started >= SLOW]
            shown, others = slow[:ROWS], slow[ROWS:]
            lines = [_line(row.label, row.done, row.total, row.pace.rate(now, row.done), width) for row in shown]
            if others:
                lines.append(_others(others, width))
            done, total = self._sums()
            rate = self._pace.rate(now, done)
            if slow and (self._begun > 1 or self._spared):
                lines.append(_line(self._sum_label(), done, total or None, rate, width))
        return lines

    def _sums(self) -> tuple[int, int]:
        known = [row for row in self.rows if row.total is not None]
        done = self._finished + sum(row.done for row in known)
        return done, self._finished_total + sum(max(row.total or 0, row.done) for row in known) + self._expected

    def _sum_label(self) -> str:
        # What has a receipt is asked of the destination later, and would count twice.
        spared = max(self._spared["known"], self._spared["present"] + self._spared["mounted"])
        return f"total, {size(spared)} known already" if spared else "total"


def _others(rows: list[Row], width: int) -> Line:
    known = [row for row in rows if row.total is not None]
    total = sum(row.total or 0 for row in known)
    figures = _amount(sum(row.done for row in known), total) if known else ""
    return _fitted(f"and {len(rows)} more", [figures], width)


def _line(label: str, done: int, total: int | None, rate: float | None, width: int) -> Line:
    left = (total - done) / rate if total is not None and rate and total > done else None
    columns = [
        _amount(done, total) if done or total else "",
        f"{size(round(rate))}/s" if rate else "",
        clock(left) if left is not None and left < 360000 else "",
    ]
    share = min(1.0, done / total) if total else None
    return _fitted(label, columns, width, share)


_COLUMNS = (22, 12, 8)
"""Widths of figures: amount, rate, time left."""

_BAR = 20


def _fitted(label: str, columns: list[str], width: int, share: float | None = None) -> Line:
    """The line in `width` columns: what has no room is left out, from the right; the label is cut last."""
    room = max(1, width - 1)  # the last column stays free: some terminals wrap after it
    kept = [f"{text:>{wide}}" for text, wide in zip(columns, _COLUMNS, strict=False)]
    least = 16 if width >= 40 else 8
    while kept and sum(map(len, kept)) + least > room:
        kept.pop()
    figures = "".join(kept)
    bar = room - len(figures) - 28 >= _BAR + 2
    full = round(_BAR * share) if bar and share is not None else 0
    gap = _BAR + 2 if bar else 0
    return Line(
        label=cut(label, room - len(figures) - gap),
        bar="━" * full,
        rest=("━" * (_BAR - full) if share is not None else " " * _BAR) if bar else "",
        figures=figures,
    )


def cut(text: str, width: int) -> str:
    """`text` in exactly `width` columns of a terminal: its beginning and its end, where it is longer."""
    from rich.cells import cell_len, set_cell_size  # noqa: PLC0415  # only with a terminal

    if cell_len(text) <= width:
        return set_cell_size(text, width)
    if width < 8:
        return set_cell_size(text, width)
    tail = text[-(width // 3) :]
    while cell_len(tail) > width // 3:
        tail = tail[1:]
    return set_cell_size(text, width - cell_len(tail) - 1) + "…" + tail


def _amount(done: int, total: int | None) -> str:
    return size(done) if total is None else f"{size(done)} of {size(total)}"
