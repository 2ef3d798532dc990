"""What an audit finds, and what it would cost."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

Severity = Literal["error", "warning", "info"]
When = Literal["start", "use", "pull"]

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")
"""Worst first. Only `info` leaves an image clean."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """An estimate. Seconds; bytes.

    Attributes:
        when: at each cold start, when the thing is first used, or when a node pulls the image.
        hashed, downloaded: what the webui would read to hash it, and fetch over the network.
    """

    when: When = "start"
    seconds: float = 0.0
    hashed: int = 0
    downloaded: int = 0


FREE = Cost()


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that a start would do, or that is wrong.

    Attributes:
        id: what kind of finding it is; stable, for programs.
        paths: where; absolute in the image.
        what: one sentence without a full stop.
        hint: the way out, as an instruction.
    """

    id: str
    severity: Severity
    paths: tuple[str, ...] = ()
    what: str
    cost: Cost = FREE
    hint: str

    def __post_init__(self) -> None:
        # names in an image were chosen by strangers, and end on a terminal
        for name, value in (("paths", tuple(map(printable, self.paths))), ("what", printable(self.what))):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "hint", printable(self.hint))

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        cost = {
            "when": self.cost.when,
            "seconds": round(self.cost.seconds, 1),
            "bytes_hashed": self.cost.hashed,
            "bytes_downloaded": self.cost.downloaded,
        }
        return {
            "id": self.id,
            "severity": self.severity,
            "paths": list(self.paths),
            "what": self.what,
            "cost": cost,
            "hint": self.hint,
        }


def printable(text: str) -> str:
    """`text` of an image as a terminal may get it: no control characters, no bytes that are no text."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """By severity, then by cost."""

    def rank(finding: Finding) -> tuple[int, float, str, tuple[str, ...]]:
        cost = finding.cost
        moved = (cost.hashed + cost.downloaded) / 1e9
        return SEVERITIES.index(finding.severity), -cost.seconds - moved, finding.id, finding.paths

    return sorted(findings, key=rank)


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was found in one image.

    Attributes:
        webui: flavour, release and directory, for people; None where there is none.
        bytes_read: of its layers, while auditing.
    """

    reference: str
    platform: str
    digest: str
    webui: str | None
    models: int
    findings: tuple[Finding, ...]
    bytes_read: int

    @property
    def clean(self) -> bool:
        """Whether there is nothing worse than information."""
        return all(finding.severity == "info" for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "reference": self.reference,
            "platform": self.platform,
            "digest": self.digest,
            "webui": self.webui,
            "models": self.models,
            "clean": self.clean,
            "bytes_read": self.bytes_read,
            "findings": [finding.as_json() for finding in self.findings],
            "total": {
                when: {
                    "seconds": round(cost.seconds, 1),
                    "bytes_hashed": cost.hashed,
                    "bytes_downloaded": cost.downloaded,
                }
                for when, cost in self.totals()
            },
        }

    def totals(self) -> list[tuple[When, Cost]]:
        """The sum over findings for each moment."""
        return [(when, self._total(when)) for when in get_args(When)]

    def _total(self, when: When) -> Cost:
        costs = [finding.cost for finding in self.findings if finding.cost.when == when]
        return Cost(
            when=when,
            seconds=sum(cost.seconds for cost in costs),
            hashed=sum(cost.hashed for cost in costs),
            downloaded=sum(cost.downloaded for cost in costs),
        )
