"""Instructions and words of Dockerfiles, however they are written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerbuild.dockerfile.reading import LARGEST, commands, expanded, instructions, is_known
from layerbuild.dockerfile.showing import shortened
from layerbuild.dockerfile.stages import Reader
from layerbuild.dockerfile.words import parsed
from layerbuild.errors import LayerbuildError, UsageError


def read(text: str | bytes) -> list[tuple[str, str, int]]:
    data = text.encode() if isinstance(text, str) else text
    return [(i.name, i.value, i.line) for i in instructions(data, "Dockerfile")]


def words(value: str, **variables: str) -> list[tuple[str, ...]]:
    return [command.words for command in commands(value, variables)]


def test_lines_that_go_on_and_comments() -> None:
    text = "# a\nfrom x\r\n\nRUN a && \\\n  # why\n  b \\\n  c\nCMD d\\\n"
    assert read(text) == [("FROM", "x", 2), ("RUN", "a &&   b   c", 4), ("CMD", "d", 8)]


def test_another_escape_character() -> None:
    assert read("# escape=`\nFROM x\nRUN a `\n b\\c\n")[1][:2] == ("RUN", "a  b\\c")


def test_scripts_in_the_file_itself() -> None:
    text = "FROM x\nRUN <<EOF\nset -e\n\n# no\nwget a \\\n  b\nEOF\nCOPY <<'E' /f\nRUN no\nE\nCMD z\n"
    found = read(text)
    assert [(name, line) for name, _, line in found] == [("FROM", 1), ("RUN", 2), ("COPY", 9), ("CMD", 12)]
    assert words(found[1][1]) == [("set", "-e"), ("wget", "a", "b"), (":",)]


@pytest.mark.parametrize(
    "data", [b"", b"RUN x", b"\xff\xfe\x00", b"FROM x\n" + b"#" * LARGEST, b"FROM x\n" + b"\n" * 6000]
)
def test_what_is_no_dockerfile(data: bytes) -> None:
    with pytest.raises(UsageError) as caught:
        read(data)
    assert caught.value.hint and caught.value.cause


def test_variables() -> None:
    known = {"A": "1", "E": ""}
    assert expanded("$A ${A} ${A}b ${B:-2} ${E:-3} ${E-4} ${A:+5} ${B:+6}|", known) == "1 1 1b 2 3 4 5 |"
    assert expanded("$B ${B} $(date) ${A%x}", known) == "$B ${B} $(date) ${A%x}"
    assert is_known("a b") and not is_known("$x") and not is_known("`x`")


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("a b && c; d || e & f", [("a", "b"), ("c",), ("d",), ("e",), ("f",)]),
        ("a 'b && c' \"d;e\"", [("a", "b && c", "d;e")]),
        ("a > /dev/null 2>&1 && b < x", [("a",), ("b",)]),
        ("X=1 a $X", [("a", "$X")]),
        ("X=1; a $X", [("a", "1")]),
        ("export X=1 Y=2 && a $X$Y", [("a", "12")]),
        ("sudo -E a", [("-E", "a")]),
        ('["a", "b c"]', [("a", "b c")]),
        ('["sh", "-c", "a && b"]', [("a",), ("b",)]),
        ("a $(b $(c)) d", [("a", "\ufffc", "d")]),
        ("a `b` c", [("a", "\ufffc", "c")]),
        ("a $IN", [("a", "inside")]),
    ],
)
def test_commands(value: str, found: list[tuple[str, ...]]) -> None:
    assert words(value, IN="inside") == found


def test_conditions_and_loops_are_not_certain() -> None:
    found = commands("a; for x in 1 2; do b; c; done; if d; then e; fi; f", {})
    assert {command.words[0]: command.certain for command in found} == {
        **dict.fromkeys("af", True),
        **dict.fromkeys("bcde", False),
    }
    assert [command.certain for command in commands("a 'b", {})] == [False]


def test_options_of_commands() -> None:
    line = parsed(["-qO", "/a", "-P/b", "--out=c", "--dir", "d", "x", "--", "-y"], ("O", "P", "dir"))
    assert dict(line.options) == {"q": [], "O": ["/a"], "P": ["/b"], "out": ["c"], "dir": ["d"]}
    assert (
        line.operands == ["x", "-y"] and line.last("x", "P", "O") == "/b" and line.has("q") and line.last("q") is None
    )


@pytest.mark.parametrize(
    "command",
    [
        ["hf", "download", "x", "--token", "SECRET1"],
        ["curl", "-H", "Authorization: Bearer SECRET1"],
        ["wget", "https://u:SECRET1@x.y/z?token=SECRET1"],
        ["export", "HF_TOKEN=SECRET1"],
        ["login", "hf_SECRET1"],
    ],
)
def test_secrets_are_not_shown(command: list[str]) -> None:
    assert "SECRET1" not in shortened(command)


pieces = st.sampled_from(
    [
        *(
            "FROM x",
            "FROM x AS b",
            "\n",
            "RUN ",
            "COPY ",
            "ADD ",
            "ENV ",
            "ARG ",
            "CMD ",
            "LABEL ",
            "--from=b ",
            "\\\n",
        ),
        *(
            "wget ",
            "-O ",
            "/a/b ",
            "https://x.y/z ",
            "git clone ",
            "git reset --hard ",
            "cd ",
            "$(",
            ")",
            "`",
            "'",
            '"',
        ),
        *(
            "&& ",
            "| ",
            "; ",
            "<<EOF\n",
            "EOF\n",
            "${A:-",
            "}",
            "$A ",
            "[",
            "]",
            '["a"]',
            "cp ",
            "mv ",
            "rm ",
            "chmod +x ",
        ),
        *(
            "hf download ",
            "a/b ",
            "--local-dir ",
            "python x.py --ckpt ",
            "\x00",
            "\ufffd",
            "WORKDIR ",
            "~",
            "../.. ",
            "= ",
        ),
    ]
)


@given(parts=st.lists(pieces, max_size=40))
def test_nothing_is_too_strange_to_be_read(parts: list[str]) -> None:
    reader = Reader()
    try:
        for instruction in instructions(("FROM y\n" + "".join(parts)).encode(), "Dockerfile"):
            reader.read(instruction)
        reader.finish()
    except LayerbuildError:
        return
    assert all(remark.line >= 1 and remark.what.isprintable() for remark in reader.remarks)
    assert all(path.startswith("/") and ".." not in path.split("/") for path in reader.last.things)
