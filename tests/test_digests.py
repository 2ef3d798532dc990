"""One pass, many digests: the same for every chunking, and no thread stays behind."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import facts_of, git_blob
from fixtures.project import safetensors
from layerbuild.digests import INLINE_METADATA, GitBlob, SafetensorsScan, feed
from layerbuild.errors import StoreError
from layerbuild.model import Facts
from layerbuild.webui.safetensors import MAX_HEADER, PREFIX

_FILE = safetensors(300, {"format": "pt", "ss_tag": "é"})
_HEADER_END = PREFIX + int.from_bytes(_FILE[:PREFIX], "little")


def _split(data: bytes, cuts: list[int]) -> list[bytes]:
    ends = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(ends)]


def _scan(chunks: list[bytes]) -> Facts:
    scan = SafetensorsScan()
    for chunk in chunks:
        scan.update(chunk)
    return scan.facts(sum(map(len, chunks)))


_near = st.one_of(st.integers(0, 2 * PREFIX), st.integers(_HEADER_END - 3, _HEADER_END + 3), st.integers(0, len(_FILE)))


@given(st.lists(_near, max_size=8), st.booleans())
@settings(max_examples=150)
def test_every_chunking_learns_the_same(cuts: list[int], threads: bool) -> None:
    chunks = _split(_FILE, cuts)
    scan, git, whole = SafetensorsScan(), GitBlob(len(_FILE)), hashlib.sha256()
    assert b"".join(feed(chunks, [scan, git, whole], threads=threads)) == _FILE
    assert scan.facts(len(_FILE)) == facts_of(_FILE)
    assert git.hexdigest() == git_blob(_FILE)
    assert whole.hexdigest() == hashlib.sha256(_FILE).hexdigest()


def _with_header(header: bytes, rest: bytes = b"", length: int | None = None) -> bytes:
    return (len(header) if length is None else length).to_bytes(PREFIX, "little") + header + rest


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"1234567",
        _with_header(b""),
        _with_header(b"{"),
        _with_header(b"[]"),
        _with_header(b"no json"),
        _with_header(b'{"__metadata__": 1}'),
        _with_header(b'{"__metadata__": ["a"]}'),
        _with_header(b'{"__metadata__": null}'),
        _with_header(b"\xff\xfe{}"),
        _with_header(b"[" * 200_000 + b"]" * 200_000),
        _with_header(b'{"__metadata__": {"a": ' + b"[" * 500 + b"]" * 500 + b"}}"),
        _with_header(b"{}", length=2**64 - 1),
        _with_header(b"{}", length=MAX_HEADER + 1),
        _with_header(b"{}", length=2**63),
        _with_header(b'{"a": 1}', rest=b"", length=100),
    ],
    ids=lambda data: f"{data[:20]!r}",
)
def test_hostile_header_is_no_safetensors(data: bytes) -> None:
    expected = Facts(size=len(data), safetensors=False)
    assert _scan([data]) == expected
    assert _scan([data[i : i + 1000] for i in range(0, len(data), 1000)]) == expected


def test_header_over_the_limit_is_not_collected() -> None:
    scan = SafetensorsScan()
    scan.update((MAX_HEADER + 1).to_bytes(PREFIX, "little"))
    for _ in range(3):
        scan.update(bytes(MAX_HEADER // 2))
    assert scan.header is None and scan._head is None


def test_header_without_metadata_and_long_metadata() -> None:
    plain = safetensors(10)
    assert _scan([plain]).metadata == "{}"
    limit = safetensors(10, {"a": "x" * (INLINE_METADATA - len('{"a":""}'))})
    assert _scan([limit]).metadata is not None
    long = safetensors(10, {"a": "x" * INLINE_METADATA})
    found = _scan([long])
    assert found.metadata is None and found.header_sha256 is not None and found.addnet is not None


def test_addnet_of_a_file_that_ends_with_its_header() -> None:
    data = _with_header(json.dumps({"__metadata__": {}}).encode(), rest=b"")
    assert _scan([data]).addnet == hashlib.sha256(b"").hexdigest()


class _Broken:
    """A digester that fails at the `nth` chunk with something that no digest raises."""

    def __init__(self, nth: int) -> None:
        self.left = nth

    def update(self, data: bytes, /) -> None:
        self.left -= 1
        if self.left <= 0:
            raise TypeError("broken")


@pytest.fixture
def no_thread_stays() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


@pytest.mark.usefixtures("no_thread_stays")
class TestThreadsEnd:
    def test_at_the_end(self) -> None:
        seen = hashlib.sha256()
        assert len(list(feed([b"x"] * 50, [seen, hashlib.sha1()]))) == 50
        assert seen.hexdigest() == hashlib.sha256(b"x" * 50).hexdigest()

    def test_without_digesters(self) -> None:
        assert list(feed([b"a"], [])) == [b"a"]

    def test_when_the_source_fails(self) -> None:
        def source() -> Iterator[bytes]:
            yield b"a"
            raise StoreError("the disk")

        with pytest.raises(StoreError, match="the disk"):
            list(feed(source(), [hashlib.sha256()]))

    @pytest.mark.parametrize("nth", [1, 5, 20])
    def test_when_a_digester_fails(self, nth: int) -> None:
        passed = []
        with pytest.raises(TypeError, match="broken"):
            passed += list(feed([b"a"] * 20, [_Broken(nth), hashlib.sha256()]))
        assert passed == []

    def test_when_a_digester_fails_the_source_is_not_read_to_its_end(self) -> None:
        def endless() -> Iterator[bytes]:
            while True:
                yield b"a"

        with pytest.raises(TypeError, match="broken"):
            for _ in feed(endless(), [_Broken(1)]):
                pass

    def test_when_the_consumer_stops_early(self) -> None:
        closed = []

        def source() -> Iterator[bytes]:
            try:
                while True:
                    yield b"a"
            finally:
                closed.append(True)

        with closing(feed(source(), [hashlib.sha256(), SafetensorsScan()])) as chunks:  # type: ignore[type-var]
            next(chunks)
        del chunks
        assert closed == [True]
