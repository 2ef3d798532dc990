"""`RECORD`: every installed file with its digest and size ("Recording installed projects", PyPA)."""

from __future__ import annotations

import base64
import binascii
import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass

from layerbuild.errors import SourceError


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What a line says of a file. None where it does not say, or names another algorithm than sha256."""

    sha256: str | None
    size: int | None


def parse(data: bytes, *, what: str) -> dict[str, Recorded]:
    """Lines by path.

    Raises:
        SourceError: it is no RECORD, or one that says two things of one file.
    """
    try:
        rows = [row for row in csv.reader(io.StringIO(data.decode("utf-8-sig"), newline="")) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise _unreadable(what, str(error)[:200]) from None
    found: dict[str, Recorded] = {}
    for row in rows:
        path, digest, size = [*row, "", ""][:3]
        # Some builders write the separator of their own system.
        path = path.replace("\\", "/")
        length = int(size) if size.isascii() and size.isdigit() and len(size) < 16 else None
        said = Recorded(sha256=_sha256(digest, path, what), size=length)
        if found.setdefault(path, said) != said:
            raise _unreadable(what, f"it says two things of {path[:200]}")
    return found


def _sha256(text: str, path: str, what: str) -> str | None:
    algorithm, _, value = text.partition("=")
    if algorithm != "sha256":
        return None
    try:
        digest = base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))
    except (binascii.Error, ValueError):
        digest = b""
    if len(digest) != 32:
        raise _unreadable(what, f"the digest of {path[:200]} is none")
    return digest.hex()


def _unreadable(what: str, cause: str) -> SourceError:
    return SourceError(f"the RECORD of {what} cannot be read", cause=cause, hint="whoever made it must make it anew")


def text(files: Mapping[str, tuple[str, int]], itself: str) -> bytes:
    """A RECORD of files with sha256 (hex) and size, by path, and of itself; sorted by path, as uv writes it."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    rows: list[tuple[str, str, str]] = [
        *((path, f"sha256={_encoded(sha256)}", str(size)) for path, (sha256, size) in files.items()),
        (itself, "", ""),
    ]
    rows.sort(key=lambda row: row[0].encode())
    writer.writerows(rows)
    return stream.getvalue().encode()


def _encoded(sha256: str) -> str:
    return base64.urlsafe_b64encode(bytes.fromhex(sha256)).decode().rstrip("=")
