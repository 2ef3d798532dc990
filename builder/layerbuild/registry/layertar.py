"""The headers of a layer's tar, read from a stream that nobody has vouched for.

The standard library's tarfile keeps extended headers of any length in memory; a layer may come from
anywhere, so here they are bounded, and bodies are passed over without being kept. What a 512-byte
header means is still tarfile's business.
"""

from __future__ import annotations

import gzip
import io
import posixpath
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Literal, Protocol, cast

from layerbuild.errors import SourceError
from layerbuild.model import Readable
from layerbuild.registry.tarstreams import Bounded
from layerbuild.wire import BLOCK

_RECORD = 512
_LARGEST_EXTENSION = 1024 * 1024
"""Bytes of a PAX or GNU extended header. Honest ones hold a path of 4 KiB and some attributes."""

_LARGEST_WINDOW = 128 * 1024 * 1024
_WORTH_A_REQUEST = 1024 * 1024
"""Bytes of a body from which on it is passed over by a new request instead of being read."""

_LONG_NAMES = {tarfile.GNUTYPE_LONGNAME: "path", tarfile.GNUTYPE_LONGLINK: "linkpath"}
_NUMBERS = ("size", "uid", "gid")


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """One entry. `path` is in normal form without a leading slash; empty for the root itself.

    Attributes:
        target: of a symlink, as written; of a hard link, the path in the image.
        size: bytes of the body.
        mtime: Unix seconds, cut to whole ones as runtimes do.
        offset: where the body begins in the tar, in bytes.
        hardlink: whether it is another name of `target`.
    """

    path: str
    type: str
    mode: int
    uid: int
    gid: int
    target: str
    size: int = 0
    mtime: int = 0
    offset: int = 0
    hardlink: bool = False


class Stream(Protocol):
    """A tar that is read onwards."""

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; fewer only at the end."""

    def skip(self, size: int) -> None:
        """Passes over `size` bytes."""

    def tell(self) -> int:
        """Bytes that were read or passed over."""


def layer_headers(blob: Readable, media_type: str) -> Iterator[Header]:
    """The entries of a layer, in their order. Memory does not grow with the layer.

    Args:
        blob: as the registry stores it.
        media_type: OCI's or Docker's, for a plain, gzip or zstd tar.

    Raises:
        SourceError: the layer is damaged, hostile, or of a type that is not known here.
        LayerbuildError: whatever reading `blob` raises.
    """
    where = f"the layer {blob.digest}"
    with damage_explained(where):
        if compression(media_type, where) == "none":
            stream: Stream = _Plain(blob)
        else:
            stream = Bounded(decoded(blob, media_type, where), packed=blob.size, where=where, hostile=hostile)
        yield from headers(stream, where)
        # the digest of the whole is checked when the whole was read
        while stream.read(BLOCK):
            pass


@contextmanager
def damage_explained(where: str) -> Iterator[None]:
    """What damaged bytes raise, as a `SourceError` that names `where`."""
    import zstandard  # noqa: PLC0415  # only some layers need it

    try:
        yield
    except (tarfile.HeaderError, zlib.error, zstandard.ZstdError, gzip.BadGzipFile, EOFError) as error:
        raise SourceError(f"{where} is damaged", cause=str(error)[:200], hint="take another copy of the base") from None


def compression(media_type: str, where: str) -> Literal["none", "gzip", "zstd"]:
    """How a layer is compressed, by OCI's or Docker's media type.

    Raises:
        SourceError: it is of a type that is not known here.
    """
    kind = media_type.rpartition("+")[2].rpartition(".")[2]
    if kind == "gzip":
        return "gzip"
    if kind == "zstd":
        return "zstd"
    if kind == "tar":
        return "none"
    raise SourceError(
        f"{where} is of the type {media_type[:100]!r}",
        cause="only plain, gzip and zstd tars are known here",
        hint="use a base whose layers are not encrypted or foreign",
    )


def decoded(blob: Readable, media_type: str, where: str) -> Stream:
    """A compressed layer's tar."""
    if compression(media_type, where) == "gzip":
        return _Decoded(gzip.GzipFile(fileobj=_Pieces(blob)).read)
    import zstandard  # noqa: PLC0415

    decoder = zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW)
    return _Decoded(
        decoder.stream_reader(cast(IO[bytes], _Pieces(blob)), read_size=BLOCK, read_across_frames=True).read
    )


def onwards(blob: Readable) -> Stream:
    """A tar that is not compressed, without a jump: every byte is read."""
    return _Decoded(_Pieces(blob).read)


class _Pieces(io.RawIOBase):
    """A `Readable` as a file that can only be read onwards."""

    def __init__(self, blob: Readable) -> None:
        self._pieces = blob.open()
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if not self._rest:
            self._rest = memoryview(next(self._pieces, b""))
        size = len(self._rest) if size < 0 else size
        piece, self._rest = self._rest[:size], self._rest[size:]
        return bytes(piece)


class _Decoded:
    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._offset = 0

    def read(self, size: int) -> bytes:
        found = b""
        while len(found) < size and (piece := self._read(size - len(found))):
            found += piece
        self._offset += len(found)
        return found

    def skip(self, size: int) -> None:
        while size > 0 and (piece := self._read(min(size, BLOCK))):
            self._offset += len(piece)
            size -= len(piece)

    def tell(self) -> int:
        return self._offset


class _Plain:
    """A tar that is not compressed: a large body is skipped by opening the blob anew behind it."""

    def __init__(self, blob: Readable) -> None:
        self._blob = blob
        self._offset = 0
        self._pieces = blob.open()
        self._rest = memoryview(b"")

    def read(self, size: int) -> bytes:
        found = bytearray()
        while len(found) < size:
            if not self._rest:
                self._rest = memoryview(next(self._pieces, b""))
                if not self._rest:
                    break
            piece, self._rest = self._rest[: size - len(found)], self._rest[size - len(found) :]
            found += piece
        self._offset += len(found)
        return bytes(found)

    def skip(self, size: int) -> None:
        if size < _WORTH_A_REQUEST:
            while size > 0 and (piece := self.read(min(size, BLOCK))):
                size -= len(piece)
            return
        self._offset = min(self._offset + size, self._blob.size)
        self._rest = memoryview(b"")
        self._pieces = self._blob.open(self._offset) if self._offset < self._blob.size else iter(())

    def tell(self) -> int:
        return self._offset


def headers(stream: Stream, where: str) -> Iterator[Header]:
    """The entries of a tar, up to its end mark. While it is given one, the caller may read of its body.

    Raises:
        SourceError: it is hostile.
        tarfile.HeaderError: it is damaged (see `damage_explained`).
    """
    extended: dict[str, str] = {}
    while record := stream.read(_RECORD):
        if record == bytes(_RECORD):
            return
        info = tarfile.TarInfo.frombuf(record, "utf-8", "surrogateescape")
        if info.type in _LONG_NAMES:
            value = _extension(stream, info.size, where).partition(b"\0")[0]
            extended.setdefault(_LONG_NAMES[info.type], value.decode("utf-8", "surrogateescape"))
        elif info.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
            extended = _pax(_extension(stream, info.size, where), where)
        elif info.type == tarfile.XGLTYPE:
            _extension(stream, info.size, where)
        else:
            numbers = {key: _number(extended[key], where) for key in _NUMBERS if key in extended}
            size = _body_size(stream, info, numbers.get("size", info.size), record)
            start = stream.tell()
            yield _header(info, extended, numbers, size, start)
            stream.skip(start + -(-size // _RECORD) * _RECORD - stream.tell())
            extended = {}


def _header(info: tarfile.TarInfo, extended: dict[str, str], numbers: dict[str, int], size: int, offset: int) -> Header:
    path = posixpath.normpath("/" + extended.get("path", info.name)).lstrip("/")
    kind = "directory" if info.isdir() else "symlink" if info.issym() else "file"
    return Header(
        path=path,
        type=kind,
        mode=info.mode & 0o7777,
        uid=numbers.get("uid", info.uid),
        gid=numbers.get("gid", info.gid),
        target=extended.get("linkpath", info.linkname),
        size=size,
        mtime=_seconds(extended["mtime"]) if "mtime" in extended else int(info.mtime),
        offset=offset,
        hardlink=info.islnk(),
    )


def _seconds(text: str) -> int:
    """Whole seconds of a PAX time (POSIX.1-2008, pax): a decimal number, may be negative."""
    whole = text.partition(".")[0]
    if not whole.removeprefix("-").isdecimal() or not whole.isascii() or len(whole) > 19:
        raise tarfile.HeaderError("a PAX record holds a time that is none")
    return int(whole)


def _body_size(stream: Stream, info: tarfile.TarInfo, size: int, record: bytes) -> int:
    """Bytes of the body that follows, behind the map of a sparse file."""
    if info.type == tarfile.GNUTYPE_SPARSE and record[482]:
        while (more := stream.read(_RECORD)) and more[504:505] != b"\0":
            pass
    # only files have bodies: for the rest, a size is what a link's target has, or nonsense
    return size if info.isreg() or info.type not in tarfile.SUPPORTED_TYPES else 0


def _extension(stream: Stream, size: int, where: str) -> bytes:
    if not 0 <= size <= _LARGEST_EXTENSION:
        raise SourceError(
            f"{where} has an extended header of {size} bytes",
            cause=f"more than {_LARGEST_EXTENSION} make no sense",
            hint="do not use this base: an honest one has no such header",
        )
    data = stream.read(-(-size // _RECORD) * _RECORD)[:size]
    if len(data) < size:
        raise tarfile.HeaderError("it ends in a header")
    return data


def _pax(data: bytes, where: str) -> dict[str, str]:
    """The records of a PAX header (POSIX.1-2008, pax): `LENGTH KEY=VALUE` and a newline each."""
    found: dict[str, str] = {}
    position = 0
    while position < len(data) and data[position] != 0:
        length, space, _ = data[position : position + 20].partition(b" ")
        if not space or not length.isdigit() or int(length) <= len(length) + 1:
            raise tarfile.HeaderError(f"{where} has a PAX record without a length")
        record = data[position + len(length) + 1 : position + int(length) - 1]
        key, _, value = record.partition(b"=")
        found[key.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
        position += int(length)
    return found


def _number(text: str, where: str) -> int:
    if not text.isdigit() or not text.isascii() or len(text) > 19:
        raise tarfile.HeaderError(f"{where} has a PAX record with a number that is none")
    return int(text)


def hostile(where: str, cause: str) -> SourceError:
    """The error for a layer that no honest program makes."""
    return SourceError(f"{where} makes no sense", cause=cause, hint="do not use it: an honest one is not so")
