"""Downloading over HTTP what a pin describes: ranges, resumption within the run, and sizes.

RFC 9110, sections 14 (ranges) and 15 (statuses). A download that breaks off goes on where it
stopped, by asking the original address again: the signed address it led to may have expired. Large
files whose digest is pinned come over several connections, where the server takes ranges.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field

import requests

from layerbuild import http
from layerbuild.errors import AccessDenied, ContentMismatch, NotFound, SourceError, Unreachable
from layerbuild.sources import ranges
from layerbuild.sources.base import MAX_SIZE, mismatch
from layerbuild.wire import BLOCK, is_count

Check = Callable[[requests.Response], None]
"""Raises a `SourceError` for an answer that is not the file; lets 200, 206 and 416 pass."""

_CONTENT_RANGE = re.compile(r"bytes (?:(\d{1,18})-\d{1,18}|\*)/(\d{1,18}|\*)", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Remote:
    """A file on a web server.

    Attributes:
        client: speaks HTTP.
        url: where the file is.
        what: its name in messages; holds no secret.
        check: judges answers.
        headers: to be sent, to the origin of `url` only.
        size: pinned bytes, or None.
        pinned: a digest of the content is known. If not, a download must not go on in another
            version of the file, and entity tags are compared.
    """

    client: http.Client
    url: str
    what: str
    check: Check
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    size: int | None = None
    pinned: bool = True


def read(remote: Remote, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
    """Non-empty chunks of `remote` from `offset`, at most `length` bytes, else to the end.

    Raises:
        ContentMismatch: its size is not the pinned one.
        Unreachable: no answer, or it broke off again and again without progress.
        SourceError: what `remote.check` raises, or an answer that makes no sense.
    """
    large = remote.pinned and length is None and ranges.worthwhile(remote.size or 0, offset)
    if large and ranges.TURN.acquire(blocking=False):
        try:
            yield from _in_ranges(remote, offset, remote.size or 0)
        finally:
            ranges.TURN.release()
    else:
        yield from _repeated(_Download(remote, offset, length))


def _in_ranges(remote: Remote, offset: int, size: int) -> Iterator[bytes]:
    """Several connections, once the first answer has shown that the server takes ranges. One again where it refuses
    several: many allow a visitor only so many."""
    place = ranges.Place(remote.client, remote.url)
    first = _Download(remote, offset, ranges.SEGMENT, place=place, or_all=True)
    yield from _repeated(first)

    def fetch(start: int, length: int) -> Generator[bytes, None, None]:
        return _repeated(_Download(remote, start, length, place=place))

    position = first.position
    try:
        for chunk in ranges.in_order(fetch, position, size):
            position += len(chunk)
            yield chunk
    except (AccessDenied, Unreachable):
        yield from _repeated(_Download(remote, position, None))


def _repeated(download: _Download) -> Generator[bytes, None, None]:
    """All bytes of a download, which is asked for again where it breaks off."""
    client, resumed_at, fruitless = download.remote.client, download.position, 0
    while not download.done:
        try:
            yield from download.once()
        except _BrokeOff:  # noqa: PERF203  # once per answer, not per byte
            fruitless = 0 if download.position - resumed_at >= BLOCK else fruitless + 1
            resumed_at = download.position
            if fruitless > client.policy.retries:
                raise
            client.pause(fruitless)


def probe_size(remote: Remote) -> int | None:
    """Bytes of `remote` by HEAD, else by asking for its first byte; None if nobody tells.

    Raises:
        Unreachable: no answer.
        SourceError: what `remote.check` raises.
    """
    with remote.client.request("HEAD", remote.url, headers=remote.headers) as response:
        # Some servers answer HEAD with 403 or 405 and GET with the file: GET has the last word.
        if response.status_code == 200:
            remote.check(response)
            size = _content_length(response)
            if size is not None:
                return size
    with remote.client.request("GET", remote.url, headers={**remote.headers, "Range": "bytes=0-0"}) as response:
        remote.check(response)
        return total_size(response)


def document(remote: Remote, *, limit: int) -> bytes:
    """The whole body of a short answer, such as an API's. Raises as `page`."""
    return page(remote, limit=limit)[0]


def page(remote: Remote, *, limit: int) -> tuple[bytes, Mapping[str, str]]:
    """The whole body of a short answer, such as an API's, and its headers.

    Raises:
        Unreachable: no answer, or none that came to its end.
        SourceError: what `remote.check` raises, or more than `limit` bytes.
    """
    for attempt in range(remote.client.policy.retries + 1):
        response = remote.client.request("GET", remote.url, headers=remote.headers)
        try:
            remote.check(response)
            _refuse_encoding(remote, response)
            return b"".join(http.chunks(response, limit=limit)), response.headers
        except Unreachable:
            if attempt == remote.client.policy.retries or response.status_code in http.RETRIED:
                raise
            remote.client.pause(attempt)
        finally:
            response.close()
    raise AssertionError("unreachable: the last try returns or raises")


def total_size(response: requests.Response) -> int | None:
    """Bytes of the whole file that an answer gives, or gives a part of; None if it does not say."""
    return _content_length(response) if response.status_code == 200 else _content_range(response)[1]


def is_page(response: requests.Response) -> bool:
    """Whether an answer is a web page: a login, a licence, a challenge."""
    return response.headers.get("Content-Type", "").partition(";")[0].strip().lower() == "text/html"


def refusal(response: requests.Response, what: str) -> SourceError | None:
    """The error that an answer stands for, or None if it is a file or a part of one."""
    status = response.status_code
    cause = f"the server answered {status}"
    if status in (200, 206, 416):
        return None
    if status in (401, 402, 403, 407, 451):
        return AccessDenied(
            f"{what} may not be downloaded", cause=cause, hint="check that it is public, or that the login is right"
        )
    if status in (404, 410):
        return NotFound(f"{what} does not exist", cause=cause, hint="check the address")
    if status in http.RETRIED or status >= 500:
        return Unreachable(f"{what} cannot be had now", cause=cause, hint="run the command again later")
    return SourceError(f"{what} cannot be had", cause=cause, hint="check the address")


class _BrokeOff(Unreachable):
    """An answer ended early: going on from there may help. The client has tried the other cases itself."""


class _Download:
    """How far a download is, and what is known of the file by now.

    Args:
        place: shared by the downloads of several ranges.
        or_all: where the server takes no ranges, go on to the end of the file.
    """

    def __init__(
        self,
        remote: Remote,
        offset: int,
        length: int | None,
        *,
        place: ranges.Place | None = None,
        or_all: bool = False,
    ) -> None:
        self.remote = remote
        self._place = place
        self._or_all = or_all
        self._size = remote.size
        self._wanted = None if length is None else offset + length
        self._tag: str | None = None
        self._finished = False
        self.position = offset

    @property
    def _end(self) -> int | None:
        """The position after the last byte that is wanted; None if only the server knows."""
        known = [end for end in (self._size, self._wanted) if end is not None]
        return min(known) if known else None

    @property
    def done(self) -> bool:
        """Whether every byte that is wanted has come."""
        return self._finished or (self._end is not None and self.position >= self._end)

    def once(self) -> Iterator[bytes]:
        """What one answer gives, from where the download stands."""
        headers = dict(self.remote.headers)
        if self._wanted is not None:
            headers["Range"] = f"bytes={self.position}-{(self._end or self._wanted) - 1}"
        elif self.position:
            headers["Range"] = f"bytes={self.position}-"
        with self._request(headers) as response:
            self.remote.check(response)
            _refuse_encoding(self.remote, response)
            if response.status_code == 200 and self._or_all:
                self._wanted = None
            skip = self._judge(response)
            if not self.done:
                yield from self._body(response, skip)

    def _request(self, headers: Mapping[str, str]) -> requests.Response:
        if self._place is not None:
            return self._place.request(headers)
        return self.remote.client.request("GET", self.remote.url, headers=headers)

    def _judge(self, response: requests.Response) -> int:
        """Checks that this is (a part of) the same file; gives how many bytes of the body to skip."""
        what = self.remote.what
        tag = None if self.remote.pinned else response.headers.get("ETag")
        if self._tag is not None and tag != self._tag:
            raise ContentMismatch(f"{what} changed while it was downloaded", hint="run the command again")
        self._tag = tag
        start, total = (0, _content_length(response)) if response.status_code == 200 else _content_range(response)
        if response.status_code == 206 and start != self.position:
            raise SourceError(
                f"{what}: the server's answer makes no sense",
                cause=f"byte {self.position} was asked for, {response.headers.get('Content-Range')!r:.80} came",
                hint="run the command again; if it stays so, declare a mirror",
            )
        if self._size is None:
            self._size = total
        elif total is not None and total != self._size:
            raise mismatch(what, f"the server has {total} bytes, {self._size} are pinned")
        if response.status_code == 416 and not self.done:
            raise mismatch(what, f"the server has nothing at byte {self.position}")
        return self.position if response.status_code == 200 else 0

    def _body(self, response: requests.Response, skip: int) -> Iterator[bytes]:
        what, end = self.remote.what, self._end
        with closing(http.chunks(response)) as pieces:
            while not self.done:
                try:
                    whole = next(pieces, b"")
                except Unreachable as error:
                    raise _BrokeOff(error.message, cause=error.cause, hint=error.hint) from None
                if not whole:
                    break
                piece = whole[skip:]
                skip -= len(whole) - len(piece)
                if end is not None and self.position + len(piece) > end:
                    if end == self._size:
                        raise mismatch(what, f"more than {end} bytes came")
                    piece = piece[: end - self.position]
                self.position += len(piece)
                if piece:
                    yield piece
        self._finished = end is None
        if not self.done:
            raise _BrokeOff(
                f"the download of {what} is truncated",
                cause=f"{self.position} of {end} bytes arrived",
                hint="run the command again",
            )


def _refuse_encoding(remote: Remote, response: requests.Response) -> None:
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise SourceError(
            f"{remote.what}: the server insists on compressing the file",
            cause="it was asked for the bytes as they are (Accept-Encoding: identity)",
            hint="use another address",
        )


def _content_length(response: requests.Response) -> int | None:
    value = response.headers.get("Content-Length", "")
    encoded = response.headers.get("Content-Encoding", "identity").lower() != "identity"
    if encoded or not is_count(value) or int(value) > MAX_SIZE:
        return None
    return int(value)


def _content_range(response: requests.Response) -> tuple[int | None, int | None]:
    """First byte and total of a `Content-Range`."""
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if match is None:
        return None, None
    total = int(match[2]) if match[2] != "*" else None
    return (int(match[1]) if match[1] else None), (total if total is None or total <= MAX_SIZE else None)
