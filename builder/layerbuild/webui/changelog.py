"""The webui's release, as its own changelog names it."""

from __future__ import annotations

import re

CHANGELOG = "CHANGELOG.md"
ENOUGH = 64 * 1024
"""Bytes in which the first heading stands."""

_HEADING = re.compile(r"^##\s+v?(\d{1,4}(?:\.\d{1,4}){1,3})\b", re.MULTILINE)


def first_release(text: str) -> str | None:
    """The release of the first heading, `## 1.10.1`; None if there is none."""
    match = _HEADING.search(text)
    return match[1] if match else None
