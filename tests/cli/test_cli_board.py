"""The lines of progress, without a terminal: what is shown, in which width, and when."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from layerbuild.cli.board import ROWS, Board, Line, Pace, cut

MiB = 1024**2


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def board(clock: Clock) -> Board:
    return Board(clock)


def text(line: Line) -> str:
    return line.label + (f" {line.bar}{line.rest} " if line.bar or line.rest else "") + line.figures


def shown(board: Board, width: int = 80) -> list[str]:
    return [" ".join(text(line).split()) for line in board.lines(width)]


def test_what_ends_within_a_second_is_never_shown(board: Board, clock: Clock) -> None:
    row = board.begin("read x", 10)
    clock.now += 0.9
    assert board.lines(80) == []
    board.end(row)
    clock.now += 5
    assert board.lines(80) == []


def test_bytes_rate_and_time_left(board: Board, clock: Clock) -> None:
    row = board.begin("fetch night", 100 * MiB)
    for _ in range(20):
        clock.now += 0.5
        board.advance(row, MiB)
        board.lines(80)
    (line,) = shown(board)
    assert line == "fetch night 20.0 MiB of 100.0 MiB 2.0 MiB/s 0:40"


def test_what_nobody_knows_is_left_out(board: Board, clock: Clock) -> None:
    board.begin("lock base", None)
    clock.now += 2
    assert shown(board) == ["lock base"]


def test_no_rate_before_anything_came(clock: Clock) -> None:
    pace = Pace(clock.now)
    clock.now += 5
    assert pace.rate(clock.now, 0) is None
    clock.now += 5
    assert pace.rate(clock.now, 100) == pytest.approx(10)


def test_a_rate_is_that_of_the_last_seconds(clock: Clock) -> None:
    pace = Pace(clock.now)
    done = 0
    for speed in (100, 1):
        for _ in range(100):
            clock.now += 0.25
            done += speed
            rate = pace.rate(clock.now, done)
    assert rate == pytest.approx(4, rel=0.1)


def test_many_tasks_fit_eight_lines(board: Board, clock: Clock) -> None:
    rows = [board.begin(f"push weights {i}", 10 * MiB) for i in range(18)]
    for row in rows:
        board.advance(row, MiB)
    clock.now += 2
    lines = shown(board)
    assert len(lines) == ROWS + 2 == 8
    assert lines[0].startswith("push weights 0 ")
    assert lines[ROWS] == "and 12 more 12.0 MiB of 120.0 MiB"
    assert lines[-1] == "total 18.0 MiB of 180.0 MiB 9.0 MiB/s 0:18"


def test_lines_keep_their_places(board: Board, clock: Clock) -> None:
    first, second = board.begin("first", 10), board.begin("second", 10)
    clock.now += 2
    board.begin("third", 10)
    assert [line.split()[0] for line in shown(board)] == ["first", "second", "total"]
    board.end(first)
    clock.now += 2
    assert [line.split()[0] for line in shown(board)] == ["second", "third", "total"]
    board.end(second)


def test_the_sum_has_what_is_over_what_will_come_and_what_is_known(board: Board, clock: Clock) -> None:
    board.expect(30 * MiB)
    board.spare("known", 5 * MiB)
    board.spare("present", 6 * MiB)
    board.spare("mounted", MiB)
    over = board.begin("one", 10 * MiB)
    board.advance(over, 10 * MiB)
    board.end(over)
    running = board.begin("two", 10 * MiB)
    board.advance(running, 5 * MiB)
    clock.now += 2
    # The third of the three that were expected has not begun; what was known and then found is one thing.
    assert shown(board)[-1] == "total, 7.0 MiB known already 15.0 MiB of 30.0 MiB 7.5 MiB/s 0:02"


def test_a_task_that_failed_does_not_stay_in_the_sum(board: Board, clock: Clock) -> None:
    failed = board.begin("one", 10 * MiB)
    board.advance(failed, MiB)
    board.end(failed)
    board.begin("two", 10 * MiB)
    clock.now += 2
    assert shown(board)[-1].startswith("total 1.0 MiB of 11.0 MiB")


@pytest.mark.parametrize("width", [1, 2, 10, 20, 30, 40, 60, 80, 100, 200])
def test_every_width(board: Board, clock: Clock, width: int) -> None:
    labels = ("fetch " + "x" * 300, "漢字" * 60, "short", "e\u0301" * 90)
    for row in [board.begin(label, 5000 * MiB) for label in labels]:
        board.advance(row, MiB)
    board.spare("present", 123456789)
    clock.now += 2
    for line in board.lines(width):
        assert cell_len(text(line)) <= max(1, min(width, 120) - 1), line
        if width >= 40:
            assert "of" in line.figures
    assert any(line.bar or line.rest for line in board.lines(width)) == (width >= 100)


def test_a_label_is_cut_in_its_middle() -> None:
    assert cut("fetch night-of-the-long-names.safetensors", 20) == "fetch night-o…ensors"
    assert cut("ab", 4) == "ab  " and len(cut("abcdefghij", 5)) == 5
    assert cell_len(cut("漢字" * 20, 21)) == 21


def test_labels_obey_nobody(board: Board, clock: Clock) -> None:
    board.begin("fetch \x1b[2Jx\ny", 10)
    clock.now += 2
    assert "\x1b" not in text(board.lines(80)[0]) and "\n" not in text(board.lines(80)[0])
