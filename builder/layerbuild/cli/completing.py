"""Answers a shell that asks what a command line could go on with. What goes wrong answers nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import click
from click.shell_completion import CompletionItem, ShellComplete, split_arg_string

from layerbuild.cli import shape, shells


def answer(group: click.Group, environ: Mapping[str, str]) -> int:
    """Prints what could follow; returns the exit code.

    Args:
        group: the command, whose subcommands may be loaded late.
        environ: what the shell says: see `shells`.
    """
    shell = environ.get("_LAYERBUILD_COMPLETE", "")
    if shell not in shells.SCRIPTS:
        return 1
    for text in _answers(shell, shape.tree(group, environ), environ):
        click.echo(text)
    return 0


def _answers(shell: str, group: click.Group, environ: Mapping[str, str]) -> Iterator[str]:
    words, typed = _split(shells.line(environ))
    option = re.match(r"--[^=]+=", typed)
    asker = ShellComplete(group, {}, "layerbuild", "")
    for item in asker.get_completions(words, typed):
        if item.type in ("file", "dir"):
            yield f"{item.type}\t{item.value}"
            continue
        # click leaves the option before a '=' out.
        word = f"{option[0]}{item.value}" if option else str(item.value)
        taken = shells.word_as_taken(shell, word, typed, environ)
        if taken is not None:
            yield "\t".join([item.type, taken, *_help(item)])


def _split(line: str) -> tuple[list[str], str]:
    """The words before the one at the cursor, without the command's own; and what there is of that one."""
    words = split_arg_string(line)
    if not words or line[-1:].isspace():
        return words[1:], ""
    return words[1:-1], words[-1]


def _help(item: CompletionItem) -> list[str]:
    return [" ".join(item.help.split())] if item.help else []
