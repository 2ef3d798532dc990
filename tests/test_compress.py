"""Compressed layers: bytes that depend on the content alone."""

from __future__ import annotations

import gzip
import random
import re
import zlib
from itertools import pairwise

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from layerbuild.compress import MEDIA_TYPES, compress, encoding, family, is_family

_RANDOM = random.Random(7)
_TEXT = (" ".join(_RANDOM.choice(["layer", "blob", "digest", "\n"]) for _ in range(60_000))).encode()
_DATA = _TEXT + _RANDOM.randbytes(40_000) + bytes(300_000)


def _packed(chunks: list[bytes], algorithm: str) -> bytes:
    return b"".join(compress(chunks, algorithm, sum(map(len, chunks))))


@pytest.mark.parametrize("algorithm", ["zstd", "gzip"])
@given(st.lists(st.integers(0, len(_DATA)), max_size=6))
@settings(max_examples=15)
def test_bytes_do_not_depend_on_chunks(algorithm: str, cuts: list[int]) -> None:
    ends = [0, *sorted(cuts), len(_DATA)]
    chunks = [_DATA[a:b] for a, b in pairwise(ends)]
    assert _packed(chunks, algorithm) == _packed([_DATA], algorithm)


@pytest.mark.parametrize("data", [b"", b"a", _DATA])
def test_other_decoders_give_the_input_back(data: bytes) -> None:
    packed = _packed([data], "zstd")
    assert zstandard.ZstdDecompressor().decompress(packed) == data
    # The size is declared: who unpacks can plan for it.
    assert zstandard.frame_content_size(packed) == len(data)
    assert gzip.decompress(_packed([data], "gzip")) == data
    assert _packed([data], "none") == data


def test_gzip_header_has_no_time_and_no_name() -> None:
    packed = _packed([b"x"], "gzip")
    assert packed[:4] == b"\x1f\x8b\x08\x00" and packed[4:8] == bytes(4)


def test_declared_size_is_held_to() -> None:
    with pytest.raises(zstandard.ZstdError):
        list(compress([b"four"], "zstd", 5))


def test_encoding_names_algorithm_level_and_version() -> None:
    assert re.fullmatch(r"zstd:\d+:\d+\.\d+\.\d+", encoding("zstd"))
    assert encoding("gzip") == f"{family('gzip')}:{zlib.ZLIB_RUNTIME_VERSION}"
    assert encoding("none") == family("none") == "none"
    assert set(MEDIA_TYPES) == {"none", "zstd", "gzip"}


@pytest.mark.parametrize("algorithm", ["none", "zstd", "gzip"])
def test_family_leaves_out_the_version_only(algorithm: str) -> None:
    assert is_family(encoding(algorithm), algorithm)
    others = {"none", "zstd", "gzip"} - {algorithm}
    assert not any(is_family(encoding(other), algorithm) for other in others)


def test_another_level_is_another_family() -> None:
    assert is_family(f"{family('zstd')}:0.0.1", "zstd")
    assert not is_family(f"{family('zstd')}9:1.5.7", "zstd")
    assert not is_family(family("zstd"), "zstd")
