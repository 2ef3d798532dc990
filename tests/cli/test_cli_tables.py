"""Tables for people: 80 columns, printable only, and digests whole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerbuild.cli import tables
from layerbuild.cli.tables import Row, columns, cut, fold, listed, print_field, print_rows

DIGEST = "sha256:" + "0123456789abcdef" * 4


@given(st.text(max_size=300), st.integers(12, 100))
def test_cut_and_fold_keep_their_width(text: str, width: int) -> None:
    assert columns(cut(text, width)) <= width
    lines = fold(text, width)
    assert lines and all(columns(line) <= width for line in lines)
    assert all(line.isprintable() for line in lines)


@given(st.text(alphabet="ab/@-._é漢", max_size=300), st.integers(12, 100))
def test_fold_loses_nothing(text: str, width: int) -> None:
    assert "".join(fold(text, width)) == text


@pytest.mark.parametrize("before", ["", "x ", "hf://acme/models@", "a/" * 30, "x" * 70 + " "])
def test_a_digest_is_never_broken(before: str) -> None:
    lines = fold(f"{before}{DIGEST} and more", 71)
    assert sum(DIGEST in line for line in lines) == 1


def test_wide_characters_take_two_columns() -> None:
    assert columns("漢字") == 4 and columns("e\u0301") == 1
    assert cut("漢字漢字", 6) == "漢字…" and columns(cut("漢字漢字", 5)) <= 5
    assert cut("model-of-a-family-001", 13) == "model-of…-001"


def test_rows_line_up_and_fit(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [Row(cells=["n" * 100, "12", "漢" * 60]), Row(cells=["short", "3", "also"])]
    print_rows(["NAME", "SIZE", "IN"], rows, right=frozenset({1}), yielding=(0, 2))
    lines = capsys.readouterr().out.splitlines()
    assert all(columns(line) <= tables.WIDTH for line in lines)
    assert lines[1].count("…") == 2 and lines[2].endswith("also")
    assert len({columns(line[: line.index(word)]) for line, word in zip(lines, ("SIZE", "12", "3"), strict=True)}) > 1
    assert columns(lines[0][: lines[0].index("SIZE") + 4]) == columns(lines[1][: lines[1].index("12") + 2])


def test_nothing_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\r\n\u202e\x9b31m"
    print_rows(["NAME"], [Row(cells=[evil])])
    print_field("name", evil)
    out = capsys.readouterr().out
    assert not set("\x1b\x07\r\u202e\x9b") & set(out) and len(out.splitlines()) == 3


def test_fields_hang(capsys: pytest.CaptureFixture[str]) -> None:
    print_field("source", ["hf://" + "/".join(["directory"] * 12), DIGEST])
    print_field("nothing", [])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("source   hf://") and all(line.startswith(" " * 9) for line in lines[1:])
    assert lines[-1] == f"{' ' * 9}{DIGEST}" and all(len(line) <= 80 for line in lines)


def test_lists_end() -> None:
    assert listed(["a", "b"], "images") == "a, b" and listed(list("abc"), "images") == "3 images"
    assert listed([], "images") == ""
