"""How much of an image may be kept in memory. What it holds was written by strangers."""

from __future__ import annotations

import threading

from layerbuild.errors import LayerbuildError

MAX_ENTRIES = 500_000
"""Paths in all layers together. A webui with torch and every extension has about 100,000."""

MAX_PATH = 4096
"""Bytes of a path (Linux: PATH_MAX)."""

MAX_DEPTH = 256
"""Components of a path. The deepest trees of Python packages end below 40."""

MAX_KEPT = 96 * 1024 * 1024
"""Bytes of small files that are kept while layers are read."""

MAX_HEADS = 32 * 1024 * 1024
"""Bytes of safetensors headers that are kept while compressed layers are read."""

MAX_CACHE = 32 * 1024 * 1024
"""Bytes of a `cache.json`. Forty models with long training notes make about 2 MiB."""


class Unreadable(LayerbuildError):
    """The image cannot be audited: it is not there, damaged, or hostile."""

    exit_code = 2
    page = "audit.md#what-is-read"


def hostile(where: str, cause: str) -> Unreadable:
    """The error for an image that no honest tool made."""
    return Unreadable(f"{where} cannot be audited", cause=cause, hint="do not use this image: an honest one is not so")


class Limits:
    """What an audit may still keep. Safe to share between threads."""

    def __init__(self, *, entries: int = MAX_ENTRIES, kept: int = MAX_KEPT, heads: int = MAX_HEADS) -> None:
        self._entries = entries
        self._kept = kept
        self._heads = heads
        self._lock = threading.Lock()

    def entry(self, where: str) -> None:
        """One more path.

        Raises:
            Unreadable: there are too many.
        """
        with self._lock:
            self._entries -= 1
            if self._entries < 0:
                raise hostile(where, "it holds more paths than any honest image")

    def keep(self, size: int, where: str) -> None:
        """`size` more bytes of small files.

        Raises:
            Unreadable: there are too many.
        """
        with self._lock:
            self._kept -= size
            if self._kept < 0:
                raise hostile(where, "it holds more configuration files than any honest image")

    def head(self, size: int) -> bool:
        """Whether `size` more bytes of model headers may be kept: those can be done without."""
        with self._lock:
            if size > self._heads:
                return False
            self._heads -= size
            return True
