"""Archives that lie about what they hold."""

from __future__ import annotations

import io
import struct
import zipfile

import pytest

from fixtures.wheels import zipped
from layerbuild.errors import SourceError
from layerbuild.wheels import archive

_BIG = bytes(range(256)) * 20_000


def _read(data: bytes, path: str) -> bytes:
    file = io.BytesIO(data)
    return b"".join(archive.read(file, archive.members(file, what="x.whl")[path], what=path))


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_members_bytes_are_those_that_zipfile_reads(method: int) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as made:
        made.mkdir("a/")
        for path, data in {"a/big": _BIG, "a/empty": b"", "ü": b"x"}.items():
            made.writestr(path, data)
    assert set(archive.members(io.BytesIO(stream.getvalue()), what="x")) == {"a/big", "a/empty", "ü"}
    assert _read(stream.getvalue(), "a/big") == _BIG
    assert _read(stream.getvalue(), "a/empty") == b""


def test_modes_say_what_may_be_run() -> None:
    found = archive.members(io.BytesIO(zipped({"a": b"", "b": b""}, modes={"b": 0o100755})), what="x")
    assert (found["a"].executable, found["b"].executable) == (False, True)


@pytest.mark.parametrize("path", ["../evil", "/etc/passwd", "a/../../b", "a//b", "a\\b", "a\nb"])
def test_paths_that_leave_are_refused(path: str) -> None:
    with pytest.raises(SourceError, match="no layer may hold"):
        archive.members(io.BytesIO(zipped({path: b"x"})), what="x")


def test_links_and_doubles_are_refused() -> None:
    with pytest.raises(SourceError, match="not taken apart") as error:
        archive.members(io.BytesIO(zipped({"a": b"/etc"}, modes={"a": 0o120777})), what="x")
    assert "link" in (error.value.cause or "")
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as made:
        made.writestr("a", b"1")
        with pytest.warns(UserWarning, match="Duplicate"):
            made.writestr("a", b"2")
    with pytest.raises(SourceError, match="not taken apart") as error:
        archive.members(io.BytesIO(stream.getvalue()), what="x")
    assert "twice" in (error.value.cause or "")


def _with_size(data: bytes, size: int) -> bytes:
    """An archive of one file whose directory says another unpacked size."""
    at = data.index(b"PK\x01\x02") + 24
    return data[:at] + struct.pack("<I", size) + data[at + 4 :]


def test_a_bomb_gives_no_more_than_its_directory_says() -> None:
    bomb = _with_size(zipped({"a": b"\0" * 50_000_000}), 1000)
    file, seen = io.BytesIO(bomb), 0
    with pytest.raises(SourceError, match="damaged"):
        for chunk in archive.read(file, archive.members(file, what="x")["a"], what="a"):
            seen += len(chunk)
    assert seen <= 1000


def test_too_few_bytes_are_an_error() -> None:
    with pytest.raises(SourceError, match="damaged"):
        _read(_with_size(zipped({"a": b"1234"}), 5000), "a")


def test_a_sum_of_sizes_that_no_disk_has_is_refused() -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as made:
        for number in range(20):
            made.writestr(str(number), b"x")
    data = bytearray(stream.getvalue())
    at = data.find(b"PK\x01\x02")
    while at != -1:
        data[at + 24 : at + 28] = struct.pack("<I", 0xFFFFFFF0)
        at = data.find(b"PK\x01\x02", at + 4)
    with pytest.raises(SourceError, match="not taken apart"):
        archive.members(io.BytesIO(bytes(data)), what="x")


@pytest.mark.parametrize("data", [b"", b"no zip", zipped({"a": b"x"})[:-10], zipped({"a": b"x"})[10:]], ids=len)
def test_what_is_no_archive_is_told(data: bytes) -> None:
    with pytest.raises(SourceError):
        _read(data, "a")


def test_methods_that_wheels_do_not_know_are_refused() -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_LZMA) as made:
        made.writestr("a", b"x")
    with pytest.raises(SourceError) as error:
        archive.members(io.BytesIO(stream.getvalue()), what="x")
    assert "method 14" in (error.value.cause or "")
