"""Reading files of the store, and holding what arrives against what was pinned."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path

from layerbuild.digests import CHUNK
from layerbuild.errors import ContentMismatch, Damaged, StoreError
from layerbuild.model import Content

Advance = Callable[[int], None]


def drain(passing: Generator[bytes, None, Content], advance: Advance) -> Content:
    """Runs bytes that are checked on the way to their end; returns what they were."""
    found: list[Content] = []

    def passed() -> Iterator[bytes]:
        found.append((yield from passing))

    for chunk in passed():
        advance(len(chunk))
    return found[0]


def read(path: Path, offset: int) -> Iterator[bytes]:
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(offset)
            while chunk := file.read(CHUNK):
                yield chunk
    except OSError as error:
        raise unreadable(path, error) from None


def size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise unreadable(path, error) from None


def unreadable(path: Path, error: OSError) -> StoreError:
    return StoreError(f"{path} cannot be read", cause=error.strerror, hint="check its disk, and who may read it")


def damaged(path: Path) -> Damaged:
    return Damaged(f"{path} was damaged, and has been removed", hint="run the command again: it will be made anew")


def limited(chunks: Iterable[bytes], expected: Content, name: str) -> Iterator[bytes]:
    """Stops a source that sends more than was pinned before the disk is full of it."""
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if expected.size is not None and size > expected.size:
            raise ContentMismatch(
                f"{name} is longer than the {expected.size} bytes that were pinned",
                hint="the source has changed: run 'layerbuild lock --update NAME' if that is right",
            )
        yield chunk


def compare(found: Content, expected: Content, name: str) -> None:
    pairs = (
        ("size", expected.size, found.size),
        ("sha256", expected.sha256, found.sha256),
        ("git blob", expected.git_blob, found.git_blob),
    )
    for what, wanted, got in pairs:
        if wanted is not None and got is not None and wanted != got:
            raise ContentMismatch(
                f"{name} is not what was pinned",
                cause=f"its {what} is {got}, pinned is {wanted}",
                hint="the source has changed or is damaged: check it, then 'layerbuild lock --update NAME'",
            )
