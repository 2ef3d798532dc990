"""Finds the pickles of a file as `torch.load` does: in a zip archive, in the older row of pickles, or as one pickle.

Everything in a file may be a lie: sizes, offsets and names are held against each other before anything is
read, and what is read is bounded. Zip: PKWARE's APPNOTE, 4.3; torch's names in it:
`caffe2/serialize/inline_container.h`.
"""

from __future__ import annotations

import re
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from layerbuild.pickles.refusal import NoPickle, Refusal
from layerbuild.pickles.walk import Walk, walk

MAX_PICKLE = 8 * 1024 * 1024
"""Bytes of one pickle. Tensors lie outside of it: that of SDXL has 400 KB."""

_MAX_DIRECTORY = 4 * 1024 * 1024
"""Bytes of a zip's directory: 40,000 tensors."""

_MAGIC = 0x1950A86A20F9469CFC6C
"""The first pickle of a file of torch before 1.6."""

_ROW = 5
"""Pickles of such a file: magic, protocol, system, object, keys of storages. Then raw tensors."""

_MAX_PLAIN = 64
_BLOCK = 512
_END = 22
_END64 = 56
_LOCATOR = 20
_LOCAL = 30
_LARGE = 0xFFFFFFFF
_MEMBER = re.compile(
    r"[^/]{1,255}/(?:data/[0-9]{1,9}|version|byteorder|data\.pkl|\.data/serialization_id|\.format_version|\.storage_alignment)"
)
"""What `torch.save` writes. TorchScript's archives hold code besides."""


def pickles(file: BinaryIO, size: int) -> Iterator[tuple[bytes, Walk]]:
    """Every pickle that loading the file would run, in order, and what was seen of it.

    Raises:
        NoPickle: it cannot be one.
        Refusal: it cannot be told what would be run.
    """
    head = _read(file, 0, min(size, _BLOCK))
    if head.startswith(b"PK\x03\x04"):
        yield _of_zip(file, size)
    elif _is_tar(head):
        raise Refusal("it is a tar archive, as torch wrote them before 0.1.10")
    else:
        yield from _row(_read(file, 0, min(size, MAX_PICKLE)), size)


def _row(data: bytes, size: int) -> Iterator[tuple[bytes, Walk]]:
    """Pickles one after the other."""
    place, count, torch = 0, 0, False
    while place < size and not (torch and count == _ROW):
        if place >= len(data):
            raise Refusal(f"its pickles have more than {MAX_PICKLE} bytes, too many to look at")
        if count == _MAX_PLAIN:
            raise Refusal(f"it has more than {_MAX_PLAIN} pickles")
        try:
            found = walk(data[place:])
        except NoPickle:
            if count == 0:
                raise
            raise Refusal("something else follows its pickle") from None
        torch = torch or (count == 0 and found.number == _MAGIC)
        yield data[place : place + found.size], found
        place += found.size
        count += 1
    if not count:
        raise NoPickle("it is empty")
    if torch and count < _ROW:
        raise Refusal(f"it ends after {count} of {_ROW} pickles")


def _of_zip(file: BinaryIO, size: int) -> tuple[bytes, Walk]:
    """The one pickle of an archive."""
    start, length = _directory(file, size)
    if length == 0:
        raise Refusal("its zip archive is empty")
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, EOFError) as error:
        raise Refusal(f"its zip archive is damaged ({str(error)[:120]})") from None
    _check_names(members)
    end = 0
    for member in sorted(members, key=lambda m: m.header_offset):
        end = _place(file, member, after=end, before=start)[1]
    pickle = next((member for member in members if member.orig_filename.endswith("/data.pkl")), None)
    if pickle is None:
        raise Refusal("its zip archive holds no data.pkl")
    if pickle.file_size > MAX_PICKLE:
        raise Refusal(f"its pickle has {pickle.file_size} bytes, too many to look at")
    first, last = _place(file, pickle, after=0, before=start)
    data = _read(file, first, last - first)
    try:
        found = walk(data)
    except NoPickle:
        raise Refusal("its data.pkl is no pickle") from None
    return data[: found.size], found


def _check_names(members: Sequence[zipfile.ZipInfo]) -> None:
    names = [member.orig_filename for member in members]
    strange = next((name for name in names if not _MEMBER.fullmatch(name)), None)
    if strange is not None:
        raise Refusal(f"its zip archive holds {strange[:120]!r}, which torch.save does not write")
    if len({name.lower() for name in names}) != len(names) or len({name.split("/")[0] for name in names}) != 1:
        raise Refusal("its zip archive has two files of one name, or two directories")


def _directory(file: BinaryIO, size: int) -> tuple[int, int]:
    """Where the directory of a zip archive begins, and its bytes: it must be where all readers look."""
    end = _read(file, max(0, size - _END), _END)
    if len(end) < _END or not end.startswith(b"PK\x05\x06") or end[20:] != b"\0\0":
        raise Refusal("its zip archive does not end as one")
    length, start, after = _number(end[12:16]), _number(end[16:20]), size - _END
    locator = _read(file, max(0, after - _LOCATOR), _LOCATOR)
    if locator.startswith(b"PK\x06\x07"):
        after = _number(locator[8:16])
        last = _read(file, after, _END64)
        if after + _END64 != size - _END - _LOCATOR or not last.startswith(b"PK\x06\x06"):
            raise Refusal("its zip archive does not end as one")
        small, (length, start) = (length, start), (_number(last[40:48]), _number(last[48:56]))
        if any(a not in (_LARGE, b) for a, b in zip(small, (length, start), strict=True)):
            raise Refusal("its zip archive has two directories")
    elif _LARGE in (length, start):
        raise Refusal("its zip archive does not end as one")
    if length > _MAX_DIRECTORY:
        raise Refusal(f"its zip archive has a directory of {length} bytes, too many to look at")
    if start + length != after:
        raise Refusal("its zip archive has something before or behind its directory")
    return start, length


def _place(file: BinaryIO, member: zipfile.ZipInfo, *, after: int, before: int) -> tuple[int, int]:
    """Where a member's bytes begin and end; they must lie between others, as they are, and be called the same there."""
    name = member.orig_filename[:120]
    if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
        raise Refusal(f"{name!r} in its zip archive is compressed, and torch.save compresses nothing")
    if member.flag_bits & 0x41:
        raise Refusal(f"{name!r} in its zip archive is encrypted")
    local = _read(file, member.header_offset, _LOCAL)
    if len(local) < _LOCAL or not local.startswith(b"PK\x03\x04") or member.header_offset < after:
        raise Refusal(f"{name!r} in its zip archive is not where its directory says")
    called, extra = _number(local[26:28]), _number(local[28:30])
    first = member.header_offset + _LOCAL + called + extra
    if first + member.file_size > before:
        raise Refusal(f"{name!r} in its zip archive goes beyond its end")
    told = _read(file, member.header_offset + _LOCAL, called)
    if told.decode("utf-8", "replace") != member.orig_filename or _number(local[8:10]) != zipfile.ZIP_STORED:
        raise Refusal(f"{name!r} in its zip archive has another name or form where it lies")
    return first, first + member.file_size


def _is_tar(head: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _read(file: BinaryIO, place: int, length: int) -> bytes:
    file.seek(place)
    return file.read(length)


def _number(data: bytes) -> int:
    return int.from_bytes(data, "little")
