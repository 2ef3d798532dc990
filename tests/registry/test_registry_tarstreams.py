"""Tars as streams: what may be missing at their end, and what may not."""

from __future__ import annotations

import io
import tarfile

import pytest

from layerbuild.errors import SourceError
from layerbuild.registry.layertar import Stream, headers
from layerbuild.registry.tarstreams import Bounded, RangeStream

_FILE = b"x" * 700_000


def _tar() -> bytes:
    """A tar that ends with its last file's last byte, as `umoci insert` leaves it."""
    info = tarfile.TarInfo("file")
    info.size = len(_FILE)
    return info.tobuf() + _FILE


class _Bytes:
    """Bytes as a stream."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def read(self, size: int) -> bytes:
        return self._file.read(size)

    def skip(self, size: int) -> None:
        self._file.read(size)

    def tell(self) -> int:
        return self._file.tell()


def _streams(data: bytes) -> list[Stream]:
    packed = Bounded(
        _Bytes(data), packed=100, where="it", hostile=lambda where, cause: SourceError(f"{where}: {cause}")
    )
    return [packed, RangeStream(lambda offset, length: data[offset : offset + length], len(data))]


@pytest.mark.parametrize("number", [0, 1])
def test_the_last_record_need_not_be_full(number: int) -> None:
    (header,) = headers(_streams(_tar())[number], "it")
    assert (header.path, header.size) == ("file", len(_FILE))


@pytest.mark.parametrize("number", [0, 1])
def test_a_tar_that_ends_in_a_file(number: int) -> None:
    with pytest.raises(EOFError):
        list(headers(_streams(_tar()[:-1000])[number], "it"))
