"""A blob on its way out: where it may go, and its bytes checked while they are sent."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urldefrag, urljoin

from layerbuild import addresses
from layerbuild.digests import CHUNK, Digester, feed
from layerbuild.errors import ContentMismatch, DestinationError, LayerbuildError, SourceError
from layerbuild.model import Readable
from layerbuild.registry.window import Window
from layerbuild.wire import BLOCK, is_count

_MARK = 64 * 1024 * 1024


class SendFailed(Exception):
    """Reading what is to be sent failed: not the fault of who was to receive it.

    Not a `LayerbuildError`, so that nothing between here and the sender takes it for the network's.
    """

    def __init__(self, failure: LayerbuildError) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Counter:
    """Tells of bytes as they are sent, and can take back what a try that is given up has lost."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        self._advance = advance
        self.total = 0

    def add(self, amount: int) -> None:
        """`amount` more bytes are sent."""
        self.total += amount
        self._advance(amount)

    def rewind(self, total: int) -> None:
        """So many of them count; none if nothing is left of a try."""
        if self.total != total:
            self._advance(total - self.total)
        self.total = total


@dataclass(frozen=True, kw_only=True)
class UploadSession:
    """An upload that a registry has opened.

    Attributes:
        location: its address, which may be a secret in itself.
        least: bytes that a chunk must have that is not the last (OCI-Chunk-Min-Length); 0 for any.
    """

    location: str = field(repr=False)
    least: int = 0


@dataclass(kw_only=True)
class Upload:
    """How far an upload has come.

    Attributes:
        session: where its bytes go.
        kept: bytes that the registry has of it.
        resumed: whether some of them came in an earlier try.
        longest: bytes of a chunk that is tried because a longer one was refused.
        ends: whether what is missing has to go with the PUT that names it.
    """

    session: UploadSession
    kept: int = 0
    resumed: bool = False
    longest: int | None = None
    ends: bool = False


@dataclass(frozen=True, kw_only=True)
class Outgoing:
    """A blob on its way to one repository.

    Attributes:
        title: names it in errors.
        digest: None where it is known only at the end.
    """

    repository: str
    title: str
    window: Window
    sent: Counter
    digest: str | None = None

    @property
    def size(self) -> int:
        """Bytes."""
        return self.window.size


@dataclass(frozen=True, kw_only=True)
class Mount:
    """What became of a mount; true if the blob is there now.

    A refused mount may come with the upload session that the registry opened instead.
    """

    mounted: bool
    session: UploadSession | None = None

    def __bool__(self) -> bool:
        return self.mounted


def session_at(url: str, location: str | None, *, host: str, least: str | None = None) -> UploadSession:
    """The session that the answer of `host` to a request for `url` names in its `Location`.

    Args:
        least: its `OCI-Chunk-Min-Length`.

    Raises:
        DestinationError: it names none, or one that bytes cannot safely go to.
    """
    try:
        target = urldefrag(urljoin(url, location or "")).url
        scheme = addresses.origin(target)[0]
    except ValueError:
        target = scheme = ""
    if not location or scheme not in ("http", "https") or (url.startswith("https:") and scheme == "http"):
        raise DestinationError(
            f"the registry {host} names no usable place to upload to",
            cause=f"its Location is {addresses.redact(target)!r}" if location else "its answer has no Location",
            hint="if it is behind a proxy, that proxy must pass on X-Forwarded-Proto and Host",
        )
    return UploadSession(location=target, least=int(least) if least and is_count(least) else 0)


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


class Proof:
    """The bytes of `blob`, from anywhere on and as often as needed, held against its digest.

    The hash is copied every 64 MiB: what was read once is not read again for a try that begins in the middle.
    """

    def __init__(self, blob: Readable) -> None:
        self._blob = blob
        self._marks = {0: hashlib.sha256()}

    def rest(self, start: int = 0) -> Generator[bytes, None, None]:
        """The bytes from `start` on. The last chunk is given only when all of them are known to be right.

        Bytes before `start` that were not read yet are read first.

        Raises:
            ContentMismatch: the blob is not what its digest and size say.
            LayerbuildError: it cannot be read.
        """
        blob = self._blob
        begin = max(mark for mark in self._marks if mark <= start)
        seen = _Marking(self._marks, begin)
        stream = Stream(open=lambda: blob.open(begin), size=blob.size, title=blob.digest)
        pieces = _right(_fed(stream, seen, begin), blob.digest, seen.hexdigest)
        return _held_back(_after(pieces, start - begin))


class _Marking:
    """A sha256 that leaves copies of itself in `marks` on its way, by how many bytes it has seen."""

    def __init__(self, marks: dict[int, hashlib._Hash], begin: int) -> None:
        self._marks = marks
        self._seen = marks[begin].copy()
        self._count = self._last = begin
        self.hexdigest = self._seen.hexdigest

    def update(self, data: bytes, /) -> None:
        self._seen.update(data)
        self._count += len(data)
        if self._count - self._last >= _MARK:
            self._marks[self._count] = self._seen.copy()
            self._last = self._count


def hashed(stream: Stream, seen: Digester, start: int = 0) -> Generator[bytes, None, None]:
    """The bytes of `stream` from `start` on, and all of them shown to `seen` in a thread of its own.

    The last chunk is given only when nothing can fail any more, and `seen` has seen all.

    Raises:
        ContentMismatch: there are more bytes than `stream.size`, or fewer.
        LayerbuildError: whatever reading raises.
    """
    return _held_back(_after(_fed(stream, seen), start))


def shielded(pieces: Generator[bytes, None, None]) -> Generator[bytes, None, None]:
    """`pieces`, whose errors come as `SendFailed`."""
    try:
        yield from pieces
    except LayerbuildError as error:
        raise SendFailed(error) from None


def telling(pieces: Generator[bytes, None, None], sent: Counter) -> Generator[bytes, None, None]:
    """`pieces`; `sent` is told of each when the next one is asked for."""
    with contextlib.closing(pieces):
        for piece in pieces:
            yield piece
            sent.add(len(piece))


def _held_back(pieces: Generator[bytes, None, None]) -> Generator[bytes, None, None]:
    held = b""
    with contextlib.closing(pieces):
        for piece in pieces:
            if held:
                yield held
            held = piece
        if held:
            yield held


def _after(pieces: Generator[bytes, None, None], count: int) -> Generator[bytes, None, None]:
    """`pieces` without their first `count` bytes."""
    with contextlib.closing(pieces):
        for piece in pieces:
            if count < len(piece):
                yield piece[count:]
            count = max(0, count - len(piece))


def _right(pieces: Generator[bytes, None, None], digest: str, seen: Callable[[], str]) -> Generator[bytes, None, None]:
    yield from pieces
    if f"sha256:{seen()}" != digest:
        raise _changed(digest, f"they have the digest sha256:{seen()}")


def _fed(stream: Stream, seen: Digester, begin: int = 0) -> Generator[bytes, None, None]:
    # a thread for a short body costs more than it wins
    yield from feed(_sized(stream, begin), [seen], threads=stream.size - begin > CHUNK)


def _sized(stream: Stream, count: int) -> Iterator[bytes]:
    """The bytes of `stream`, which is opened at byte `count`, in blocks."""
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
        raise SourceError(
            f"reading {stream.title} failed", cause=cause, hint="check the disk, and who may read there"
        ) from None


def _changed(title: str, cause: str) -> ContentMismatch:
    return ContentMismatch(
        f"the bytes of {title} are not what they should be",
        cause=cause,
        hint="a file changed since it was looked at: run the command again",
    )
