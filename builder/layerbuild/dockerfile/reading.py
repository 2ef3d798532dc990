"""A Dockerfile's instructions with their lines, and the commands of a RUN as words. Pure.

Instructions are split by dockerfile-parse, words by `shlex`. Variables are put in where a Dockerfile's ARG and ENV
say what they are; what only a shell could know stays as it is written, and counts as unknown.
"""

from __future__ import annotations

import io
import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from layerbuild.errors import UsageError

LARGEST = 256 * 1024
"""Bytes of a Dockerfile. What parses it takes time that grows with the square of a long instruction."""

LONGEST = 64 * 1024
"""Characters that the variables of one text may make."""

_MOST_LINES = 5000
_HEREDOC = re.compile(r"^(\s*RUN\s+)<<-?\s*([\"']?)([A-Za-z_][A-Za-z0-9_]*)\2\s*$", re.IGNORECASE)
_FILE_HEREDOC = re.compile(r"^\s*(?:COPY|ADD)\s.*<<-?\s*([\"']?)([A-Za-z_][A-Za-z0-9_]*)\1", re.IGNORECASE)
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)(?::?([-+])([^{}$]*))?\})", re.ASCII)
_ENDS = frozenset((";", "&&", "||", "|", "&", "\n"))
_PIPES = frozenset(("|",))
SUBSTITUTED = "\ufffc"
"""Stands for what a command substitution would give."""


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """One instruction.

    Attributes:
        name: in upper case.
        value: with continuation lines joined.
        lines: as they are written, by their 1-based numbers.
    """

    name: str
    value: str
    lines: Mapping[int, str]

    @property
    def line(self) -> int:
        """Where it begins."""
        return min(self.lines)


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command of a shell line.

    Attributes:
        words: with variables put in, where they are known; see `is_known`.
        certain: whether it runs, and once: no condition and no loop is around it, and its quotes close.
        piped: whether it reads what the command before it writes.
    """

    words: tuple[str, ...]
    certain: bool = True
    piped: bool = False


def instructions(data: bytes, name: str) -> list[Instruction]:
    """The instructions of a Dockerfile, comments left out.

    Args:
        name: of the file, for messages.

    Raises:
        UsageError: it is too large, or none.
    """
    from dockerfile_parse import DockerfileParser  # noqa: PLC0415  # only one command needs it

    text = data.decode("utf-8", errors="replace").removeprefix("\ufeff").replace("\r\n", "\n").replace("\0", "")
    if len(data) > LARGEST or text.count("\n") > _MOST_LINES:
        limits = f"at most {LARGEST} bytes and {_MOST_LINES} lines are read"
        raise UsageError(f"{name} is no usual Dockerfile", cause=limits, hint="import the part that makes the image")
    # An empty line ends what would be continued behind the end.
    written = text.split("\n")
    prepared = "\n".join(_without_heredocs(written)) + "\n\n"
    parser = DockerfileParser(fileobj=io.BytesIO(prepared.encode()), env_replace=False)
    found = [
        Instruction(
            name=str(item["instruction"]),
            value=str(item["value"]).strip(),
            lines=dict(enumerate(written[item["startline"] : item["endline"] + 1], item["startline"] + 1)),
        )
        for item in parser.structure
        if item["instruction"] != "COMMENT"
    ]
    if not any(instruction.name == "FROM" for instruction in found):
        raise UsageError(f"{name} is no Dockerfile", cause="it has no FROM", hint="name the file that builds the image")
    return sorted(found, key=lambda instruction: instruction.line)


def _without_heredocs(lines: list[str]) -> Iterator[str]:
    """Lines in which the scripts of `RUN <<EOF` are continued lines; files of `COPY <<EOF` are empty ones."""
    end, script = "", False
    for line in lines:
        if end:
            if line.strip() == end:
                yield ":" if script else ""
                end = ""
            elif script:
                yield _continued(line)
            else:
                yield ""
            continue
        run, file = _HEREDOC.match(line), _FILE_HEREDOC.match(line)
        end, script = (run[3], True) if run else (file[2], False) if file else ("", False)
        yield f"{run[1]}\\" if run else line


def _continued(line: str) -> str:
    """A line of a script as one of an instruction that goes on."""
    if not line.strip() or line.lstrip().startswith("#"):
        return "\\"
    return line if line.rstrip().endswith("\\") else f"{line} ; \\"


def expanded(text: str, variables: Mapping[str, str]) -> str:
    """`text` with `$NAME`, `${NAME}`, `${NAME:-default}` and `${NAME:+value}` put in, where they are known.

    Raises:
        UsageError: it becomes too long: variables may be made of one another.
    """
    left = LONGEST

    def value(match: re.Match[str]) -> str:
        nonlocal left
        found = _value(match, variables)
        left -= len(found)
        if left < 0:
            cause = f"put in, its variables make a text of more than {LONGEST} characters"
            raise UsageError("no usual Dockerfile has this", cause=cause, hint="write the values out")
        return found

    return _VARIABLE.sub(value, text)


def _value(match: re.Match[str], variables: Mapping[str, str]) -> str:
    name = match[1] or match[2]
    if match[3] == "+":
        return match[4] if variables.get(name) else ""
    if name in variables:
        return variables[name] or (match[4] or "")
    return match[4] if match[3] == "-" else match[0]


def is_known(text: str) -> bool:
    """Whether nothing is left in `text` that only a shell could know."""
    return SUBSTITUTED not in text and "$" not in text and "`" not in text


def exec_form(value: str) -> list[str] | None:
    """The words of an instruction in exec form, `["a", "b"]`; None where it is another one."""
    if not value.startswith("["):
        return None
    try:
        words = json.loads(value)
    except (ValueError, RecursionError):
        return None
    return words if isinstance(words, list) and all(isinstance(word, str) for word in words) else None


def without_flags(value: str) -> tuple[dict[str, str], str]:
    """`--name=value` flags of an instruction, and what follows them."""
    flags = {}
    while match := re.match(r"--([a-z-]+)(?:=(\S*))?\s+", value):
        flags[match[1]] = match[2] or ""
        value = value[match.end() :]
    return flags, value


def words_of(value: str) -> list[str]:
    """Words as a shell splits them; by spaces where its quotes do not close."""
    try:
        return shlex.split(value)
    except ValueError:
        return value.split()


def commands(value: str, variables: Mapping[str, str]) -> list[Command]:
    """The commands of a RUN. `NAME=value` and `export NAME=value` count for those behind them."""
    words = exec_form(value)
    if words is not None:
        inside = words[2] if len(words) == 3 and words[1] in ("-c", "-lc", "-ec") else None
        return commands(inside, variables) if inside is not None else [_command(words, variables)]
    lexer = shlex.shlex(_substituted(value), posix=True, punctuation_chars=";&|()<>\n")
    lexer.whitespace = " \t\r"
    lexer.whitespace_split = True
    lexer.commenters = ""
    try:
        tokens = list(lexer)
    except ValueError:
        return [Command(words=tuple(value.split()) or (value,), certain=False)]
    return list(_split(tokens, dict(variables)))


def _split(tokens: list[str], variables: dict[str, str]) -> Iterator[Command]:
    words: list[str] = []
    depth, piped = 0, False
    for token in [*tokens, ";"]:
        if token not in _ENDS:
            words.append(token)
            continue
        words = _without_redirections(words)
        while words and words[0] in _KEYWORDS:
            keyword = words.pop(0)
            depth += _KEYWORDS[keyword]
            words = [] if keyword in ("for", "case") else words
        assigned = _assigned(words)
        if assigned:
            variables |= {name: expanded(value, variables) for name, value in assigned.items()}
        elif words:
            yield _command(words, variables, certain=depth <= 0, piped=piped)
        words, piped = [], token in _PIPES


_KEYWORDS = {
    **dict.fromkeys(("for", "while", "until", "if", "case"), 1),
    **dict.fromkeys(("done", "fi", "esac"), -1),
    **dict.fromkeys(("do", "then", "else", "elif", "(", ")", "{", "}", "!"), 0),
}
"""Words of the shell's grammar, and by how much what follows lies deeper in conditions and loops."""


def _assigned(words: list[str]) -> dict[str, str] | None:
    """`NAME=value ...`, also behind `export`; None for anything else."""
    rest = words[1:] if words[:1] == ["export"] else words
    if not rest or not all(re.match(r"[A-Za-z_]\w*=", word) for word in rest):
        return None
    return {name: value for name, _, value in (word.partition("=") for word in rest)}


def _command(words: list[str], variables: Mapping[str, str], *, certain: bool = True, piped: bool = False) -> Command:
    found = tuple(expanded(word, variables) for word in words)
    # In front of a command: variables for it alone.
    while len(found) > 1 and (found[0] in ("sudo", "exec", "time", "command") or re.match(r"[A-Za-z_]\w*=", found[0])):
        found = found[1:]
    return Command(words=found, certain=certain, piped=piped)


def _without_redirections(words: list[str]) -> list[str]:
    """`> FILE`, `2>&1` and the like taken away."""
    kept: list[str] = []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif set(word) <= set("<>&") and word:
            skip = True
            if kept and kept[-1].isdigit():
                kept.pop()
        else:
            kept.append(word)
    return kept


def _substituted(text: str) -> str:
    """`text` with each `$(...)` and backquoted command replaced by a mark."""
    found, depth, at = [], 0, 0
    while at < len(text):
        if text.startswith("$(", at):
            found += [SUBSTITUTED] if not depth else []
            depth, at = depth + 1, at + 2
        elif depth and text[at] in "()":
            depth, at = depth + (1 if text[at] == "(" else -1), at + 1
        else:
            found += [] if depth else [text[at]]
            at += 1
    return re.sub(r"`[^`]*`", SUBSTITUTED, "".join(found))
