"""Which annotations a recipe may give its image (OCI image-spec 1.1, annotations.md). Pure."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

OWN = "dev.layerbuild."
"""Beginning of the keys by which layerbuild recognises what it has made."""

CREATED_KEY = "org.opencontainers.image.created"

# RFC 3339, section 5.6
_DATE_TIME = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.[0-9]+)?"
    r"(?:[Zz]|[+-]([0-9]{2}):([0-9]{2}))"
)


def fault(key: str, value: str) -> tuple[str, str] | None:
    """What is wrong with an annotation, and a way out; None if nothing is."""
    if key.startswith(OWN):
        return f"{key!r} is layerbuild's own annotation", f"leave it out, or use a key that does not begin with {OWN!r}"
    if key == CREATED_KEY and not is_date_time(value):
        return f"{value[:40]!r} is no date and time (RFC 3339)", "write it like '2024-05-31T12:00:00Z', in quotes"
    return None


def is_date_time(text: str) -> bool:
    """Whether `text` is a date-time of RFC 3339. A leap second is one on any day."""
    match = _DATE_TIME.fullmatch(text)
    if match is None:
        return False
    year, month, day, hour, minute, second, *offset = (int(part or 0) for part in match.groups())
    try:
        datetime(year, month, day, hour, minute, min(second, 59))  # only whether there is such a day
    except ValueError:
        return False
    return second <= 60 and timedelta(hours=offset[0]) < timedelta(days=1) and offset[1] < 60
