"""Commands and sources as they may be shown: no secret, no query, one line. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from layerbuild.addresses import redact
from layerbuild.dockerfile.reading import SUBSTITUTED
from layerbuild.sources.base import words as plain

_SECRET = re.compile(r"token|passw|secret|authorization|bearer|api[_-]?key|credential|\bhf_\w", re.IGNORECASE)


def shortened(words: Sequence[str]) -> str:
    """A command in at most 60 characters: addresses without queries, and nothing that may be a secret."""
    shown = [redact(word) if "://" in word else word for word in words]
    hidden = [bool(_SECRET.search(word)) for word in shown]
    # What follows an option like --token is the secret itself.
    after = [False, *(hide and word.startswith("-") for hide, word in zip(hidden, shown, strict=True))]
    text = " ".join("…" if hidden[at] or after[at] else word for at, word in enumerate(shown))
    return plain(text.replace(SUBSTITUTED, "$(…)"), limit=60)


def source_shown(source: str) -> str:
    """A source as it may be shown."""
    return plain(redact(source) if source.startswith("http") else source, limit=200)
