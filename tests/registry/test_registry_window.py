"""Bytes that are read once, and of which the last can be had again."""

from __future__ import annotations

from collections.abc import Generator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerbuild.errors import SourceError
from layerbuild.registry.window import Window

DATA = bytes(range(256)) * 4


class Source:
    def __init__(self, pieces: int) -> None:
        self.pieces = pieces
        self.opened: list[int] = []
        self.closed = 0

    def open(self, start: int) -> Generator[bytes, None, None]:
        self.opened.append(start)
        try:
            for at in range(start, len(DATA), self.pieces):
                yield DATA[at : at + self.pieces]
        finally:
            self.closed += 1


def read(window: Window, start: int, stop: int) -> bytes:
    return b"".join(window.read(start, stop))


@given(
    pieces=st.integers(1, 300),
    held=st.integers(0, 600),
    reads=st.lists(st.tuples(st.integers(0, len(DATA)), st.integers(0, len(DATA)), st.integers(1, 5)), max_size=8),
)
def test_whatever_is_asked_for_is_given(pieces: int, held: int, reads: list[tuple[int, int, int]]) -> None:
    source = Source(pieces)
    window = Window(source.open, len(DATA), held=held)
    for start, stop, few in reads:
        # As a connection that breaks: some of it is taken, and then something else is wanted.
        broken = window.read(min(start, stop), max(start, stop))
        for _ in zip(broken, range(few), strict=False):
            pass
        broken.close()
        assert read(window, min(start, stop), max(start, stop)) == DATA[min(start, stop) : max(start, stop)]
    window.close()
    assert source.closed == len(source.opened)


def test_chunks_come_from_one_read() -> None:
    source = Source(100)
    window = Window(source.open, len(DATA))
    assert b"".join(read(window, at, min(at + 70, len(DATA))) for at in range(0, len(DATA), 70)) == DATA
    assert source.opened == [0]
    assert source.closed == 1, "at the end it is read to its end"


def test_what_is_held_is_not_read_again() -> None:
    source = Source(10)
    window = Window(source.open, len(DATA), held=200)
    read(window, 0, 500)
    assert read(window, 300, 600) == DATA[300:600]
    assert source.opened == [0]
    assert read(window, 420, 460) == DATA[420:460]
    assert source.opened == [0]
    assert read(window, 100, 700) == DATA[100:700]
    assert source.opened == [0, 100]


def test_no_more_is_held_than_is_asked_for() -> None:
    window = Window(Source(10).open, len(DATA), held=200)
    for at in range(0, len(DATA), 64):
        read(window, at, at + 64)
        assert sum(map(len, window._pieces)) <= 210


def test_the_end_is_read_even_if_nothing_of_it_is_wanted() -> None:
    source = Source(10)
    window = Window(source.open, len(DATA))
    read(window, 0, 100)
    window.finish()
    window.finish()
    assert (source.opened, source.closed) == ([0], 1)
    nothing = Source(10)
    Window(nothing.open, len(DATA)).finish()
    assert (nothing.opened, nothing.closed) == ([0], 1)


def test_a_read_that_fails() -> None:
    def failing(start: int) -> Generator[bytes, None, None]:
        yield DATA[start:500]
        raise SourceError("gone")

    window = Window(failing, len(DATA))
    assert read(window, 100, 500) == DATA[100:500]
    with pytest.raises(SourceError, match="gone"):
        read(window, 500, 600)
    window.close()
