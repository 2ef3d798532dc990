"""Entries and contents become tar bytes: any range of them, never a file on disk.

POSIX.1-2001 ustar headers. Sizes from 8 GiB on are GNU base-256 numbers with GNU magic, because
some scanners ignore PAX sizes; PAX extended headers carry paths and link targets that ustar cannot
hold. Owners are numeric, names empty. The order is that of the entries.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from layerbuild.errors import LayerbuildError
from layerbuild.model import MTIME, Content, Entry

BLOCK = 512
_END = b"\0" * (2 * BLOCK)
_OCTAL_SIZE_LIMIT = 8 * 1024**3
_TYPE = {"file": b"0", "symlink": b"2", "directory": b"5"}

OpenContent = Callable[[Content, int], Iterator[bytes]]
"""Yields a content's bytes from an offset to its end."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A run of the tar: bytes made here, or a content."""

    start: int
    size: int
    data: bytes | None = None
    content: Content | None = None


class TarStream:
    """A tar that exists only as a description. Sizes and offsets are bytes.

    Raises:
        LayerbuildError: an entry's content has no known size, or a number does not fit its field.
    """

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.segments: list[Segment] = []
        self.size = 0
        self._made = bytearray()
        self._paths: list[str] = []
        self._path_starts: list[int] = []
        for entry in entries:
            self._add_entry(entry)
        self._made += _END
        self._flush()
        self._starts = [segment.start for segment in self.segments]

    def _add_entry(self, entry: Entry) -> None:
        self._paths.append(entry.path)
        self._path_starts.append(self.size + len(self._made))
        size = 0
        if entry.type == "file":
            size = len(entry.data) if entry.data is not None else _known_size(entry)
        self._made += headers(entry, size)
        if entry.data is not None:
            self._made += entry.data
        elif size:
            self._flush()
            self.segments.append(Segment(start=self.size, size=size, content=entry.content))
            self.size += size
        self._made += b"\0" * (-size % BLOCK)

    def _flush(self) -> None:
        if self._made:
            self.segments.append(Segment(start=self.size, size=len(self._made), data=bytes(self._made)))
            self.size += len(self._made)
            self._made.clear()

    @property
    def contents(self) -> list[Content]:
        """Every content, in the order in which it is read."""
        return [segment.content for segment in self.segments if segment.content is not None]

    def path_at(self, offset: int) -> str | None:
        """Path of the entry that the byte at `offset` belongs to, None if it is of the end mark or beyond."""
        if offset >= self.size - len(_END):
            return None
        return self._paths[bisect.bisect_right(self._path_starts, offset) - 1]

    def read(self, open_content: OpenContent, offset: int = 0) -> Iterator[bytes]:
        """The tar's bytes from `offset` to the end."""
        index = bisect.bisect_right(self._starts, offset) - 1
        for segment in self.segments[index:]:
            skip = max(0, offset - segment.start)
            if segment.data is not None:
                if skip < segment.size:
                    yield segment.data[skip:]
            elif segment.content is not None:
                yield from open_content(segment.content, skip)


def _known_size(entry: Entry) -> int:
    if entry.content is None or entry.content.size is None:
        raise LayerbuildError(f"the size of {entry.path} is not known", hint="run 'layerbuild lock'")
    return entry.content.size


def headers(entry: Entry, size: int) -> bytes:
    """The header blocks of one entry whose content has `size` bytes."""
    path = entry.path.encode() + (b"/" if entry.type == "directory" else b"")
    target = (entry.target or "").encode()
    pax: dict[str, bytes] = {}
    # GNU's header has other fields where ustar has the prefix: a long path goes into PAX there.
    split = _split(path)
    if split is None or (split[0] and size >= _OCTAL_SIZE_LIMIT):
        pax["path"] = path
    if len(target) > 100 or not target.isascii():
        pax["linkpath"] = target
    prefix, name = (b"", path[:100]) if split is None or "path" in pax else split
    block = _header(entry, name, prefix, target[:100], size)
    if not pax:
        return block
    records = b"".join(_pax_record(key, value) for key, value in sorted(pax.items()))
    extended = Entry(path="././@PaxHeader", type="file", mode=0o644)
    head = _header(extended, b"././@PaxHeader", b"", b"", len(records), typeflag=b"x")
    return head + records + b"\0" * (-len(records) % BLOCK) + block


def _split(path: bytes) -> tuple[bytes, bytes] | None:
    """ustar's prefix and name, None where the path does not fit or is not ASCII."""
    if not path.isascii():
        return None
    if len(path) <= 100:
        return b"", path
    cut = path.find(b"/", max(1, len(path) - 101))
    while cut != -1 and cut <= 155:
        name = path[cut + 1 :]
        if name and len(name) <= 100:
            return path[:cut], name
        cut = path.find(b"/", cut + 1)
    return None


def _header(
    entry: Entry, name: bytes, prefix: bytes, target: bytes, size: int, *, typeflag: bytes | None = None
) -> bytes:
    gnu = size >= _OCTAL_SIZE_LIMIT
    fields = (
        name.ljust(100, b"\0"),
        _octal(entry.mode, 8),
        _octal(entry.uid, 8),
        _octal(entry.gid, 8),
        b"\x80" + size.to_bytes(11, "big") if gnu else _octal(size, 12),
        _octal(MTIME, 12),
        b" " * 8,
        typeflag or _TYPE[entry.type],
        target.ljust(100, b"\0"),
        b"ustar  \0" if gnu else b"ustar\x0000",
        b"\0" * 64,
        b"\0" * 16 if gnu else _octal(0, 8) * 2,
        prefix.ljust(155, b"\0"),
        b"\0" * 12,
    )
    block = b"".join(fields)
    checksum = b"%06o\0 " % sum(block)
    return block[:148] + checksum + block[156:]


def _octal(value: int, width: int) -> bytes:
    text = b"%0*o\0" % (width - 1, value)
    if len(text) != width:
        raise LayerbuildError(f"{value} does not fit a tar header", hint="user and group ids end at 2097151")
    return text


def _pax_record(key: str, value: bytes) -> bytes:
    """`LENGTH KEY=VALUE\\n`, where LENGTH counts itself (POSIX.1-2001, pax, "Extended Header")."""
    rest = b" " + key.encode() + b"=" + value + b"\n"
    length = len(rest)
    while len(str(length)) + len(rest) != length:
        length = len(str(length)) + len(rest)
    return str(length).encode() + rest
