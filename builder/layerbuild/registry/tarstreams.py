"""Tars from strangers as streams: plain ones by ranges, packed ones within bounds. See `layertar.Stream`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from layerbuild.errors import LayerbuildError

if TYPE_CHECKING:
    from layerbuild.registry.layertar import Stream

_FIRST_WINDOW = 4 * 1024
_LARGEST_WINDOW = 1024 * 1024
_NEAR = 256 * 1024
"""Bytes: a gap below this is a small file, and what follows it will be wanted, too."""

_PADDING = 511
"""Bytes that may be missing at the end: umoci's `insert` does not fill up the last record."""

_MOST_INFLATION = 256
_INFLATION_START = 1024**3
"""A layer may decode to this many bytes plus `_MOST_INFLATION` times its size."""


class RangeStream:
    """A plain tar, read by `fetch(offset, length)`: little after a large body, more with every small one."""

    def __init__(self, fetch: Callable[[int, int], bytes], size: int) -> None:
        self._fetch = fetch
        self._size = size
        self._position = 0
        self._start = 0
        self._data = b""
        self._window = _FIRST_WINDOW // 2

    def read(self, size: int) -> bytes:
        """See `Stream.read`."""
        parts = []
        while size > 0 and self._position < self._size:
            within = self._position - self._start
            if not 0 <= within < len(self._data):
                self._fill()
                within = 0
            piece = self._data[within : within + size]
            parts.append(piece)
            self._position += len(piece)
            size -= len(piece)
        return b"".join(parts)

    def _fill(self) -> None:
        gap = self._position - (self._start + len(self._data))
        self._window = min(2 * self._window, _LARGEST_WINDOW) if gap < _NEAR else _FIRST_WINDOW
        self._start = self._position
        self._data = self._fetch(self._position, min(self._window, self._size - self._position))

    def skip(self, size: int) -> None:
        """See `Stream.skip`."""
        if size > self._size - self._position + _PADDING:
            raise EOFError("it ends in a file")
        self._position = min(self._size, self._position + max(0, size))

    def tell(self) -> int:
        """See `Stream.tell`."""
        return self._position


class Bounded:
    """A decoded tar that neither ends in a file nor grows without end.

    Args:
        packed: bytes of the layer as it is stored.
        hostile: makes the error for one that grows, from `where` and a cause.
    """

    def __init__(
        self, stream: Stream, *, packed: int, where: str, hostile: Callable[[str, str], LayerbuildError]
    ) -> None:
        self._stream = stream
        self._limit = _INFLATION_START + _MOST_INFLATION * packed
        self._where = where
        self._hostile = hostile

    def read(self, size: int) -> bytes:
        """See `Stream.read`."""
        data = self._stream.read(size)
        self._check(self._stream.tell())
        return data

    def skip(self, size: int) -> None:
        """See `Stream.skip`."""
        end = self._stream.tell() + size
        self._check(end)
        self._stream.skip(size)
        if self._stream.tell() + _PADDING < end:
            raise EOFError("it ends in a file")

    def tell(self) -> int:
        """See `Stream.tell`."""
        return self._stream.tell()

    def _check(self, position: int) -> None:
        if position > self._limit:
            raise self._hostile(self._where, "it decodes to more than any honest layer of its size")
