"""Releases of the webui, and what changed in what it reads at its start."""

from __future__ import annotations

import re

COMMITS = {
    "1.6.1": "4afaaf8a020c1df457bcf7250cb1c7f609699fa7",
    "1.9.3": "1c0a0c4c26f78c32095ebc7f8af82f5c04fca8c0",
    "1.9.4": "feee37d75f1b168768014e4634dcb156ee649c05",
    "1.10.1": "82a973c04367123ae98bd9abdf80d9eda9b910e2",
}
"""Release -> commit, where the whole commit is known. Older ones are in `PREFIXES`."""

PREFIXES = {
    "1.4.0": "394ffa7b",
    "1.5.2": "c9c8485b",
    "1.7.0": "cf2772fa",
    "1.8.0": "bef51aed",
    "1.9.0": "adadb4e3",
    "1.10.0": "c19d0443",
}

Version = tuple[int, ...]


def parse_version(text: str) -> Version | None:
    """`1.10.1` or `v1.10.1` as a tuple that compares; None if it is no release."""
    match = re.fullmatch(r"v?(\d{1,4}(?:\.\d{1,4}){1,3})(?:-\w+)?", text.strip())
    return tuple(int(part) for part in match[1].split(".")) if match else None


def version_of_commit(commit: str) -> str | None:
    """The release that `commit` (40 hex digits) is, if it is a known one."""
    # A branch may be called like the beginning of a commit.
    if not re.fullmatch(r"[0-9a-f]{40}", commit):
        return None
    for version, known in (*COMMITS.items(), *PREFIXES.items()):
        if commit.startswith(known):
            return version
    return None
