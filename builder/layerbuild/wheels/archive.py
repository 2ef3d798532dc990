"""Members of a zip archive by their names: its directory once, and then any member's bytes, several at a time.

A member is read by its place in the file, so whoever has the directory needs no open archive. Everything in an
archive may be a lie: names are checked, sizes bounded, and what is read ends where the directory says
(PKWARE's APPNOTE, 4.3).
"""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from layerbuild.errors import SourceError
from layerbuild.paths import safe_relative

MAX_MEMBERS = 500_000
"""Files of one archive. Torch's wheel has 14,000."""

MAX_TOTAL = 64 * 1024**3
"""Bytes of all files of one archive together. Torch's wheel for CUDA has 2 GB."""

_BLOCK = 1024 * 1024
_LOCAL = struct.Struct("<4s22xHH")
_ENCRYPTED = 0x1
_UNIX = 3


@dataclass(frozen=True, kw_only=True)
class Member:
    """A file of an archive.

    Attributes:
        offset: of its local header.
        packed: bytes in the archive.
        size: bytes unpacked.
        deflated: whether they are packed; else they stand there as they are.
        executable: whether its mode lets anybody run it.
    """

    offset: int
    packed: int
    size: int
    deflated: bool
    executable: bool


def members(file: BinaryIO, *, what: str) -> dict[str, Member]:
    """Files of an archive by path, in its directory's order. Directories are left out.

    Raises:
        SourceError: it is no zip archive, or has what no layer may hold: an unsafe path, a link, one path twice, an
            encrypted file, more files or bytes than any honest one.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OverflowError, NotImplementedError, OSError) as error:
        raise SourceError(
            f"{what} is no zip archive",
            cause=str(error)[:200],
            hint="do not use this wheel: no installer would take it",
        ) from None
    found: dict[str, Member] = {}
    total = 0
    if len(infos) > MAX_MEMBERS:
        raise _refused(what, f"it has {len(infos)} files")
    for info in infos:
        if info.is_dir():
            continue
        path = safe_relative(info.filename, origin=what)
        total += info.file_size
        reason = _fault(info) or ("it is there twice" if path in found else None)
        if reason is None and total > MAX_TOTAL:
            reason = f"all files up to it have {total} bytes"
        if reason is not None:
            raise _refused(what, f"{path[:200]}: {reason}")
        found[path] = Member(
            offset=info.header_offset,
            packed=info.compress_size,
            size=info.file_size,
            deflated=info.compress_type == zipfile.ZIP_DEFLATED,
            executable=info.create_system == _UNIX and bool(info.external_attr >> 16 & 0o111),
        )
    return found


def _fault(info: zipfile.ZipInfo) -> str | None:
    kind = stat.S_IFMT(info.external_attr >> 16) if info.create_system == _UNIX else 0
    if kind not in (0, stat.S_IFREG):
        return "it is a link or a device"
    if info.header_offset < 0:
        return "it lies before the archive's first byte"
    if info.flag_bits & _ENCRYPTED:
        return "it is encrypted"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"it is packed by method {info.compress_type}, and wheels know 0 and 8"
    if info.compress_type == zipfile.ZIP_STORED and info.compress_size != info.file_size:
        return "it has two sizes"
    return None


def read(file: BinaryIO, member: Member, *, what: str) -> Iterator[bytes]:
    """The bytes of a member: as many as the directory says. Their digest is checked by whoever reads them.

    Raises:
        SourceError: there are more, or fewer, or they cannot be unpacked.
    """
    file.seek(member.offset)
    head = file.read(_LOCAL.size)
    if len(head) < _LOCAL.size or not head.startswith(b"PK\x03\x04"):
        raise _broken(what, "its local header is not where the directory says")
    _, name, extra = _LOCAL.unpack(head)
    file.seek(name + extra, 1)
    left = member.size
    for chunk in _unpacked(file, member, what):
        left -= len(chunk)
        if left < 0:
            raise _broken(what, f"it has more than {member.size} bytes")
        if chunk:
            yield chunk
    if left:
        raise _broken(what, f"{left} of {member.size} bytes are missing")


def _unpacked(file: BinaryIO, member: Member, what: str) -> Iterator[bytes]:
    unpack = zlib.decompressobj(-zlib.MAX_WBITS) if member.deflated else None
    left = member.packed
    while left:
        data = file.read(min(left, _BLOCK))
        if not data:
            raise _broken(what, "the archive ends within it")
        left -= len(data)
        while unpack is not None and data:
            try:
                chunk = unpack.decompress(data, _BLOCK)
            except zlib.error as error:
                raise _broken(what, str(error)) from None
            data = unpack.unconsumed_tail
            yield chunk
        if unpack is None:
            yield data
    if unpack is not None:
        yield unpack.flush()


def _refused(what: str, cause: str) -> SourceError:
    return SourceError(f"{what} is not taken apart", cause=cause, hint="do not use it: no honest archive is like that")


def _broken(what: str, cause: str) -> SourceError:
    return SourceError(f"{what} is damaged", cause=cause, hint="whoever made it must make it anew")
