"""A blob on its way in: cut to what was asked for, and checked when it has all come."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from layerbuild.errors import ContentMismatch
from layerbuild.model import Readable


@dataclass(frozen=True, kw_only=True)
class Counted:
    """A blob that tells `count` of the bytes that are read of it (`model.Readable`)."""

    blob: Readable
    count: Callable[[int], None]

    @property
    def digest(self) -> str:
        """`sha256:<hex>`."""
        return self.blob.digest

    @property
    def size(self) -> int:
        """Bytes."""
        return self.blob.size

    def open(self, offset: int = 0) -> Iterator[bytes]:
        """See `Readable.open`."""
        for piece in self.blob.open(offset):
            self.count(len(piece))
            yield piece


def window(pieces: Iterator[bytes], skip: int, length: int | None) -> Iterator[bytes]:
    """`pieces` without their first `skip` bytes, and at most `length` of the rest."""
    left = length
    for piece in pieces:
        part = piece[skip:]
        skip = max(0, skip - len(piece))
        if left is not None:
            part = part[:left]
            left -= len(part)
        if part:
            yield part
        if left == 0:
            return


def sized(pieces: Iterator[bytes], size: int, what: str) -> Iterator[bytes]:
    """`pieces`, of which there must be `size` bytes.

    Raises:
        ContentMismatch: there are more, or fewer.
    """
    left = size
    for piece in pieces:
        left -= len(piece)
        if left < 0:
            raise mismatch(what, f"there are more than the {size} bytes that there should be")
        yield piece
    if left:
        raise mismatch(what, f"there are {size - left} bytes where there should be {size}")


def verified(pieces: Iterator[bytes], digest: str, what: str) -> Iterator[bytes]:
    """`pieces`, which must have the sha256 digest `digest`.

    Raises:
        ContentMismatch: they have another.
    """
    seen = hashlib.sha256()
    for piece in pieces:
        seen.update(piece)
        yield piece
    if f"sha256:{seen.hexdigest()}" != digest:
        raise mismatch(what, f"the bytes there have the digest sha256:{seen.hexdigest()}")


def mismatch(what: str, cause: str) -> ContentMismatch:
    """The error for `what` is there and is not what it should be."""
    return ContentMismatch(
        f"{what} is damaged", cause=cause, hint="take another copy; in a layout delete that file, and push again"
    )
