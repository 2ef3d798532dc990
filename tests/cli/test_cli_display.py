"""Progress and tables."""

from __future__ import annotations

import time

import pytest

from layerbuild.cli import display
from layerbuild.progress import Tally


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, "?"),
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (1024**2, "1.0 MiB"),
        (4265146304, "4.0 GiB"),
        (3 * 1024**4, "3.0 TiB"),
        (5000 * 1024**4, "5000.0 TiB"),
    ],
)
def test_size(count: int | None, text: str) -> None:
    assert display.size(count) == text


def test_table_lines_up(capsys: pytest.CaptureFixture[str]) -> None:
    display.print_table(["NAME", "SIZE"], [["a", "1.0 KiB"], ["b" * 90, "9 B"]], right=frozenset({1}))
    lines = capsys.readouterr().out.splitlines()
    assert [line.rstrip() for line in lines] == lines
    assert {len(line) for line in lines} == {80} and "…" in lines[2]
    display.print_table(["NAME"], [])
    assert capsys.readouterr().out == "NAME\n"


class TestLines:
    @pytest.fixture
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        now = [100.0]
        monkeypatch.setattr(time, "monotonic", lambda: now[0])
        return now

    def test_short_tasks_say_nothing(self, capsys: pytest.CaptureFixture[str], clock: list[float]) -> None:
        with display.Lines().task("read x", 10) as task:
            task.advance(10)
            clock[0] += 0.5
        assert capsys.readouterr() == ("", "")

    def test_long_tasks_say_how_far(self, capsys: pytest.CaptureFixture[str], clock: list[float]) -> None:
        with display.Lines().task("read x", 4096) as task:
            task.advance(1024)
            clock[0] += 11
            task.advance(1024)
        assert capsys.readouterr() == ("", "read x: 2.0 KiB of 4.0 KiB\nread x: 2.0 KiB in 11.0 s\n")

    def test_notes_stay(self, capsys: pytest.CaptureFixture[str]) -> None:
        display.Lines().note("[x] this")
        assert capsys.readouterr() == ("", "[x] this\n")

    def test_failed_task_is_not_done(self, capsys: pytest.CaptureFixture[str], clock: list[float]) -> None:
        with pytest.raises(KeyError), display.Lines().task("read x"):
            clock[0] += 5
            raise KeyError
        assert capsys.readouterr() == ("", "")


def test_quiet_and_no_terminal() -> None:
    assert type(display.make_progress(quiet=True)) is display.Silent
    assert type(display.make_progress(quiet=True, events=True)) is display.Silent
    assert type(display.make_progress(quiet=False)) is display.Lines
    assert type(display.make_progress(quiet=False, events=True)) is display.Events
    display.settle()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (3.14, "3.1 s"),
        (99.9, "99.9 s"),
        (99.96, "1 min 40 s"),
        (250, "4 min 10 s"),
        (7500, "2 h 5 min"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert display.duration(seconds) == text


def test_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    tally = Tally()
    now[0] += 3.1
    spared = {"were there already": 6 * 1024**3, "were mounted": 0}
    assert display.closing(tally, moved="sent 14.2 MiB", spared=spared) == (
        "sent 14.2 MiB in 3.1 s; 6.0 GiB were there already"
    )
    assert display.closing(tally, moved="sent 0 B", spared={"were mounted": 0}) == "sent 0 B in 3.1 s"
