"""Blobs of an artifact as bytes: by ranges where they are plain, onwards where they are packed.

A read that breaks off goes on where it stopped. What was read from its first byte to its last is held
against the blob's digest, however many requests it took.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, cast

from layerbuild.model import Content, Descriptor
from layerbuild.registry import receiving
from layerbuild.registry.layertar import (
    Header,
    Stream,
    compression,
    damage_explained,
    decoded,
    headers,
    hostile,
    onwards,
)
from layerbuild.registry.tarstreams import Bounded, RangeStream
from layerbuild.wire import BLOCK

if TYPE_CHECKING:
    from collections.abc import Generator

    from layerbuild.registry.client import RegistryClient

MOST_ENTRIES = 500_000
"""Paths of the layers that are looked through. A webui with torch and every extension has about 100,000."""


_LARGEST = 2**53
"""Bytes beyond which a size is nonsense."""


class Blob:
    """A blob of a registry (`model.Readable`).

    Args:
        advance: is told of bytes that arrive.
    """

    def __init__(
        self,
        registry: RegistryClient,
        repository: str,
        descriptor: Descriptor,
        advance: Callable[[int], None] = lambda amount: None,
    ) -> None:
        self.digest = descriptor.digest
        self.size = descriptor.size
        self._registry = registry
        self._repository = repository
        self._advance = advance
        self._what = f"the blob {descriptor.digest} of {registry.host}/{repository}"

    def open(self, offset: int = 0) -> Iterator[bytes]:
        """See `Readable.open`."""
        pieces = self.part(offset, None)
        return receiving.verified(pieces, self.digest, self._what) if offset == 0 else pieces

    def part(self, offset: int, length: int | None) -> Iterator[bytes]:
        """Bytes from `offset` on, at most `length` of them.

        Raises:
            ContentMismatch: there are fewer bytes, or more.
            Unreachable: it breaks off again and again without progress.
            LayerbuildError: the registry refuses.
        """
        end = self.size if length is None else min(self.size, offset + length)
        return receiving.sized(self._parts(offset, end), max(0, end - offset), self._what)

    def _parts(self, position: int, end: int) -> Iterator[bytes]:
        if position >= end:
            return
        pieces = self._registry.open_blob(self._repository, self.digest, offset=position, length=end - position)
        with closing(cast("Generator[bytes, None, None]", pieces)):
            for piece in pieces:
                self._advance(len(piece))
                yield piece


@dataclass(frozen=True, kw_only=True)
class Tar:
    """A blob that is a tar, plain or compressed.

    Raises (all of its methods):
        SourceError: it is damaged, hostile, or of a type that is not known here.
        LayerbuildError: whatever reading the blob raises.
    """

    blob: Blob
    media_type: str

    @property
    def _where(self) -> str:
        return f"the layer {self.blob.digest}"

    @property
    def packed(self) -> bool:
        """Whether it is compressed: then it is read from its first byte on, whatever is wanted of it."""
        return compression(self.media_type, self._where) != "none"

    def entries(self) -> Iterator[tuple[Header, Callable[[], Iterator[bytes]]]]:
        """Every entry, and what gives its body before the next one is asked for.

        A compressed tar that is read to its end is held against its digest. Of a plain one, large bodies are
        not transferred.
        """
        where = self._where
        with damage_explained(where):
            stream = self._onwards() if self.packed else RangeStream(self._range, self.blob.size)
            for count, header in enumerate(headers(stream, where)):
                if count >= MOST_ENTRIES:
                    raise hostile(where, "it has too many entries")
                end = header.offset + header.size
                if not 0 <= header.size <= _LARGEST or (end > self.blob.size and not self.packed):
                    raise hostile(where, f"it has a file of {header.size} bytes")
                yield header, partial(self._file, stream, header.size)
            if self.packed:
                _drain(stream)

    def _range(self, offset: int, length: int) -> bytes:
        return b"".join(self.blob.part(offset, length))

    def _file(self, stream: Stream, size: int) -> Iterator[bytes]:
        with damage_explained(self._where):
            yield from _body(stream, size)

    def taken(self, header: Header, take: Callable[[Iterator[bytes]], Content]) -> Content:
        """What `take` says of a file's bytes. The whole blob is read, and held against its digest."""
        with damage_explained(self._where):
            stream = self._onwards()
            # Where it lies was said by ranges, perhaps, which nobody can hold against the digest.
            found = next((h for h in headers(stream, self._where) if h.offset >= header.offset), None)
            if found != header:
                raise hostile(self._where, f"where {header.path} should begin is something else")
            content = take(_body(stream, header.size))
            _drain(stream)
        return content

    def part(self, offset: int, length: int) -> Iterator[bytes]:
        """Bytes of the unpacked tar from `offset` on."""
        if not self.packed:
            yield from receiving.sized(self.blob.part(offset, length), length, f"a file of {self._where}")
            return
        with damage_explained(self._where):
            stream = self._onwards()
            _skip(stream, offset)
            yield from _body(stream, length)

    def _onwards(self) -> Stream:
        """The tar from its beginning, without a jump."""
        where = self._where
        if self.packed:
            stream = decoded(self.blob, self.media_type, where)
            return Bounded(stream, packed=self.blob.size, where=where, hostile=hostile)
        return onwards(self.blob)


def _body(stream: Stream, size: int) -> Iterator[bytes]:
    while size > 0:
        piece = stream.read(min(size, BLOCK))
        if not piece:
            raise EOFError("it ends in a file")
        size -= len(piece)
        yield piece


def _skip(stream: Stream, size: int) -> None:
    for _ in _body(stream, size):
        pass


def _drain(stream: Stream) -> None:
    while stream.read(BLOCK):
        pass
