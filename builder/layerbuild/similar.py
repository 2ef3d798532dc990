"""What somebody may have meant who wrote a name that nobody knows."""

from __future__ import annotations

from collections.abc import Iterable

_MOST = 5000
"""Names that are compared: each costs some microseconds."""


def closest(name: str, known: Iterable[str]) -> str | None:
    """The one of `known` that `name` looks like, if there is one. Case makes no difference."""
    import difflib  # noqa: PLC0415  # only where something went wrong

    by_lower = {candidate.lower(): candidate for candidate in list(known)[:_MOST]}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return by_lower[close[0]] if close else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` where something similar is known, else nothing."""
    found = closest(name, known)
    return f"; did you mean {found!r}?" if found else ""
