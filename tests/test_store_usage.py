"""Who uses a store: what is used stays, and what the dead have left keeps nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from builders import sha256
from layerbuild.care import Item
from layerbuild.model import Content
from layerbuild.store import Store
from layerbuild.store.inventory import Inventory
from layerbuild.store.usage import others_since

_OLD = 10**18
"""2001."""

_LATE = 15 * 10**17
"""2017."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


def opened(root: Path) -> contextlib.closing[Store]:
    return contextlib.closing(Store(root))


def put(store: Store, data: bytes, *, used: int | None = None) -> Content:
    content = store.add([data], Content(size=len(data), sha256=sha256(data)), name="x", advance=lambda _: None)
    if used is not None:
        os.utime(path_of(store.root, content), ns=(used, used))
    return content


def path_of(root: Path, content: Content) -> Path:
    assert content.sha256
    return root / "files" / content.sha256[:2] / content.sha256


def items(store: Store) -> dict[str, Item]:
    return {item.name: item for item in Inventory(store).items()}


def removed(store: Store, cutoff: int) -> set[str]:
    inventory = Inventory(store)
    with inventory.alone(lambda: None):
        return {item.name for item in inventory.remove(inventory.items(), cutoff, lambda _: None)}


_HOLDER = """
import sys
from pathlib import Path
from layerbuild.model import Content
from layerbuild.store import Store
store = Store(Path(sys.argv[1]))
print(*(store.has(Content(size=None, sha256=name)) for name in sys.argv[2:]), flush=True)
sys.stdin.readline()
"""


@contextlib.contextmanager
def another(root: Path, *used: Content) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that has the store open, and has asked for contents."""
    command = [sys.executable, "-c", _HOLDER, str(root), *(content.sha256 or "" for content in used)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline().split() == [b"True"] * len(used)
        yield process
        process.kill()


def test_what_another_process_asked_for_stays_until_it_is_killed(root: Path) -> None:
    with opened(root) as store:
        used, idle = put(store, b"used", used=_OLD), put(store, b"idle", used=_OLD)
    with opened(root) as store:
        with another(root, used) as process:
            (cutoff,) = others_since(root, own=store.usage)
            assert removed(store, cutoff) == {idle.sha256}
            assert path_of(root, used).exists()
            process.send_signal(signal.SIGKILL)
            process.wait()
            assert others_since(root, own=store.usage) == []
        assert len(list((root / "users").iterdir())) == 1, "the dead one's file is gone, the own one is not"
        assert removed(store, time.time_ns()) == {used.sha256}


def test_looking_at_a_store_uses_nothing(root: Path) -> None:
    with opened(root) as store:
        content = put(store, b"old", used=_OLD)
        Inventory(store).document(content.sha256 or "")
        assert items(store)[content.sha256 or ""].used_ns == _OLD


def test_asking_open_file_and_document_are_uses(root: Path) -> None:
    with opened(root) as store:
        blob, _ = store.add_blob([b"blob"])
        content = put(store, b"data")
        path = path_of(root, content)
        uses = {
            "has": lambda: store.has(content),
            "open": lambda: b"".join(store.open(content)),
            "document": lambda: store.document(content.sha256 or ""),
            "file": lambda: store.file(content).close(),
            "add_document": lambda: store.add_document(b"data"),
        }
        for name, use in uses.items():
            os.utime(path, ns=(_OLD, _OLD))
            use()
            assert path.stat().st_mtime_ns >= store.usage.since, name
        at = store.blob_path(blob)
        assert at is not None
        os.utime(at, ns=(_OLD, _OLD))
        store.blob_path(blob)
        assert at.stat().st_mtime_ns >= store.usage.since


def test_what_was_used_by_a_clock_that_was_turned_back_stays(root: Path) -> None:
    with opened(root) as store:
        store.usage.since = time.time_ns() + 3600 * 10**9
        content = put(store, b"data")
        assert path_of(root, content).stat().st_mtime_ns >= store.usage.since


def test_what_somebody_uses_whose_clock_is_behind_stays(root: Path) -> None:
    """The clock was set back while things are removed, or the other one is on a machine that shares the store."""
    with opened(root) as store, opened(root) as late:
        used, idle = put(store, b"used", used=_OLD), put(store, b"idle", used=_OLD)
        (mine,) = (p for p in (root / "users").iterdir() if p.stat().st_mtime_ns == late.usage.since)
        late.usage.since = _LATE
        os.utime(mine, ns=(_LATE, _LATE))
        path = path_of(root, used)
        assert late.has(used)
        os.utime(path, ns=(_LATE, _LATE))
        assert removed(store, time.time_ns()) == {idle.sha256}


def test_who_asks_while_things_are_removed_finds_them_whole_or_not_at_all(root: Path) -> None:
    """Whatever one process was told is there, it can read, however much another one removes meanwhile."""
    with opened(root) as store:
        contents = [put(store, f"{n}".encode() * 50, used=_OLD) for n in range(600)]
        start, broken, found = threading.Barrier(2), [], []

        def ask() -> None:
            with opened(root) as other:
                # Began before the collection looked who lives.
                began.set()
                start.wait()
                found.extend(content.sha256 for content in reversed(contents) if other.has(content))
                ready.wait()
                broken.extend(c for c in found if not (root / "files" / str(c)[:2] / str(c)).exists())

        began, ready = threading.Event(), threading.Event()
        asking = threading.Thread(target=ask)
        asking.start()
        began.wait()
        (cutoff,) = others_since(root, own=store.usage)
        start.wait()
        gone = removed(store, cutoff)
        ready.set()
        asking.join()
        assert broken == []
        assert gone | set(found) == {content.sha256 for content in contents}
        assert not gone & set(found)


def test_a_repository_that_a_git_is_at_work_in_stays(root: Path) -> None:
    with opened(root) as store:
        place = root / "git" / ("a" * 64)
        (place / "objects").mkdir(parents=True)
        (place / "HEAD").write_text("ref: refs/heads/main\n")
        os.utime(place / "HEAD", ns=(_OLD, _OLD))
        lock = place.with_suffix(".lock")
        lock.touch()
        # What a git has inherited from a layerbuild that was killed.
        with subprocess.Popen(["flock", str(lock), "sh", "-c", "echo held; read x"], stdin=-1, stdout=-1) as git:
            assert git.stdout is not None and git.stdout.readline() == b"held\n"
            assert removed(store, time.time_ns()) == set()
            git.communicate(b"\n")
        assert removed(store, time.time_ns()) == {"a" * 64}
        assert not place.exists() and not (root / "trash").exists()


def test_what_a_killed_collection_had_taken_out_is_removed_by_the_next(root: Path) -> None:
    with opened(root) as store:
        (root / "trash" / "x" / "objects").mkdir(parents=True)
        assert removed(store, 0) == set()
        assert not (root / "trash").exists()


def test_a_forked_child_does_not_leave_for_its_parent(root: Path) -> None:
    with opened(root) as store:
        child = os.fork()
        if child == 0:
            store.usage.leave()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        with opened(root) as other:
            assert len(others_since(root, own=other.usage)) == 1
