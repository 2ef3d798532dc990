"""The store: whatever lies under its digest is whole, and whatever goes wrong is said."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, TimeoutError
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builders import facts_of, git_blob, sha256
from fixtures.project import safetensors
from layerbuild.digests import CHUNK, SafetensorsScan
from layerbuild.errors import ContentMismatch, Damaged, StoreError, Unreachable
from layerbuild.model import Blob, Content, Facts, Receipt
from layerbuild.store import Store
from layerbuild.store.local import Marks
from layerbuild.store.locks import locked

_DATA = b"some bytes" * 100
_LARGE = bytes(range(256)) * (CHUNK // 256 + 10)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    found = Store(tmp_path / "store")
    yield found
    found.close()


def _content(data: bytes) -> Content:
    return Content(size=len(data), sha256=sha256(data))


def _add(store: Store, data: bytes, expected: Content | None = None, *, scan: bool = False) -> Content:
    told: list[int] = []
    chunks = [data[i : i + CHUNK] for i in range(0, len(data), CHUNK)]
    found = store.add(chunks, expected or _content(data), name="the file", advance=told.append, scan_header=scan)
    assert sum(told) == len(data)
    return found


def _nothing_kept(store: Store) -> bool:
    return not [p for d in ("files", "blobs", "tmp") for p in (store.root / d).rglob("*") if p.is_file()]


class TestAdd:
    @pytest.mark.parametrize("data", [b"", _DATA, _LARGE], ids=["empty", "small", "large"])
    def test_right_bytes_are_kept(self, store: Store, data: bytes) -> None:
        content = _add(store, data)
        assert content == _content(data) and store.has(content)
        assert b"".join(store.open(content)) == data
        assert b"".join(store.open(content, 5)) == data[5:]
        assert list((store.root / "tmp").iterdir()) == []

    @pytest.mark.parametrize(
        "expected",
        [
            replace(_content(_DATA), size=len(_DATA) + 1),
            replace(_content(_DATA), size=len(_DATA) - 1),
            Content(size=None, sha256="0" * 64),
            Content(size=len(_DATA), git_blob="0" * 40),
            Content(size=None, git_blob="0" * 40),
            Content(size=len(_DATA), sha256=sha256(_DATA), git_blob="0" * 40),
        ],
        ids=["shorter", "longer", "sha256", "git", "git without size", "git beside sha256"],
    )
    def test_wrong_bytes_leave_nothing(self, store: Store, expected: Content) -> None:
        with pytest.raises(ContentMismatch, match="the file"):
            store.add([_DATA], expected, name="the file", advance=lambda _: None)
        assert _nothing_kept(store)
        assert not store.has(expected) and store.facts(sha256(_DATA)) is None

    @pytest.mark.parametrize("size", [len(_DATA), None])
    def test_git_name_leads_to_the_bytes(self, store: Store, size: int | None) -> None:
        named = Content(size=size, git_blob=git_blob(_DATA))
        assert not store.has(named)
        assert _add(store, _DATA, named).sha256 == sha256(_DATA)
        assert store.has(named) and store.sha256_of(named) == sha256(_DATA)
        assert b"".join(store.open(named)) == _DATA
        assert store.size(Content(size=None, git_blob=git_blob(_DATA))) == len(_DATA)

    def test_endless_source_is_stopped(self, store: Store) -> None:
        given = []

        def endless() -> Iterator[bytes]:
            while True:
                given.append(1)
                yield bytes(1000)

        with pytest.raises(ContentMismatch, match="longer than the 2500 bytes"):
            store.add(endless(), Content(size=2500, sha256="0" * 64), name="it", advance=lambda _: None)
        assert len(given) == 3 and _nothing_kept(store)

    def test_source_that_fails_leaves_nothing(self, store: Store) -> None:
        def source() -> Iterator[bytes]:
            yield b"a"
            raise ContentMismatch("from the source")

        with pytest.raises(ContentMismatch, match="from the source"):
            store.add(source(), Content(size=None, sha256="0" * 64), name="it", advance=lambda _: None)
        assert _nothing_kept(store)

    def test_facts_are_learnt_on_the_way(self, store: Store) -> None:
        data = safetensors(1000, {"a": "b"})
        _add(store, data, scan=True)
        assert store.facts(sha256(data)) == facts_of(data)
        long = safetensors(1000, {"a": "b" * 5000})
        _add(store, long, scan=True)
        found = store.facts(sha256(long))
        assert found is not None and found.metadata is None and found.header_sha256 is not None
        assert store.document(found.header_sha256) == long[8 : 8 + (found.header_size or 0)]


_FULL = """
import resource, sys
from pathlib import Path
from layerbuild.errors import StoreError
from layerbuild.model import Content
from layerbuild.store import Store
store = Store(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
data = [bytes(200_000)] * 2 if sys.argv[2] == "two" else [bytes(400_000)]
try:
    if sys.argv[2] == "blob":
        store.add_blob(data)
    else:
        store.add(data, Content(size=None, sha256="0" * 64), name="it", advance=lambda _: None)
except StoreError as error:
    print(error)
"""


@pytest.mark.parametrize("how", ["one", "two", "blob"])
def test_full_disk_is_an_error_and_leaves_nothing(tmp_path: Path, how: str) -> None:
    done = subprocess.run([sys.executable, "-c", _FULL, str(tmp_path), how], capture_output=True, text=True, check=True)
    assert "cannot take" in done.stdout and "File too large" in done.stdout and "make room" in done.stdout
    files = [p for p in tmp_path.rglob("*") if p.is_file() and not p.name.startswith(("store.db", "gate"))]
    assert files == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


class TestDamage:
    def test_small_file_is_found_on_read_and_removed(self, store: Store) -> None:
        content = _add(store, _DATA)
        path = store._disk.file(content.sha256 or "")
        path.write_bytes(b"other")
        with pytest.raises(StoreError, match="damaged, and has been removed"):
            store.open(content)
        assert not store.has(content)

    @pytest.mark.parametrize("size", [100, CHUNK + 100], ids=["small", "large"])
    def test_document_is_held_against_its_digest(self, store: Store, size: int) -> None:
        name = store.add_document(b"x" * size)
        store._disk.file(name).write_bytes(b"y" * size)
        with pytest.raises(StoreError, match="damaged"):
            store.document(name)
        assert store.add_document(b"x" * size) == name
        assert store.document(name) == b"x" * size

    @pytest.mark.parametrize(
        "damage", [b"", b"short", b"y" * 1000, b"x" * 1001], ids=["empty", "short", "same", "long"]
    )
    def test_blob_is_held_against_its_digest(self, store: Store, damage: bytes) -> None:
        digest, size = store.add_blob([b"x" * 1000])
        assert (digest, size) == (f"sha256:{sha256(b'x' * 1000)}", 1000)
        path = store.blob_path(digest)
        assert path is not None
        path.write_bytes(damage)
        with pytest.raises(StoreError, match="damaged"):
            list(store.open_blob(digest))
        assert store.blob_path(digest) is None

    def test_blob_from_the_middle(self, store: Store) -> None:
        digest, _ = store.add_blob([b"0123456789"])
        assert b"".join(store.open_blob(digest, 4)) == b"456789"
        assert store.blob_path(digest) is not None

    def test_what_is_not_here_is_said(self, store: Store) -> None:
        with pytest.raises(StoreError, match="not in the store"):
            store.open(Content(size=1, sha256="0" * 64))
        with pytest.raises(StoreError, match="cannot be read"):
            list(store.open_blob(f"sha256:{'0' * 64}"))

    def test_discard_forgets_copy_and_local_file(self, store: Store, tmp_path: Path) -> None:
        content = _local(store, tmp_path / "a")
        _add(store, _DATA)
        store.discard(content.sha256 or "")
        assert not store.has(content)


def _local(store: Store, path: Path, data: bytes = _DATA) -> Content:
    path.write_bytes(data)
    _age(path)
    return store.hash_local(path)


def _age(path: Path) -> None:
    """Waits until a change of `path` can no longer go unnoticed."""
    while time.time_ns() - path.stat().st_ctime_ns < 60_000_000:
        time.sleep(0.01)


def _reads(store: Store, path: Path) -> int:
    """Bytes that hashing `path` once more reads."""
    told: list[int] = []
    store.hash_local(path, told.append)
    return sum(told)


class TestLocalFiles:
    def test_unchanged_file_is_not_read_again(self, store: Store, tmp_path: Path) -> None:
        content = _local(store, tmp_path / "a")
        assert content == _content(_DATA)
        assert _reads(store, tmp_path / "a") == 0
        assert b"".join(store.open(content, 3)) == _DATA[3:]
        assert _nothing_kept(store)

    def test_file_of_this_instant_is_read_again(self, store: Store, tmp_path: Path) -> None:
        path = tmp_path / "a"
        path.write_bytes(_DATA)
        future = time.time_ns() + 10**9
        os.utime(path, ns=(future, future))
        store.hash_local(path)
        assert _reads(store, path) == len(_DATA)

    def test_changed_file_is_noticed_though_size_and_mtime_stay(self, store: Store, tmp_path: Path) -> None:
        path = tmp_path / "a"
        content = _local(store, path)
        before = path.stat()
        path.write_bytes(_DATA.upper())
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert not store.has(content)
        assert store.hash_local(path) == _content(_DATA.upper())

    def test_change_without_a_trace_is_found_when_it_is_read(
        self, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "a"
        content = _local(store, path)
        marks = Marks.of(path.stat())
        path.write_bytes(_DATA.upper())
        monkeypatch.setattr(Marks, "of", lambda _: marks)
        with pytest.raises(ContentMismatch, match="has changed since it was hashed"):
            list(store.open(content))
        assert not store.has(content)

    def test_file_replaced_by_rename(self, store: Store, tmp_path: Path) -> None:
        path, other = tmp_path / "a", tmp_path / "b"
        content = _local(store, path)
        other.write_bytes(_DATA.upper())
        os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
        other.rename(path)
        assert not store.has(content)
        assert store.hash_local(path) == _content(_DATA.upper())

    def test_link_and_its_goal_are_one_file(self, store: Store, tmp_path: Path) -> None:
        _local(store, tmp_path / "a")
        (tmp_path / "link").symlink_to("a")
        assert _reads(store, tmp_path / "link") == 0
        (tmp_path / "b").write_bytes(b"other")
        (tmp_path / "link").unlink()
        (tmp_path / "link").symlink_to("b")
        assert store.hash_local(tmp_path / "link") == _content(b"other")

    def test_file_that_changes_while_it_is_hashed(self, store: Store, tmp_path: Path) -> None:
        path = tmp_path / "a"
        path.write_bytes(_LARGE)
        with pytest.raises(ContentMismatch, match="changed while it was read"):
            store.hash_local(path, lambda _: os.utime(path, (1, 1)))
        assert not store.has(_content(_LARGE))

    def test_file_that_changes_while_it_is_read(self, store: Store, tmp_path: Path) -> None:
        path = tmp_path / "a"
        content = _local(store, path, _LARGE)
        chunks = store.open(content)
        next(chunks)
        os.utime(path, (1, 1))
        with pytest.raises(ContentMismatch, match="changed while it was read"):
            list(chunks)

    def test_second_place_serves_when_the_first_is_gone(self, store: Store, tmp_path: Path) -> None:
        content = _local(store, tmp_path / "a")
        _local(store, tmp_path / "b")
        (tmp_path / "a").unlink()
        assert b"".join(store.open(content)) == _DATA

    def test_names_that_are_not_text(self, store: Store, tmp_path: Path) -> None:
        path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.safetensors"))
        content = _local(store, path)
        assert _reads(store, path) == 0 and b"".join(store.open(content)) == _DATA

    def test_numbers_that_sqlite_cannot_hold(
        self, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "a"
        path.write_bytes(_DATA)
        fields = list(path.stat())
        fields[1] = 2**64 - 3
        stacked = os.stat_result(fields, {"st_mtime_ns": 10**18, "st_ctime_ns": 10**18})
        monkeypatch.setattr(Path, "stat", lambda *_, **__: stacked)
        content = store.hash_local(path)
        assert store.has(content) and _reads(store, path) == 0

    def test_unreadable_file(self, store: Store, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match="cannot be read"):
            store.hash_local(tmp_path / "missing")
        with pytest.raises(StoreError, match="cannot be read"):
            store.hash_local(tmp_path)

    def test_scan_learns_what_add_did_not(self, store: Store, tmp_path: Path) -> None:
        data = safetensors(1000, {"a": "b"})
        content = _add(store, data)
        assert store.facts(sha256(data)) == Facts(size=len(data))
        assert b"".join(store.verified(content, SafetensorsScan())) == data
        assert store.facts(sha256(data)) == facts_of(data)

    def test_header_alone_costs_no_digest(self, store: Store) -> None:
        data = safetensors(1000, {"a": "b"})
        assert b"".join(store.arriving([data], _content(data), name="x", scan=SafetensorsScan(addnet=False))) == data
        assert store.facts(sha256(data)) == replace(facts_of(data), addnet=None)

    def test_bytes_that_are_not_kept(self, store: Store) -> None:
        scan = SafetensorsScan()
        data = safetensors(1000, {"a": "b"})
        assert b"".join(store.arriving([data], _content(data), name="x", scan=scan, keep=False)) == data
        assert _nothing_kept(store) and store.facts(sha256(data)) == facts_of(data)
        with pytest.raises(ContentMismatch, match="x is not what was pinned"):
            list(store.arriving([data[:-1], b"?"], _content(data), name="x", keep=False))

    def test_local_file_on_its_way(self, store: Store, tmp_path: Path) -> None:
        path = tmp_path / "model"
        path.write_bytes(_LARGE)
        assert b"".join(store.arriving_local(path, _content(_LARGE), name="x")) == _LARGE
        assert store.has(_content(_LARGE)) and _nothing_kept(store)
        with pytest.raises(ContentMismatch, match="x is not what was pinned"):
            list(store.arriving_local(path, _content(_DATA), name="x"))


_MIB = 1024 * 1024
_LONG = bytes(range(256)) * (6 * _MIB // 256)


class TestFetching:
    """`_LONG` arrives, and breaks off after some mebibytes."""

    def _fetch(
        self, store: Store, *, until: int | None = None, expected: Content | None = None, data: bytes = _LONG
    ) -> tuple[bytes, list[int]]:
        """What was passed on, and from which offsets it was asked for."""
        asked: list[int] = []

        def opened(offset: int) -> Iterator[bytes]:
            asked.append(offset)
            for start in range(offset, len(data) if until is None else until, _MIB // 2):
                yield data[start : start + _MIB // 2]
            if until is not None:
                raise Unreachable("it broke off")

        return b"".join(store.fetching(opened, expected or _content(_LONG), name="the file")), asked

    def _break_off(self, store: Store, until: int = 3 * _MIB, **more: Any) -> Path:
        with pytest.raises(Unreachable, match="broke off"):
            self._fetch(store, until=until, **more)
        (kept,) = (store.root / "partial").iterdir()
        return kept

    def test_all_at_once(self, store: Store) -> None:
        assert self._fetch(store) == (_LONG, [0])
        assert b"".join(store.open(_content(_LONG))) == _LONG
        assert not list((store.root / "partial").iterdir())

    def test_another_store_goes_on(self, store: Store) -> None:
        kept = self._break_off(store)
        assert kept.read_bytes() == _LONG[: 3 * _MIB] and not store.has(_content(_LONG))
        self._break_off(store, 5 * _MIB)
        other = Store(store.root)
        assert self._fetch(other) == (_LONG, [5 * _MIB])
        assert b"".join(other.open(_content(_LONG))) == _LONG and not kept.exists()
        assert other._disk.file(sha256(_LONG)).stat().st_mode & 0o777 == 0o644
        other.close()

    def test_whoever_stops_reading_leaves_what_came(self, store: Store) -> None:
        chunks = store.fetching(lambda offset: iter([_LONG[: 2 * _MIB], _LONG[2 * _MIB :]]), _content(_LONG), name="x")
        next(chunks)
        chunks.close()
        assert self._fetch(store) == (_LONG, [2 * _MIB])

    def test_facts_are_learnt_over_the_break(self, store: Store) -> None:
        data = safetensors(3 * _MIB, {"a": "b"})
        self._break_off(store, 2 * _MIB, expected=_content(data), data=data)
        scan = SafetensorsScan()
        found = store.fetching(lambda offset: iter([data[offset:]]), _content(data), name="x", scan=scan)
        assert b"".join(found) == data and store.facts(sha256(data)) == facts_of(data)

    @pytest.mark.parametrize("size", [len(_LONG), None])
    def test_what_git_names(self, store: Store, size: int | None) -> None:
        named = Content(size=size, git_blob=git_blob(_LONG))
        self._break_off(store, expected=named)
        assert self._fetch(store, expected=named) == (_LONG, [3 * _MIB])
        assert store.sha256_of(named) == sha256(_LONG)

    def test_a_short_beginning_is_not_kept(self, store: Store) -> None:
        with pytest.raises(Unreachable):
            self._fetch(store, until=_MIB // 2)
        assert not list((store.root / "partial").iterdir())

    def test_a_whole_file_that_was_not_named_yet(self, store: Store) -> None:
        self._break_off(store).write_bytes(_LONG)
        assert self._fetch(store) == (_LONG, [len(_LONG)])
        assert store.has(_content(_LONG))

    def test_a_beginning_that_is_longer_than_the_whole(self, store: Store) -> None:
        self._break_off(store).write_bytes(_LONG + b"x")
        assert self._fetch(store) == (_LONG, [0])

    def test_a_damaged_beginning_is_removed_once(self, store: Store) -> None:
        kept = self._break_off(store)
        kept.write_bytes(bytes(3 * _MIB))
        with pytest.raises(Damaged, match="of no use"):
            self._fetch(store)
        assert not kept.exists() and not store.has(_content(_LONG))
        assert self._fetch(store) == (_LONG, [0])

    def test_other_bytes_than_pinned_leave_nothing(self, store: Store) -> None:
        with pytest.raises(ContentMismatch, match="the file is not what was pinned"):
            self._fetch(store, data=_LONG[:-1] + b"x")
        assert not list((store.root / "partial").iterdir()) and _nothing_kept(store)

    @pytest.mark.parametrize(("days", "left"), [(6, True), (8, False)])
    def test_old_beginnings_are_swept(self, store: Store, days: int, left: bool) -> None:
        kept = self._break_off(store)
        then = time.time() - days * 24 * 3600
        os.utime(kept, (then, then))
        Store(store.root).close()
        assert kept.exists() is left
        if left:
            self._break_off(store, 4 * _MIB)
            assert time.time() - kept.stat().st_mtime < 3600


class TestMemory:
    def test_facts_are_merged(self, store: Store) -> None:
        key = "a" * 64
        store.put_facts(key, Facts(size=3, safetensors=False))
        store.put_facts(key, Facts(size=3, git_blob="b" * 40))
        assert store.facts(key) == Facts(size=3, git_blob="b" * 40, safetensors=False)
        assert store.size(Content(size=None, sha256=key)) == 3

    def test_metadata_that_utf8_cannot_hold(self, store: Store) -> None:
        facts = Facts(size=3, safetensors=True, metadata='{"a":"\\ud800","b":"é"}')
        store.put_facts("a" * 64, facts)
        store.put_facts("a" * 64, Facts(size=3))
        assert store.facts("a" * 64) == facts

    def test_receipts_gather_blobs(self, store: Store) -> None:
        one, two = (Blob(encoding=f"zstd:9:1.5.{n}", digest=f"sha256:{n}", size=n) for n in (5, 7))
        receipt = Receipt(key="a" * 64, diff_id="sha256:d", size=9)
        assert store.receipt(receipt.key) is None
        store.put_receipt(replace(receipt, blobs=(two,)))
        store.put_receipt(replace(receipt, blobs=(one,)))
        assert store.receipt(receipt.key) == replace(receipt, blobs=(one, two))
        store.put_receipt(replace(receipt, key="b" * 64, diff_id="sha256:e", blobs=(one,)))
        store.forget_blobs("a" * 16)
        assert store.receipt(receipt.key) == receipt
        assert store.receipt("b" * 64) == replace(receipt, key="b" * 64, diff_id="sha256:e", blobs=(one,))

    def test_pushes(self, store: Store) -> None:
        for repository in ("b/x", "a/x", "a/x"):
            store.remember_push("host", repository, "sha256:1")
        assert store.pushed_to("host", "sha256:1") == ["a/x", "b/x"]
        assert store.pushed_to("other", "sha256:1") == store.pushed_to("host", "sha256:2") == []


def _write(root: Path, number: int) -> None:
    store = Store(root)
    for turn in range(20):
        _add(store, b"%d" % turn * 1000)
        store.put_facts("a" * 64, Facts(size=1, **{["addnet", "header_sha256", "git_blob"][number]: "x"}))
        store.remember_push("host", f"{number}/{turn}", "sha256:1")
    store.close()


def test_processes_share_a_new_store(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write, args=(tmp_path / "store", number)) for number in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
        writer.close()
    store = Store(tmp_path / "store")
    assert all(b"".join(store.open(_content(b"%d" % turn * 1000))) for turn in range(20))
    assert len(store.pushed_to("host", "sha256:1")) == 60
    assert store.facts("a" * 64) == Facts(size=1, addnet="x", header_sha256="x", git_blob="x")
    store.close()


def test_only_abandoned_files_are_swept(tmp_path: Path) -> None:
    Store(tmp_path).close()
    old, young = tmp_path / "tmp/old", tmp_path / "tmp/young"
    old.write_bytes(b"")
    young.write_bytes(b"")
    os.utime(old, (time.time() - 3700,) * 2)
    Store(tmp_path).close()
    assert [p.name for p in (tmp_path / "tmp").iterdir()] == ["young"]


class TestUnusable:
    def test_root_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "store").write_text("")
        with pytest.raises(StoreError, match="cannot be used") as caught:
            Store(tmp_path / "store")
        assert "LAYERBUILD_STORE" in (caught.value.hint or "")

    def test_root_is_not_a_place_for_files(self) -> None:
        with pytest.raises(StoreError, match="cannot be used"):
            Store(Path("/proc/nothing"))

    def test_temporary_directory_is_gone(self, store: Store) -> None:
        (store.root / "tmp").rmdir()
        with pytest.raises(StoreError, match="cannot be used"):
            _add(store, _DATA)

    def test_database_is_no_database(self, tmp_path: Path) -> None:
        Store(tmp_path).close()
        for name in ("store.db-wal", "store.db-shm"):
            (tmp_path / name).unlink(missing_ok=True)
        (tmp_path / "store.db").write_bytes(b"no database at all" * 1000)
        with pytest.raises(StoreError, match=r"store\.db is damaged") as caught:
            Store(tmp_path)
        assert "remove it" in (caught.value.hint or "")
        (tmp_path / "store.db").unlink()
        Store(tmp_path).close()

    def test_database_is_damaged_inside(self, tmp_path: Path) -> None:
        store = Store(tmp_path)
        for number in range(300):
            store.put_facts(f"{number:064d}", Facts(size=number))
        store.close()
        path = tmp_path / "store.db"
        data = path.read_bytes()
        path.write_bytes(data[:4096] + b"\xff" * (len(data) - 4096))
        with pytest.raises(StoreError, match=r"store\.db is damaged"):
            Store(tmp_path).facts("0" * 64)

    def test_database_of_a_newer_layerbuild(self, tmp_path: Path) -> None:
        Store(tmp_path).close()
        connection = sqlite3.connect(tmp_path / "store.db")
        connection.execute("PRAGMA user_version = 99")
        connection.close()
        with pytest.raises(StoreError, match="newer layerbuild"):
            Store(tmp_path)


# --- what registries take --------------------------------------------------------------------------


def test_what_registries_take_is_remembered_for_a_week(store: Store) -> None:
    assert store.learnt("a.example.com") == {}
    store.learn("a.example.com", "chunk", 5)
    store.learn("a.example.com", "streams", 0)
    store.learn("a.example.com", "chunk", 7)
    store.learn("b.example.com", "chunk", 1)
    assert store.learnt("a.example.com") == {"chunk": 7, "streams": 0}
    for days in (6, 8, -8):
        store.query("UPDATE registries SET learnt = ? WHERE host LIKE 'a%'", time.time() - days * 24 * 3600)
        assert store.learnt("a.example.com") == ({"chunk": 7, "streams": 0} if days == 6 else {})
    store.learn("b.example.com", "streams", 0)
    assert store.query("SELECT host, name FROM registries ORDER BY name") == [
        ("b.example.com", "chunk"),
        ("b.example.com", "streams"),
    ], "what is too old is removed"


def test_a_store_of_an_older_layerbuild_is_brought_up(tmp_path: Path) -> None:
    with contextlib.closing(Store(tmp_path / "store")) as old:
        old.remember_push("a.example.com", "acme/a", "sha256:1")
        old.query("DROP TABLE registries")
        old.query("PRAGMA user_version = 1")
    with contextlib.closing(Store(tmp_path / "store")) as store:
        store.learn("a.example.com", "chunk", 5)
        assert store.learnt("a.example.com") == {"chunk": 5}
        assert store.pushed_to("a.example.com", "sha256:1") == ["acme/a"]
        assert store.query("PRAGMA user_version") == [(6,)]


def test_a_layer_is_held_for_each_place(store: Store) -> None:
    def wait() -> None:
        raise TimeoutError

    with store.locked_layer("key", "a.example.com", wait):
        with pytest.raises(TimeoutError), store.locked_layer("key", "a.example.com", wait):
            pass
        with store.locked_layer("key", "b.example.com", wait), store.locked_layer("other", "a.example.com", wait):
            pass
    with store.locked_layer("key", "a.example.com", wait):
        pass


def test_who_makes_a_store_is_waited_for(tmp_path: Path) -> None:
    """SQLite refuses some of those who turn a new database to WAL at the same time, instead of letting them wait."""
    with ThreadPoolExecutor(1) as pool:
        with locked(tmp_path, "store.lock", waiting=lambda: None):
            made = pool.submit(Store, tmp_path)
            with pytest.raises(TimeoutError):
                made.result(0.3)
        made.result(30).close()
