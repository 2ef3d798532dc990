"""YAML: lines, and everything that this project does not take."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from layerbuild.errors import Problem, ProjectError
from layerbuild.yamlfile import load, parse


def problems(text: str) -> list[Problem]:
    with pytest.raises(ProjectError) as caught:
        parse(text, "f.yaml")
    return list(caught.value.problems)


def test_lines_of_keys_and_items() -> None:
    document = parse("a: 1\nb:\n  - x\n  - y:\n      z: 3\n\nc: [1,\n  2]\n", "f.yaml")
    assert document.data == {"a": 1, "b": ["x", {"y": {"z": 3}}], "c": [1, 2]}
    assert document.line(("a",)) == 1
    assert document.line(("b", 1, "y", "z")) == 5
    assert document.line(("c", 1)) == 8
    assert document.line(("c", 5, "nothing")) == 7
    assert document.line(("b", 1, "nothing")) == 4
    assert str(document.problem(("b", 0), "wrong", "mend it")) == "f.yaml:3: b.0: wrong\n    try: mend it"


def test_empty_documents_are_none() -> None:
    assert parse("", "f.yaml").data is None
    assert parse("# nothing\n\n", "f.yaml").data is None


def test_duplicate_keys_name_both_lines() -> None:
    [found] = problems("a: 1\nb: 2\na: 3\n")
    assert (found.line, found.key) == (3, "a")
    assert "line 1" in found.message


def test_every_problem_of_a_file_is_reported() -> None:
    found = problems("1: x\na: 2020-01-01\nb: {c: 1, c: 2}\n")
    assert [p.line for p in found] == [1, 2, 3]
    assert [p.hint for p in found][:2] == ["put it in quotes", "put it in quotes"]


@pytest.mark.parametrize("key", ["1", "true", "null", "~", "1.5", "2020-01-01", "[a]", "{a: b}", "!!int 'a'"])
def test_keys_are_strings(key: str) -> None:
    [found] = problems(f"x: 1\n? {key}\n: y\n")
    assert "not a string" in found.message
    assert found.line == 2


@pytest.mark.parametrize(
    "value",
    [
        "2020-01-01",
        "2020-01-01 10:00:00",
        "!!timestamp 2020-13-45",
        "!!binary aGk=",
        "!!bool foo",
        "!!int foo",
        "!!int ''",
        "!!timestamp foo",
        "!!float foo",
        "!foo bar",
        "!foo {a: 1}",
        "!!set {a, b}",
        "!!omap [a: 1]",
        "!!python/object/apply:os.system [id]",
        "!!python/name:os.system",
        ".nan",
        "-.inf",
        "=",
        "9" * 5000,
    ],
)
def test_values_are_plain(value: str) -> None:
    [found] = problems(f"x: 1\na: {value}\n")
    assert (found.line, found.key) == (2, "a")
    assert "\n" not in found.message


def test_merge_keys() -> None:
    document = parse("base: &b {x: 1, y: 1}\none: {<<: *b, y: 2}\ntwo: {<<: [{x: 0}, *b]}\n", "f.yaml")
    assert document.data["one"] == {"x": 1, "y": 2}
    assert document.data["two"] == {"x": 0, "y": 1}
    [found] = problems("a:\n  <<: [1]\n")
    assert "'<<' takes a mapping" in found.message


def test_honest_aliases_work() -> None:
    names = ", ".join(f"name-{i}.json" for i in range(10))
    text = f"first: &files [{names}]\n" + "".join(f"layer-{i}: *files\n" for i in range(20))
    assert parse(text, "f.yaml").data["layer-19"] == [f"name-{i}.json" for i in range(10)]


def test_alias_bomb_is_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    [found] = problems("\n".join(lines))
    assert "aliases" in found.message


@pytest.mark.parametrize("place", ["a0: *a29", "? *a29\n: 1", "b: !foo [*a29]"])
def test_an_alias_bomb_where_nobody_looks_is_refused(place: str) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: !foo &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    assert "aliases" in problems("\n".join([*lines, place]))[-1].message


def test_aliases_in_anchors_and_as_keys() -> None:
    document = parse("a: &x k\nb: &y {*x : [*x, &z {c: *x}]}\nd: [*y, *z]\n", "f.yaml")
    inner = {"k": ["k", {"c": "k"}]}
    assert document.data == {"a": "k", "b": inner, "d": [inner, {"c": "k"}]}
    # What an alias stands for has the lines of the place where it is written.
    assert (document.line(("d",)), document.line(("d", 0, "k", 1, "c"))) == (3, 2)


def test_anchors_that_make_no_sense() -> None:
    [found] = problems("a: &x 1\nb: &x 2\n")
    assert (found.line, found.message) == (2, "not valid YAML: found duplicate anchor 'x'")
    [found] = problems("a: 1\nb: *y\n")
    assert (found.line, found.message) == (2, "not valid YAML: found undefined alias 'y'")


def test_lines_of_a_sound_file_are_not_read() -> None:
    document = parse("a: [1, 2]\n", "f.yaml")
    assert "lines" not in vars(document)
    assert document.line(("a", 1)) == 1 and "lines" in vars(document)


def test_equal_texts_are_held_once() -> None:
    one, other = parse("- sha256:0123456789\n- {a: sha256:0123456789}\n", "f.yaml").data
    assert one is other["a"]


def test_an_alias_of_itself_is_refused() -> None:
    [found] = problems("a: &x [*x]\n")
    assert "aliases" in found.message
    [found] = problems("a: &x\n  b: *x\n")
    assert "aliases" in found.message


@pytest.mark.parametrize("text", ["[" * 200_000, "[" * 200_000 + "]" * 200_000, "{a: " * 100_000, "- " * 100_000 + "x"])
def test_deep_nesting_is_an_error_and_not_the_end_of_the_process(text: str) -> None:
    [found] = problems(text)
    assert "levels deep" in found.message
    assert found.line == 1


def test_some_nesting_is_fine() -> None:
    assert parse("[" * 60 + "]" * 60, "f.yaml").data is not None


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: [1\nb: 2\n", 2),
        ("a: *nothing\n", 1),
        ("a: 1\n---\nb: 2\n", 2),
        ("a: 'x\n", 2),
        ("a: b: c\n", 1),
        ("a:\n\t- b\n", 2),
        ("a: \x00\n", None),
    ],
)
def test_syntax_errors_have_a_line(text: str, line: int | None) -> None:
    [found] = problems(text)
    assert found.message.startswith("not valid YAML: ")
    assert found.line == line
    assert "\n" not in found.message


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9\n")
    for name, message in (("latin.yaml", "not UTF-8 text"), ("none.yaml", "cannot be read: No such file or directory")):
        with pytest.raises(ProjectError) as caught:
            load(tmp_path / name, f"layers/{name}")
        assert str(caught.value.problems[0]).startswith(f"layers/{name}: {message}\n    try: ")


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


@given(JSON, st.booleans())
def test_what_yaml_writes_is_read_back(value: object, flow: bool) -> None:
    text = yaml.safe_dump(value, default_flow_style=flow)
    assert parse(text, "f.yaml").data == value
