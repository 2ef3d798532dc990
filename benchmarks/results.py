"""What was measured, as values, as JSON, and the arithmetic on it. Nothing here runs anything."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of a command. Seconds and bytes; `peak` is that of the largest process.

    `read` passed through read calls (page cache or not), `written` was meant for the disk; None where the kernel
    does not say. `sent` is what a proxy before the registry saw from the client, None in runs that are timed.
    """

    seconds: float
    cpu: float
    peak: int
    read: int | None = None
    written: int | None = None
    sent: int | None = None


@dataclass(frozen=True, kw_only=True)
class Case:
    """One way of doing a thing: its steps, each with a run for every round.

    `facts` are numbers that do not vary. `missing` says why it could not be tried.
    """

    steps: Mapping[str, list[Run]] = field(default_factory=dict)
    facts: Mapping[str, float] = field(default_factory=dict)
    missing: str | None = None


Part = Mapping[str, Case]
"""Ways of doing the same thing, by their names."""


@dataclass(frozen=True, kw_only=True)
class Results:
    """A whole run of the benchmark."""

    date: str
    machine: Mapping[str, Any]
    versions: Mapping[str, str | None]
    size: int
    rounds: int
    parts: Mapping[str, Part]
    scale: Mapping[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        """For a file."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Results:
        """What `as_json` gave."""
        parts = {
            title: {
                name: Case(
                    steps={step: [Run(**run) for run in runs] for step, runs in case["steps"].items()},
                    facts=case["facts"],
                    missing=case["missing"],
                )
                for name, case in part.items()
            }
            for title, part in value["parts"].items()
        }
        return cls(**{**value, "parts": parts})


def together(runs: Iterable[Run]) -> Run:
    """Several commands as one: times and bytes added, the largest peak."""
    runs = list(runs)
    return Run(
        seconds=sum(run.seconds for run in runs),
        cpu=sum(run.cpu for run in runs),
        peak=max(run.peak for run in runs),
        read=_sum(run.read for run in runs),
        written=_sum(run.written for run in runs),
        sent=_sum(run.sent for run in runs),
    )


def _sum(values: Iterable[int | None]) -> int | None:
    total = 0
    for value in values:
        if value is None:
            return None
        total += value
    return total


def seconds(runs: Iterable[Run]) -> float:
    """The median."""
    return statistics.median(run.seconds for run in runs)


def peak(runs: Iterable[Run]) -> int:
    """The largest, in bytes."""
    return max(run.peak for run in runs)


def passes(case: Case) -> list[float]:
    """Seconds of each run of `whole`, without what the command takes with next to nothing to do (`start`)."""
    start = seconds(case.steps["start"])
    return [run.seconds - start for run in case.steps["whole"]]


def totals(case: Case, steps: Sequence[str]) -> list[float]:
    """Seconds of these steps together, of those that there are, in each round."""
    rounds = zip(*(case.steps[step] for step in steps if step in case.steps), strict=True)
    return [sum(run.seconds for run in runs) for runs in rounds]


def ratios(values: Sequence[float], reference: Sequence[float]) -> list[float]:
    """Each value against the reference of its own round."""
    return [value / other for value, other in zip(values, reference, strict=True)]
