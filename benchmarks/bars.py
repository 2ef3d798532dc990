"""What layerbuild promises, and whether a run of the benchmark shows it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from results import Results, Run, passes, peak, ratios, totals

KIB, MIB, MB = 1024, 1024**2, 10**6

FIRST = ("build", "first")
"""Steps until the first image is in the registry."""

SECOND = {"same": "same repository", "other": "another repository"}
"""Steps of a second image, and where it goes."""

FROM_SERVER = "layerbuild from a server"
NO_STORE = "the same, --no-store"
OURS = ("layerbuild", "layerbuild, layer known", FROM_SERVER, NO_STORE, "layerbuild build")
"""Cases that are layerbuild."""


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A promise. `met` is None where nothing was measured."""

    what: str
    limit: str
    measured: str
    met: bool | None


def bars(results: Results) -> list[Bar]:
    """Every promise, in the order in which they are listed."""
    return [*_hashing(results), *_push(results), *_second_image(results), *_scale(results), _memory(results)]


def _bar(what: str, limit: str, value: float | None, met: Callable[[float], bool], show: Callable[[float], str]) -> Bar:
    if value is None:
        return Bar(what=what, limit=limit, measured="not measured", met=None)
    return Bar(what=what, limit=limit, measured=show(value), met=met(value))


def _timed(what: str, limit: str, values: Sequence[float], met: Callable[[float], bool], unit: str = "") -> Bar:
    """A promise about the median of several rounds."""
    value = statistics.median(values) if values else None
    return _bar(what, limit, value, met, lambda v: f"{v:.2f}{unit}")


def _hashing(results: Results) -> Iterator[Bar]:
    part = results.parts.get("hashing")
    # Of two rates the ratio is that of the seconds, turned round.
    found = ratios(passes(part["one sha256"]), passes(part["layerbuild build"])) if part else []
    yield _timed("hashing (one sha256 = 1.00)", "0.90 or more", found, lambda v: v >= 0.90)


def _push(results: Results) -> Iterator[Bar]:
    part = results.parts.get("push")
    found = []
    if part and part["curl -T"].missing is None:
        found = ratios(totals(part["layerbuild"], FIRST), totals(part["curl -T"], FIRST))
    yield _timed("first push (curl -T = 1.00)", "1.10 or less", found, lambda v: v <= 1.10)
    for name, what in (("layerbuild", "written to the disk for it"), (NO_STORE, "written with --no-store")):
        written = _most(part[name].steps["first"], "written") if part else None
        yield _bar(what, "under 1 MiB", written, lambda v: v < MIB, lambda v: f"{v / MIB:.2f} MiB")


def _second_image(results: Results) -> Iterator[Bar]:
    part, counted = results.parts.get("push"), results.parts.get("bytes")
    for step, where in SECOND.items():
        found = totals(part["layerbuild"], [step]) if part else []
        yield _timed(f"second image, {where}", "under 0.5 s", found, lambda v: v < 0.5, " s")
    runs = [run for step in SECOND for run in counted["layerbuild"].steps[step]] if counted else []
    sent = _most(runs, "sent")
    yield _bar("sent for it", "under 64 KiB", sent, lambda v: v < 64 * KIB, lambda v: f"{v / KIB:.1f} KiB")
    # The model's file is away while these run: they would have failed.
    yield _bar("read of the model for it", "0 B", 0 if part else None, lambda v: v == 0, lambda v: f"{v:.0f} B")


def _scale(results: Results) -> Iterator[Bar]:
    rows = results.scale["rows"] if results.scale else []
    cells = {row["command"]: row for row in rows if row["images"] == 1000}
    for title, what in (("plan", "planning"), ("build", "composing")):
        cpu = cells[title]["cpu"] if title in cells else None
        yield _bar(f"{what} 1,000 images, CPU", "under 5 s", cpu, lambda v: v < 5, lambda v: f"{v:.1f} s")
    yield _rate(cells)


def _rate(cells: Mapping[str, Mapping[str, float]]) -> Bar:
    """Images that were composed and pushed in a second, where every config is new and no layer is; `of` those that
    the registry alone takes."""
    what, limit = "images pushed in a second", "50, or 80 %"
    if "push, changed" not in cells:
        return Bar(what=what, limit=limit, measured="not measured", met=None)
    rate, alone = (1000 / cells[name]["seconds"] for name in ("push, changed", "the registry alone"))
    met = rate >= 50 or rate >= 0.8 * alone
    return Bar(what=what, limit=limit, measured=f"{rate:.0f} of {alone:.0f}", met=met)


def _memory(results: Results) -> Bar:
    cases = [case for part in results.parts.values() for name, case in part.items() if name in OURS]
    peaks = [peak(runs) for case in cases for runs in case.steps.values()]
    peaks += [row["peak"] for row in results.scale["rows"] if row["peak"] is not None] if results.scale else []
    most = max(peaks, default=None)
    what = "peak memory of any command"
    return _bar(what, "under 100 MB", most, lambda v: v < 100 * MB, lambda v: f"{v / MB:.1f} MB")


def _most(runs: Sequence[Run], key: str) -> float | None:
    values = [getattr(run, key) for run in runs]
    return None if None in values else max(values, default=None)
