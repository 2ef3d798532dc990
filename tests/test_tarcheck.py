"""Bytes that claim to be a layer: the right ones pass, any other is refused and the entry is named."""

from __future__ import annotations

import gzip
import hashlib
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import git_blob, reader, sha256
from fixtures.registry import MemoryBlob, digest_of
from layerbuild.compress import MEDIA_TYPES, compress
from layerbuild.digests import CHUNK
from layerbuild.errors import ContentMismatch, LayerbuildError, SourceError, StoreError
from layerbuild.model import Content, Entry
from layerbuild.registry import receiving
from layerbuild.tarcheck import check_layer, check_tar, diff_id, largest_blob
from layerbuild.tarstream import TarStream

_A = b"weights " * 200
_B = b"text of a git blob"
_CONTENT_A = Content(size=len(_A), sha256=sha256(_A))
_CONTENT_B = Content(size=len(_B), git_blob=git_blob(_B))
_ENTRIES = [
    Entry(path="opt/x", type="directory", mode=0o755),
    Entry(path="opt/x/a", type="file", mode=0o644, content=_CONTENT_A),
    Entry(path="opt/x/b", type="file", mode=0o755, content=_CONTENT_B, uid=1000, gid=1000),
    Entry(path="opt/x/c", type="file", mode=0o644, data=b"made here"),
    Entry(path="opt/x/empty", type="file", mode=0o644, content=Content(size=0, sha256=sha256(b""))),
    Entry(path="opt/x/ü", type="symlink", mode=0o777, target="../a"),
]
_TAR = TarStream(_ENTRIES)
_BYTES = b"".join(_TAR.read(reader({_CONTENT_A.id: _A, _CONTENT_B.id: _B})))
_PLAIN = MEDIA_TYPES["none"]


def _check(data: bytes, media_type: str = _PLAIN, tar: TarStream = _TAR) -> str:
    return check_layer(MemoryBlob(data), media_type, tar, where="layer x", advance=lambda _: None)


def _cause(data: bytes, media_type: str = _PLAIN) -> str:
    with pytest.raises(ContentMismatch, match="layer x is not what the lock pins") as caught:
        _check(data, media_type)
    assert caught.value.cause
    return caught.value.cause


@given(st.lists(st.integers(0, len(_BYTES)), max_size=8))
@settings(max_examples=60)
def test_the_described_tar_passes_in_any_chunks(cuts: list[int]) -> None:
    chunks = [_BYTES[a:b] for a, b in pairwise([0, *sorted(cuts), len(_BYTES)])]
    assert check_tar(chunks, _TAR, where="x") == digest_of(_BYTES)


@pytest.mark.parametrize("algorithm", ["none", "zstd", "gzip"])
def test_every_encoding_gives_the_same_diff_id(algorithm: str) -> None:
    packed = b"".join(compress([_BYTES], algorithm, len(_BYTES)))
    seen: list[int] = []
    blob = MemoryBlob(packed)
    found = check_layer(blob, MEDIA_TYPES[algorithm], _TAR, where="x", advance=seen.append)
    assert found == digest_of(_BYTES) == diff_id(blob, MEDIA_TYPES[algorithm], where="x", advance=seen.append)
    assert sum(seen) == 2 * len(_BYTES)


def test_every_other_byte_is_noticed_and_its_entry_named() -> None:
    starts = [(path, _BYTES.index(path.encode())) for path in ("opt/x/\0", "opt/x/a", "opt/x/b", "opt/x/c")]
    for name, start in starts:
        # the mode in the header, and the first byte behind it
        for offset in (start + 106, start + 512):
            changed = _BYTES[:offset] + bytes([_BYTES[offset] ^ 1]) + _BYTES[offset + 1 :]
            wanted = _TAR.path_at(offset)
            assert wanted is not None and (offset != start + 106 or wanted == name.strip("/\0"))
            assert f" {wanted} " in f" {_cause(changed)} "


@given(st.integers(0, len(_BYTES) - 1), st.integers(1, 255))
@settings(max_examples=150)
def test_no_flip_gets_through(offset: int, mask: int) -> None:
    changed = _BYTES[:offset] + bytes([_BYTES[offset] ^ mask]) + _BYTES[offset + 1 :]
    assert _cause(changed)


@given(st.integers(0, len(_BYTES) - 1))
@settings(max_examples=50)
def test_no_cut_gets_through(length: int) -> None:
    with pytest.raises(ContentMismatch, match="x is not what") as caught:
        check_tar([_BYTES[:length]] if length else [], _TAR, where="x")
    # An end in the middle of nothing else than a file's bytes.
    assert f"it ends after {length} of {len(_BYTES)} bytes" in str(caught.value.cause)


def test_what_comes_after_the_end_is_refused() -> None:
    for more in (b"\0" * 512, b"x"):
        with pytest.raises(ContentMismatch, match="x is not what") as caught:
            check_tar([_BYTES, more], _TAR, where="x")
        assert "goes on after" in str(caught.value.cause)
    assert "bytes, " in _cause(_BYTES + b"\0" * 512)


def test_end_mark_and_padding_are_part_of_it() -> None:
    assert "its end is another" in _cause(_BYTES[:-1] + b"x")
    padding = _BYTES.index(_B) + len(_B)
    assert "opt/x/b" in _cause(_BYTES[:padding] + b"x" + _BYTES[padding + 1 :])


def test_paths_of_offsets() -> None:
    assert [_TAR.path_at(offset) for offset in (0, 511, 512, len(_BYTES) - 1025, len(_BYTES) - 1024, 10**9)] == [
        "opt/x",
        "opt/x",
        "opt/x/a",
        "opt/x/ü",
        None,
        None,
    ]
    assert TarStream([]).path_at(0) is None
    assert check_tar([bytes(1024)], TarStream([]), where="x") == digest_of(bytes(1024))


@pytest.mark.parametrize("algorithm", ["zstd", "gzip"])
class TestCompressed:
    def _packed(self, data: bytes, algorithm: str) -> bytes:
        return b"".join(compress([data], algorithm, len(data)))

    def test_other_bytes_within(self, algorithm: str) -> None:
        changed = _BYTES.replace(b"made here", b"made HERE")
        assert "opt/x/c" in _cause(self._packed(changed, algorithm), MEDIA_TYPES[algorithm])

    def test_more_within(self, algorithm: str) -> None:
        assert "goes on after" in _cause(self._packed(_BYTES + bytes(512), algorithm), MEDIA_TYPES[algorithm])

    def test_a_second_frame(self, algorithm: str) -> None:
        second = self._packed(b"x", algorithm)
        assert "goes on after" in _cause(self._packed(_BYTES, algorithm) + second, MEDIA_TYPES[algorithm])

    def test_garbage_behind_it(self, algorithm: str) -> None:
        with pytest.raises(SourceError, match="is damaged"):
            _check(self._packed(_BYTES, algorithm) + b"garbage", MEDIA_TYPES[algorithm])

    def test_a_cut(self, algorithm: str) -> None:
        with pytest.raises(SourceError):
            _check(self._packed(_BYTES, algorithm)[:-3], MEDIA_TYPES[algorithm])

    def test_the_blobs_own_digest_is_asked_for(self, algorithm: str) -> None:
        packed = self._packed(_BYTES, algorithm)

        class Verified(MemoryBlob):
            def open(self, offset: int = 0) -> Iterator[bytes]:
                return receiving.verified(super().open(offset), self.digest, "the blob")

        blob = Verified(packed, digest=digest_of(b"another"))
        with pytest.raises(ContentMismatch, match="the blob is damaged"):
            check_layer(blob, MEDIA_TYPES[algorithm], _TAR, where="x", advance=lambda _: None)

    def test_much_more_than_was_pinned_is_not_even_read(self, algorithm: str) -> None:
        blob = MemoryBlob(b"", size=largest_blob(_TAR.size) + 1)
        with pytest.raises(ContentMismatch, match="x is not what"):
            check_layer(blob, MEDIA_TYPES[algorithm], _TAR, where="x", advance=lambda _: None)
        assert blob.opened == 0
        assert len(self._packed(hashlib.shake_128(b"").digest(5_000_000), algorithm)) <= largest_blob(5_000_000)


@pytest.mark.parametrize("size", [1000, 3 * CHUNK])
def test_a_damaged_blob_is_told_by_its_entry(size: int) -> None:
    data = b"\x01" * size
    tar = TarStream([Entry(path="w", type="file", mode=0o644, content=Content(size=size, sha256=sha256(data)))])
    right = b"".join(tar.read(lambda _content, _offset: iter([data])))
    wrong = right.replace(data, data[:-1] + b"\x02")

    def pieces() -> Iterator[bytes]:
        chunks = (wrong[i : i + CHUNK // 4] for i in range(0, len(wrong), CHUNK // 4))
        return receiving.verified(chunks, digest_of(right), "the blob")

    with pytest.raises(ContentMismatch, match="x is not what") as caught:
        check_tar(pieces(), tar, where="x")
    assert str(caught.value.cause).startswith("w has the digest")


def test_plain_layer_of_another_size_is_not_read() -> None:
    blob = MemoryBlob(_BYTES + b"x")
    with pytest.raises(ContentMismatch, match="x is not what"):
        check_layer(blob, _PLAIN, _TAR, where="x", advance=lambda _: None)
    assert blob.opened == 0


def test_unknown_types_are_refused() -> None:
    with pytest.raises(SourceError, match="is of the type"):
        _check(_BYTES, "application/vnd.oci.image.layer.v1.tar+encrypted")


def test_whatever_reading_raises_comes_through() -> None:
    def broken() -> Iterator[bytes]:
        yield _BYTES[:1000]
        raise StoreError("the disk is gone")

    with pytest.raises(StoreError, match="the disk is gone"):
        check_tar(broken(), _TAR, where="x")


@pytest.mark.parametrize("size", [3 * CHUNK + 17])
def test_large_layers_are_checked_in_threads_and_left_at_the_first_difference(size: int) -> None:
    content = Content(size=size, sha256=hashlib.sha256(bytes(size)).hexdigest())
    tar = TarStream([Entry(path="w", type="file", mode=0o644, content=content)])
    chunk = bytes(1024 * 1024)

    def zeros() -> Iterator[bytes]:
        left = size
        while left:
            yield chunk[:left]
            left -= min(left, len(chunk))

    pieces = list(tar.read(lambda _content, _offset: zeros()))
    assert check_tar(pieces, tar, where="x") == digest_of(b"".join(pieces))
    assert _read_of(tar, [*pieces[:-2], b"\1" + pieces[-2][1:], pieces[-1]]) > CHUNK
    # A header that differs: no more is taken than lies in the queues.
    assert _read_of(tar, [b"x" + pieces[0][1:], *pieces[1:]]) < len(b"".join(pieces))


def _read_of(tar: TarStream, pieces: list[bytes]) -> int:
    """Bytes that were taken before the tar was refused."""
    taken = 0

    def counted() -> Iterator[bytes]:
        nonlocal taken
        for piece in pieces:
            taken += len(piece)
            yield piece

    with pytest.raises(ContentMismatch, match="x is not what"):
        check_tar(counted(), tar, where="x")
    return taken


_BOMB = """
import hashlib, resource, sys, zlib, zstandard
from layerbuild.compress import MEDIA_TYPES
from layerbuild.errors import ContentMismatch
from layerbuild.model import Content, Entry
from layerbuild.tarcheck import check_layer
from layerbuild.tarstream import TarStream
sys.path.insert(0, sys.argv[1])
from fixtures.registry import MemoryBlob

size = 64 << 20
content = Content(size=size, sha256=hashlib.sha256(bytes(size)).hexdigest())
tar = TarStream([Entry(path="w", type="file", mode=0o644, content=content)])
block = bytes(1 << 20)
def honest_then_more():
    yield from tar.read(lambda c, o: (block for _ in range(64)))
    for _ in range(512):
        yield block
if sys.argv[2] == "zstd":
    stream = zstandard.ZstdCompressor(level=1).compressobj()
else:
    stream = zlib.compressobj(1, zlib.DEFLATED, 31)
packed = b"".join([stream.compress(c) for c in honest_then_more()]) + stream.flush()
seen = 0
def advance(amount):
    global seen
    seen += amount
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    check_layer(MemoryBlob(packed), MEDIA_TYPES[sys.argv[2]], tar, where="x", advance=advance)
except ContentMismatch as error:
    assert "goes on after" in error.cause, error
else:
    raise SystemExit("the bomb got through")
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
assert tar.size <= seen < tar.size + (16 << 20), seen
assert grown < 64 * 1024, grown
"""


@pytest.mark.parametrize("algorithm", ["zstd", "gzip"])
def test_a_bomb_is_stopped_where_the_described_tar_ends(algorithm: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _BOMB, str(Path(__file__).parent), algorithm],
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr.decode()


def test_random_compressed_noise_is_refused_with_words() -> None:
    for noise in (b"", b"\x28\xb5\x2f\xfd" + b"\xff" * 40, gzip.compress(b"x")[:10], zstandard.compress(b"")):
        for algorithm in ("zstd", "gzip"):
            with pytest.raises(LayerbuildError) as caught:
                _check(noise, MEDIA_TYPES[algorithm])
            assert "layer x" in caught.value.message
