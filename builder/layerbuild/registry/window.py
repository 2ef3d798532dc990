"""The bytes of a blob in their order, read once, of which the last ones can be had again."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator


class Window:
    """Bytes from one open read, for as many requests as it takes. Opened anew only for what is no longer held.

    Args:
        open: the bytes from an offset on. The last of them are given only when all are known to be right.
        size: of all, in bytes.
        held: bytes that can be had again.
    """

    def __init__(self, open: Callable[[int], Generator[bytes, None, None]], size: int, *, held: int = 0) -> None:
        self.size = size
        self._open = open
        self._held = held
        self._source: Generator[bytes, None, None] | None = None
        self._pieces: deque[bytes] = deque()
        self._first = self._end = 0

    def read(self, start: int, stop: int) -> Generator[bytes, None, None]:
        """The bytes from `start` to before `stop`.

        Raises:
            LayerbuildError: whatever reading raises.
        """
        source = self._at(start)
        begin = self._first
        for piece in tuple(self._pieces):
            if start < min(stop, begin + len(piece)):
                part = piece[start - begin : stop - begin]
                start += len(part)
                yield part
            begin += len(piece)
        while start < stop:
            part = self._next(source)[: stop - start]
            start += len(part)
            yield part
        if stop == self.size:
            self._drain(source)

    def finish(self) -> None:
        """Sees to it that all bytes were read, sent or not.

        Raises:
            LayerbuildError: whatever reading raises.
        """
        self._drain(self._at(self._end))

    def close(self) -> None:
        """Lets go of what is open."""
        if self._source is not None:
            self._source.close()
        self._source = None
        self._pieces.clear()
        self._first = self._end = 0

    def _at(self, start: int) -> Generator[bytes, None, None]:
        if self._source is None or not self._first <= start <= self._end:
            self.close()
            self._first = self._end = start
            self._source = self._open(start)
        return self._source

    def _next(self, source: Generator[bytes, None, None]) -> bytes:
        piece = next(source)
        self._pieces.append(piece)
        self._end += len(piece)
        while self._end - self._first - len(self._pieces[0]) >= max(self._held, len(piece)):
            self._first += len(self._pieces.popleft())
        return piece

    def _drain(self, source: Generator[bytes, None, None]) -> None:
        for piece in source:
            self._end += len(piece)
            self._first = self._end
            self._pieces.clear()
