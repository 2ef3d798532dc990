"""A blob on its way out: where it may go, and its bytes checked while they are sent."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urljoin

from layerbuild import addresses
from layerbuild.digests import CHUNK, Digester, feed
from layerbuild.errors import ContentMismatch, DestinationError, LayerbuildError, SourceError
from layerbuild.http import BLOCK
from layerbuild.model import Readable


class SendFailed(Exception):
    """Reading what is to be sent failed: not the fault of who was to receive it.

    Not a `LayerbuildError`, so that nothing between here and the sender takes it for the network's.
    """

    def __init__(self, failure: LayerbuildError) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Counter:
    """Tells of bytes as they are sent, and can take them back when a try is given up."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        self._advance = advance
        self.total = 0

    def add(self, amount: int) -> None:
        """`amount` more bytes are sent."""
        self.total += amount
        self._advance(amount)

    def take_back(self) -> None:
        """None of them counts."""
        if self.total:
            self._advance(-self.total)
        self.total = 0


@dataclass(frozen=True, kw_only=True)
class UploadSession:
    """An upload that a registry has opened. Its address may be a secret in itself."""

    location: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Mount:
    """What became of a mount; true if the blob is there now.

    A refused mount may come with the upload session that the registry opened instead.
    """

    mounted: bool
    session: UploadSession | None = None

    def __bool__(self) -> bool:
        return self.mounted


def session_at(url: str, location: str | None, *, host: str) -> UploadSession:
    """The session that the answer of `host` to a request for `url` names in its `Location`.

    Raises:
        DestinationError: it names none, or one that bytes cannot safely go to.
    """
    try:
        target = urljoin(url, location or "")
        scheme = addresses.origin(target)[0]
    except ValueError:
        target = scheme = ""
    if not location or scheme not in ("http", "https") or (url.startswith("https:") and scheme == "http"):
        raise DestinationError(
            f"the registry {host} names no usable place to upload to",
            cause=f"its Location is {addresses.redact(target)!r}" if location else "its answer has no Location",
            hint="if it is behind a proxy, that proxy must pass on X-Forwarded-Proto and Host",
        )
    return UploadSession(location=target)


@dataclass(frozen=True, kw_only=True)
class Stream:
    """Bytes to be sent.

    Attributes:
        open: opens them, anew for every try.
        size: how many there must be.
        title: names them in errors.
    """

    open: Callable[[], Iterator[bytes]]
    size: int
    title: str


def checked(blob: Readable, sent: Counter) -> Generator[bytes, None, None]:
    """The bytes of `blob`. The last chunk is given only when all of them are known to be right.

    Args:
        sent: told of the bytes of each chunk when the next one is asked for.

    Raises:
        ContentMismatch: `blob` is not what its digest and size say.
        LayerbuildError: it cannot be read.
    """
    seen = hashlib.sha256()
    pieces = _fed(Stream(open=blob.open, size=blob.size, title=blob.digest), seen)
    return _held_back(_right(pieces, blob.digest, seen.hexdigest), sent)


def hashed(stream: Stream, seen: Digester, sent: Counter) -> Generator[bytes, None, None]:
    """The bytes of `stream`, each shown to `seen` in a thread of its own.

    The last chunk is given only when nothing can fail any more, and `seen` has seen all.

    Args:
        sent: told of the bytes of each chunk when the next one is asked for.

    Raises:
        ContentMismatch: there are more bytes than `stream.size`, or fewer.
        LayerbuildError: whatever reading raises.
    """
    return _held_back(_fed(stream, seen), sent)


def shielded(pieces: Generator[bytes, None, None]) -> Generator[bytes, None, None]:
    """`pieces`, whose errors come as `SendFailed`."""
    try:
        yield from pieces
    except LayerbuildError as error:
        raise SendFailed(error) from None


def _held_back(pieces: Generator[bytes, None, None], sent: Counter) -> Generator[bytes, None, None]:
    held = b""
    with contextlib.closing(pieces):
        for piece in pieces:
            if held:
                yield held
                sent.add(len(held))
            held = piece
        if held:
            yield held
            sent.add(len(held))


def _right(pieces: Generator[bytes, None, None], digest: str, seen: Callable[[], str]) -> Generator[bytes, None, None]:
    yield from pieces
    if f"sha256:{seen()}" != digest:
        raise _changed(digest, f"they have the digest sha256:{seen()}")


def _fed(stream: Stream, seen: Digester) -> Generator[bytes, None, None]:
    # a thread for a short body costs more than it wins
    yield from feed(_sized(stream), [seen], threads=stream.size > CHUNK)


def _sized(stream: Stream) -> Iterator[bytes]:
    count = 0
    for piece in _read(stream):
        count += len(piece)
        if count > stream.size:
            raise _changed(stream.title, f"there are more than the {stream.size} bytes that there should be")
        yield from _blocks(piece)
    if count != stream.size:
        raise _changed(stream.title, f"there are {count} bytes where there should be {stream.size}")


def _blocks(piece: bytes) -> Iterator[bytes]:
    """`piece` in views of at most `BLOCK` bytes: what waits for a thread or the network keeps few pieces alive."""
    view = memoryview(piece)
    for start in range(0, len(piece), BLOCK):
        yield cast(bytes, view[start : start + BLOCK])


def _read(stream: Stream) -> Iterator[bytes]:
    try:
        yield from stream.open()
    except OSError as error:
        cause = error.strerror or type(error).__name__
        raise SourceError(f"reading {stream.title} failed", cause=cause) from None


def _changed(title: str, cause: str) -> ContentMismatch:
    return ContentMismatch(
        f"the bytes of {title} are not what they should be",
        cause=cause,
        hint="a file changed since it was looked at: run the command again",
    )
