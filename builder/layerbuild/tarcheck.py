"""Bytes that claim to be a layer, held against what the layer must be: entry by entry, as they come.

What `TarStream` makes itself is compared byte for byte, contents by the digest that pins them. Nothing is
unpacked to disk and nothing is kept: memory is flat. Reading ends where the described tar would have ended, or
at the first difference, so a bomb costs no more than a few buffers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from typing import NoReturn

from layerbuild.digests import CHUNK, Digester, GitBlob, feed
from layerbuild.errors import ContentMismatch, SourceError
from layerbuild.model import Readable
from layerbuild.registry.layertar import compression, damage_explained, decoded
from layerbuild.tarstream import Segment, TarStream
from layerbuild.wire import BLOCK

Advance = Callable[[int], None]
Use = Callable[[Iterator[bytes]], object]
"""Reads the bytes of a tar to the end, for another purpose in the same pass."""


def largest_blob(size: int) -> int:
    """Bytes that a compressed tar of `size` bytes may have: compressors never add more than a little."""
    return size + size // 64 + 64 * 1024


def drain(chunks: Iterator[bytes]) -> None:
    """The `Use` of who wants nothing but the check."""
    for _ in chunks:
        pass


def check_layer(
    blob: Readable, media_type: str, tar: TarStream, *, where: str, advance: Advance, use: Use = drain
) -> str:
    """Read a blob to its end, and hold it against `tar`. Returns its diffID, `sha256:<hex>`.

    Args:
        blob: as a registry stores it; reading all of it must hold it against its digest.
        media_type: OCI's or Docker's, for a plain, gzip or zstd tar.
        where: names the layer in messages.
        advance: is told of the bytes of the tar as they are seen.
        use: is given the tar's bytes, of which only those before the first difference are sure.

    Raises:
        ContentMismatch: it is another tar; the cause names the first entry that differs.
        SourceError: it is damaged, or of a type that is not known here.
        LayerbuildError: whatever reading raises.
    """
    plain = compression(media_type, where) == "none"
    if plain and blob.size != tar.size:
        raise _mismatch(where, f"it has {blob.size} bytes, {tar.size} are pinned")
    if not plain and blob.size > largest_blob(tar.size):
        raise _mismatch(where, f"it has {blob.size} compressed bytes, {tar.size} unpacked ones are pinned")
    pieces = blob.open() if plain else _unpacked(blob, media_type, where)
    with damage_explained(where), closing(_counted(pieces, advance)) as chunks:
        if plain:
            # Its digest is the tar's, and reading holds it against that already.
            _compare(chunks, tar, where, use, [])
            return blob.digest
        return check_tar(chunks, tar, where=where, use=use)


def check_tar(chunks: Iterable[bytes], tar: TarStream, *, where: str, use: Use = drain) -> str:
    """Hold a tar's bytes against `tar`. Returns their digest, `sha256:<hex>`.

    Raises:
        ContentMismatch: they are not what was described; no more of them is read.
    """
    whole = hashlib.sha256()
    _compare(chunks, tar, where, use, [whole])
    return f"sha256:{whole.hexdigest()}"


def _compare(chunks: Iterable[bytes], tar: TarStream, where: str, use: Use, digesters: Sequence[Digester]) -> None:
    comparer = _Comparer(tar, where)
    try:
        use(feed(chunks, [*digesters, comparer], threads=tar.size > CHUNK))
    except SourceError as error:
        # A damaged blob also fails as a whole, at its end: which entry it is says more.
        raise comparer.refusal or error from None
    comparer.finish()


def diff_id(blob: Readable, media_type: str, *, where: str, advance: Advance) -> str:
    """The diffID of a layer that nobody described, `sha256:<hex>`: the digest of what it unpacks to.

    Args and errors are those of `check_layer`.
    """
    plain = compression(media_type, where) == "none"
    whole = hashlib.sha256()
    pieces = blob.open() if plain else _unpacked(blob, media_type, where)
    with damage_explained(where), closing(_counted(pieces, advance)) as chunks:
        for chunk in chunks:
            whole.update(chunk)
    return f"sha256:{whole.hexdigest()}"


def _counted(pieces: Iterator[bytes], advance: Advance) -> Generator[bytes, None, None]:
    for piece in pieces:
        advance(len(piece))
        yield piece


def _unpacked(blob: Readable, media_type: str, where: str) -> Iterator[bytes]:
    stream = decoded(blob, media_type, where)
    while piece := stream.read(BLOCK):
        yield piece


class _Comparer:
    """A digester that knows what must come (`digests.Digester`)."""

    def __init__(self, tar: TarStream, where: str) -> None:
        self._tar = tar
        self._where = where
        self._index = 0
        self._within = 0
        self._digest = _digest_of(tar.segments[0])
        self.refusal: ContentMismatch | None = None

    def update(self, data: bytes, /) -> None:
        """The next bytes.

        Raises:
            ContentMismatch: they are not what was described.
        """
        view = memoryview(data)
        while view:
            if self._index == len(self._tar.segments):
                self._refuse(f"it goes on after its {self._tar.size} bytes")
            segment = self._tar.segments[self._index]
            piece, view = view[: segment.size - self._within], view[segment.size - self._within :]
            self._compare(segment, piece)
            self._within += len(piece)
            if self._within == segment.size:
                self._finish_segment(segment)

    def _compare(self, segment: Segment, piece: memoryview) -> None:
        if self._digest is not None:
            self._digest.update(piece)
        elif segment.data is not None:
            wanted = segment.data[self._within : self._within + len(piece)]
            if piece != wanted:
                same = next(i for i, (a, b) in enumerate(zip(piece, wanted, strict=True)) if a != b)
                self._refuse_at(segment.start + self._within + same)

    def _finish_segment(self, segment: Segment) -> None:
        if self._digest is not None and segment.content is not None:
            found = self._digest.hexdigest()
            if found != (segment.content.sha256 or segment.content.git_blob):
                self._refuse(f"{self._tar.path_at(segment.start)} has the digest {found}, not {segment.content.id}")
        self._index += 1
        self._within = 0
        if self._index < len(self._tar.segments):
            self._digest = _digest_of(self._tar.segments[self._index])

    def _refuse_at(self, offset: int) -> None:
        path = self._tar.path_at(offset)
        what = f"the entry {path} has another header or other bytes" if path is not None else "its end is another"
        self._refuse(f"{what}, from byte {offset} of the tar on")

    def _refuse(self, cause: str) -> NoReturn:
        self.refusal = _mismatch(self._where, cause)
        raise self.refusal

    def finish(self) -> None:
        """To be called after the last byte.

        Raises:
            ContentMismatch: there should be more.
        """
        if self._index < len(self._tar.segments):
            seen = self._tar.segments[self._index].start + self._within
            self._refuse(f"it ends after {seen} of {self._tar.size} bytes")


def _digest_of(segment: Segment) -> hashlib._Hash | GitBlob | None:
    if segment.content is None:
        return None
    return hashlib.sha256() if segment.content.sha256 else GitBlob(segment.size)


def _mismatch(where: str, cause: str) -> ContentMismatch:
    return ContentMismatch(
        f"{where} is not what the lock pins", cause=cause, hint="do not use it; push the image again from the lock"
    )
