"""What one registry takes: by the table in `limits`, and by what it did when it was asked, which is remembered.

Nothing of it is relied on. It says what is tried first, and whoever tries has another way where that is refused.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping
from typing import Protocol

from layerbuild.errors import StoreError
from layerbuild.registry.limits import limits_of

SHORTEST = 1024 * 1024
"""Bytes of a chunk below which none is tried: where less is taken, whole requests are, or nothing."""

_LONGEST = 1 << 40

_UNMOUNTED = 32
"""Mounts that a registry refuses in a row until it counts as one that never mounts."""


class Memory(Protocol):
    """Remembers what registries did, for a while."""

    def learnt(self, host: str) -> Mapping[str, int]:
        """All that is remembered of a registry, by name."""

    def learn(self, host: str, name: str, value: int) -> None:
        """Remembers one thing. What else is known of that registry stays."""


class Manners:
    """How to treat the registry at `host`. Safe to share between threads.

    Attributes:
        largest: bytes of the largest layer; None where nobody tells.
        streams: whether PATCH is taken at all.
        chunk: bytes of the longest PATCH; None for any.
        whole: bytes above which a PUT with a whole blob is not tried first; None where nothing is known.
        continues: whether what it says of a session that was broken off is true.
        mounts: whether it ever does.

    Args:
        host: as `reference.normal_host` gives it.
        memory: of earlier runs; None for none.
    """

    def __init__(self, host: str, memory: Memory | None = None) -> None:
        limits = limits_of(host)
        learnt = memory.learnt(host) if memory is not None else {}
        self.largest = limits.largest
        self.streams = limits.streams and learnt.get("streams", 1) != 0
        self.chunk = _sane(learnt.get("chunk")) or limits.chunk
        self.whole = _sane(learnt.get("whole")) or limits.whole
        self.continues = learnt.get("continues", 1) != 0
        self.mounts = learnt.get("mounts", 1) != 0
        self._host = host
        self._memory = memory
        self._lock = threading.Lock()
        self._refused = 0

    def no_streams(self, *, certain: bool) -> None:
        """A PATCH was refused, whatever its length.

        Args:
            certain: whether that can have no other reason; else it is forgotten with this process.
        """
        self.streams = False
        if certain:
            self._learn("streams", 0)

    def takes(self, chunk: int) -> None:
        """A PATCH of that length was taken where a longer one was not."""
        if self.chunk != chunk:
            self.chunk = chunk
            self._learn("chunk", chunk)

    def no_whole(self) -> None:
        """A PUT with a whole blob was refused for its length."""
        self.whole = SHORTEST
        self._learn("whole", SHORTEST)

    def lies(self) -> None:
        """It did not have what it said it had."""
        if self.continues:
            self.continues = False
            self._learn("continues", 0)

    def mount(self, *, done: bool) -> None:
        """A blob was mounted, or was not, from where it should be."""
        with self._lock:
            self._refused = 0 if done else self._refused + 1
            mounts = done or (self.mounts and self._refused < _UNMOUNTED)
            changed, self.mounts = mounts != self.mounts, mounts
        if changed:
            self._learn("mounts", int(mounts))

    def _learn(self, name: str, value: int) -> None:
        # What cannot be remembered is learnt anew by the next run.
        if self._memory is not None:
            with contextlib.suppress(StoreError):
                self._memory.learn(self._host, name, value)


def _sane(value: int | None) -> int | None:
    return value if value is not None and 0 < value <= _LONGEST else None
