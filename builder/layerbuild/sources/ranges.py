"""A large file over several connections at once: its ranges are asked for side by side, and handed on in order.

Many servers limit the rate of a connection. What is ahead of the reader waits in memory, never more than
`(AHEAD + 1) * SEGMENT` bytes. So a reader sees one file from its start to its end, whoever hashes it does so in
one pass, and what reaches a disk is always a beginning, from which a later run can go on.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from typing import Protocol

import requests

from layerbuild import addresses, http
from layerbuild.errors import Unreachable

PARTIAL = 206
"""The status of an answer that is a range (RFC 9110, 15.3.7)."""

LARGE = 256 * 1024 * 1024
"""Bytes from which on a file is worth several connections."""

CONNECTIONS = 4

SEGMENT = 3 * 1024 * 1024
"""Bytes of a range. With larger ones a command would need more than 100 MB of memory, with smaller ones waiting for
each answer would take longer than its bytes."""

AHEAD = CONNECTIONS
"""Ranges that are under way or wait for the reader, beside the one that is read."""

TURN = threading.Semaphore(1)
"""Held by the one file that has several connections: others that are fetched meanwhile have one each."""


def worthwhile(size: int, offset: int) -> bool:
    """Whether what is left of a file of `size` bytes is worth several connections."""
    return size >= LARGE and size - offset >= CONNECTIONS * SEGMENT


class Fetched(Protocol):
    """Bytes on their way, which can be given up."""

    def __iter__(self) -> Iterator[bytes]: ...

    def close(self) -> None:
        """Nobody wants the rest."""


Fetch = Callable[[int, int], Fetched]
"""Fetches a range by its first byte and its length: non-empty chunks."""


def in_order(fetch: Fetch, start: int, end: int) -> Iterator[bytes]:
    """The bytes from `start` up to `end`, in chunks.

    Raises:
        SourceError: what `fetch` raises, after all bytes before it were handed on.
    """
    given_up = threading.Event()

    def segment(offset: int) -> list[bytes]:
        pieces: list[bytes] = []
        with closing(fetch(offset, min(SEGMENT, end - offset))) as chunks:
            for chunk in chunks:
                if given_up.is_set():
                    break
                pieces.append(chunk)
        return pieces

    offsets = iter(range(start, end, SEGMENT))
    pool = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="range")
    try:
        waiting: deque[Future[list[bytes]]] = deque(pool.submit(segment, o) for o in islice(offsets, AHEAD))
        while waiting:
            pieces = waiting.popleft().result()
            waiting.extend(pool.submit(segment, offset) for offset in islice(offsets, 1))
            while pieces:
                yield pieces.pop(0)
    finally:
        # Who is under way ends with its next chunk: nobody waits for a server that sends none.
        given_up.set()
        pool.shutdown(wait=False, cancel_futures=True)


class Place:
    """Where a file is: at its own address, or where that leads to, for as long as that answers. So that many ranges
    cost the server that knows the way one question. Threads may share it."""

    def __init__(self, client: http.Client, url: str) -> None:
        self._client = client
        self._url = url
        self._found: str | None = None

    def request(self, headers: Mapping[str, str]) -> requests.Response:
        """An answer with a part of the file, or whatever its own address has to say.

        Args:
            headers: to another origin than that of the address, only those of `http.CARRIED` go.

        Raises:
            Unreachable: no answer.
        """
        found = self._found
        if found is not None:
            response = self._at(found, headers)
            if response is not None:
                return response
            self._found = None
        response = self._client.request("GET", self._url, headers=headers)
        if response.status_code == PARTIAL and response.url and response.url != self._url:
            self._found = response.url
        return response

    def _at(self, found: str, headers: Mapping[str, str]) -> requests.Response | None:
        elsewhere = addresses.origin(found) != addresses.origin(self._url)
        sent = {k: v for k, v in headers.items() if not elsewhere or k.lower() in http.CARRIED}
        try:
            response = self._client.request("GET", found, headers=sent, follow=False, retries=0)
        except Unreachable:
            return None
        if response.status_code == PARTIAL:
            return response
        response.close()
        return None
