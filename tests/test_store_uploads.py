"""What the store remembers of uploads: for its owner only, for a day, and for one sender at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from layerbuild.errors import StoreError
from layerbuild.store.database import Database
from layerbuild.store.uploads import UploadSessions

PLACE = ("registry.example.com", "acme/a", "sha256:" + "0" * 64)
ADDRESS = "https://registry.example.com/v2/acme/a/blobs/uploads/1?_state=hunter2"


def sessions(root: Path, told: list[str] | None = None) -> UploadSessions:
    return UploadSessions(Database(root), waiting=(told if told is not None else []).append)


def files(root: Path) -> list[Path]:
    return sorted((root / "uploads").iterdir())


def left(root: Path, place: tuple[str, str, str] = PLACE) -> str | None:
    """What is remembered now, which a look does not change."""
    with sessions(root).held(*place) as upload:
        return upload.get()


def test_what_is_put_is_there_for_the_next(tmp_path: Path) -> None:
    with sessions(tmp_path).held(*PLACE) as upload:
        assert upload.get() is None
        assert upload.places() == []
        upload.put(ADDRESS + "&much=longer")
        upload.put(ADDRESS)
        assert upload.get() == ADDRESS
    assert left(tmp_path) == left(tmp_path) == ADDRESS
    for other in (("x", *PLACE[1:]), (PLACE[0], "x", PLACE[2]), (*PLACE[:2], "x")):
        assert left(tmp_path, other) is None
    assert len(files(tmp_path)) == 1, "nothing stays where nothing was put"


def test_what_is_dropped_leaves_nothing(tmp_path: Path) -> None:
    with sessions(tmp_path).held(*PLACE) as upload:
        upload.put(ADDRESS)
        upload.drop()
        assert upload.get() is None
    assert files(tmp_path) == []


def test_a_failure_keeps_it(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), sessions(tmp_path).held(*PLACE) as upload:
        upload.put(ADDRESS)
        raise ZeroDivisionError
    assert left(tmp_path) == ADDRESS


def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with sessions(tmp_path).held(*PLACE) as upload:
            upload.put(ADDRESS)
    finally:
        os.umask(before)
    (path,) = files(tmp_path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert "registry" not in path.name


def age(path: Path, hours: float) -> None:
    then = time.time() - hours * 3600
    os.utime(path, (then, then))


def test_a_day_later_it_is_forgotten(tmp_path: Path) -> None:
    with sessions(tmp_path).held(*PLACE) as upload:
        upload.put(ADDRESS)
    (path,) = files(tmp_path)
    age(path, 23)
    assert left(tmp_path) == ADDRESS
    age(path, 25)
    with sessions(tmp_path).held("other", "other", "other"):
        assert path not in files(tmp_path), "others sweep it up"


def test_what_is_under_way_for_longer_is_not_swept_up(tmp_path: Path) -> None:
    with sessions(tmp_path).held(*PLACE) as upload:
        upload.put(ADDRESS)
        (path,) = files(tmp_path)
        age(path, 25)
        with sessions(tmp_path).held("other", "other", "other"):
            assert path in files(tmp_path)


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"https://half-writ", b"https://a\nhttps://b\n", b"https://" + b"a" * 20_000 + b"\n"]
)
def test_what_was_not_written_whole_is_no_address(tmp_path: Path, data: bytes) -> None:
    with sessions(tmp_path).held(*PLACE) as upload:
        upload.put(ADDRESS)
    files(tmp_path)[0].write_bytes(data)
    assert left(tmp_path) is None


def test_one_sends_and_the_others_wait(tmp_path: Path) -> None:
    told: list[str] = []
    waiting, order = threading.Event(), list[str]()

    def note(digest: str) -> None:
        told.append(digest)
        waiting.set()

    def second() -> None:
        with UploadSessions(Database(tmp_path), waiting=note).held(*PLACE):
            order.append("second")

    thread = threading.Thread(target=second)
    with sessions(tmp_path).held(*PLACE) as upload:
        thread.start()
        assert waiting.wait(30)
        order.append("first")
        upload.put(ADDRESS)
    thread.join()
    assert order == ["first", "second"]
    assert told == [PLACE[2]]


def test_a_holder_that_is_killed_lets_go_and_leaves_its_address(tmp_path: Path) -> None:
    script = (
        "import sys, time\nfrom pathlib import Path\n"
        "from layerbuild.store.database import Database\nfrom layerbuild.store.uploads import UploadSessions\n"
        "with UploadSessions(Database(Path(sys.argv[1])), waiting=print).held(*sys.argv[2:5]) as upload:\n"
        "    upload.put(sys.argv[5])\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path), *PLACE, ADDRESS]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        process.send_signal(signal.SIGKILL)
    assert left(tmp_path) == ADDRESS


def test_a_store_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "uploads").write_text("in the way")
    with pytest.raises(StoreError), sessions(tmp_path).held(*PLACE):
        pass


def test_what_is_done_is_known_before_it_is_let_go(tmp_path: Path) -> None:
    """Also by who would send it to another repository."""
    waiting, found = threading.Event(), list[str]()

    def second() -> None:
        here = UploadSessions(Database(tmp_path), waiting=lambda _: waiting.set())
        with here.held(PLACE[0], "acme/b", PLACE[2], anywhere=True) as upload:
            found.extend(upload.places())

    thread = threading.Thread(target=second)
    with sessions(tmp_path).held(*PLACE, anywhere=True) as upload:
        thread.start()
        assert waiting.wait(30)
        upload.done()
    thread.join()
    assert found == [PLACE[1]]
    assert files(tmp_path) == []
    assert list((tmp_path / "sending").iterdir()) == []


def test_who_cannot_mount_waits_only_for_its_own_repository(tmp_path: Path) -> None:
    told: list[str] = []
    with sessions(tmp_path).held(*PLACE, anywhere=True), sessions(tmp_path, told).held(PLACE[0], "acme/b", PLACE[2]):
        pass
    assert told == []
