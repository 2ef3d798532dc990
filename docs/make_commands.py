"""Writes docs/commands.md from what the commands themselves say: help, options, examples, exit codes.

python docs/make_commands.py
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import click

from layerbuild.cli.main import group

PAGE = Path(__file__).with_name("commands.md")

_INTRO = """\
# Commands

<!-- Made by docs/make_commands.py from the commands' own help. Change that, not this page. -->

What the commands say with `--help`, on one page. Who is new begins with the [tutorial](tutorial.md).
"""


def render() -> str:
    """The page.

    Raises:
        ValueError: a command has no help, or an option no description.
    """
    context = click.Context(group, info_name="layerbuild")
    found = [(name, _command(group, context, name)) for name in group.list_commands(context)]
    overview = [f"- [{name}](#layerbuild-{name}): {command.get_short_help_str(200)}" for name, command in found]
    parts = [_INTRO, "\n".join(overview) + "\n", "## Options of all commands\n", _options(group, context)]
    parts += ["They stand before the command: `layerbuild -v push oci:out`.\n", *_exit_codes()]
    for name, command in found:
        parts += _section(command, click.Context(command, info_name=name, parent=context), level=2)
    return "\n".join(parts)


def _command(inside: click.Group, context: click.Context, name: str) -> click.Command:
    command = inside.get_command(context, name)
    if command is None or not command.help:
        raise ValueError(f"{name} has no help")
    return command


def _section(command: click.Command, context: click.Context, *, level: int) -> Iterator[str]:
    yield f"{'#' * level} {context.command_path}\n"
    yield f"```text\nusage: {context.command_path} {' '.join(command.collect_usage_pieces(context))}\n```\n"
    yield from _text(command.help or "")
    if any(isinstance(parameter, click.Option) for parameter in command.params):
        yield _options(command, context)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = _command(command, context, name)
            yield from _section(inner, click.Context(inner, info_name=name, parent=context), level=level + 1)


def _text(text: str) -> Iterator[str]:
    """A help text as Markdown: paragraphs, and what must keep its lines as a block of code."""
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        if not paragraph.lstrip().startswith("\b"):
            yield _filled(_plain(" ".join(paragraph.split()))) + "\n"
            continue
        first, *lines = [line.strip() for line in paragraph.splitlines() if line.strip("\b ")]
        yield f"{_plain(first)}\n"
        yield "\n".join(["```sh", *_examples(lines), "```\n"])


def _filled(text: str) -> str:
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def _examples(lines: list[str]) -> list[str]:
    """Lines of a shell: what explains a command becomes a comment."""
    pairs = [re.split(r"\s{2,}", line, maxsplit=1) for line in lines]
    width = max(len(pair[0]) for pair in pairs)
    return [f"{pair[0]:{width}}  # {pair[1]}" if len(pair) > 1 else pair[0] for pair in pairs]


def _options(command: click.Command, context: click.Context) -> str:
    rows = ["| option | meaning |", "|---|---|"]
    for parameter in command.params:
        record = parameter.get_help_record(context) if isinstance(parameter, click.Option) else None
        if record is None:
            continue  # of an argument the usage line and the help tell
        if not record[1]:
            raise ValueError(f"{context.command_path} {record[0]} has no description")
        names, meaning = (part.replace("|", r"\|") for part in record)
        rows.append(f"| `{names}` | {_plain(meaning)} |")
    return "\n".join(rows) + "\n"


def _exit_codes() -> Iterator[str]:
    codes = re.findall(r"(\d+) ([^,.]+)", (group.epilog or "").partition("Exit codes:")[2])
    if not codes:
        raise ValueError("the epilog of 'layerbuild --help' names no exit codes")
    yield "## Exit codes\n"
    yield "\n".join(["| code | meaning |", "|---|---|", *(f"| {code} | {words} |" for code, words in codes)]) + "\n"


def _plain(text: str) -> str:
    """Text with what Markdown would take for markup escaped."""
    return text.replace("*", r"\*").replace("<", "&lt;")


def main() -> None:
    """Write the page."""
    PAGE.write_text(render(), encoding="utf-8")


if __name__ == "__main__":
    main()
