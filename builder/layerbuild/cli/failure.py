"""What a failure looks like, wherever it came from: one form for people, one for programs.

error: what failed, and where
  because: why
  try: what to do
  see: the page that says more
"""

from __future__ import annotations

import os
import re
import traceback
from typing import Any

import click

from layerbuild.cli.redaction import scrub
from layerbuild.errors import ImagesFailed, LayerbuildError, ProjectError, UsageError, unforeseen
from layerbuild.similar import did_you_mean

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""What a terminal would obey, also by turning text around. Names of files and words of servers are in messages."""


def explained(error: Exception) -> LayerbuildError:
    """Any exception as an error in our form."""
    if isinstance(error, LayerbuildError):
        return error
    if isinstance(error, click.ClickException):
        return _of_click(error)
    return unforeseen(error)


def show(error: LayerbuildError) -> None:
    """Tells a person, on standard error."""
    click.secho("error: ", fg="red", bold=True, nl=False, err=True)
    click.echo(printable(error.message), err=True)
    for word, text in (("because", error.cause), ("try", error.hint), ("see", error.docs)):
        if text:
            click.secho(f"  {word}: ", bold=True, nl=False, err=True)
            click.echo(printable(text), err=True)


def as_json(error: LayerbuildError) -> dict[str, Any]:
    """The same for a program: see docs/events.md."""
    told: dict[str, Any] = {
        "message": error.message,
        "where": error.where,
        "cause": error.cause,
        "hint": error.hint,
        "docs": error.docs,
        "exit_code": error.exit_code,
    }
    if isinstance(error, ProjectError):
        names = ("file", "line", "key", "message", "hint")
        told["problems"] = [{name: getattr(problem, name) for name in names} for problem in error.told]
    if isinstance(error, ImagesFailed):
        told["failed"] = {name: as_json(failure) for name, failure in error.failed.items()}
    return told


def trace(error: BaseException) -> str:
    """Where in the code an error came from, without secrets."""
    return scrub("".join(traceback.format_exception(error)), os.environ)


def printable(text: str) -> str:
    """`text` with what a terminal would obey shown as what it is."""
    return _CONTROLS.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


# --- what click finds wrong with a command line ------------------------------------------------------


def _of_click(error: click.ClickException) -> LayerbuildError:
    context = error.ctx if isinstance(error, click.UsageError) else None
    command = _path(context)
    more = f"'{command} --help' says what it takes"
    if (name := getattr(error, "command_name", None)) is not None:  # NoSuchCommand, from click 8.4 on
        known = context.command.list_commands(context) if context and isinstance(context.command, click.Group) else ()
        hint = f"'{command} --help' lists the commands{did_you_mean(name, known)}"
        return UsageError(f"'{command}' has no command {name!r}", hint=hint)
    if isinstance(error, click.NoSuchOption):
        known = [name for p in context.command.get_params(context) for name in p.opts] if context else []
        hint = f"{more}{did_you_mean(error.option_name, known)}"
        return UsageError(f"'{command}' has no option {error.option_name}", hint=hint)
    if isinstance(error, click.MissingParameter) and error.param is not None:
        shape = " ".join(context.command.collect_usage_pieces(context)) if context else ""
        return UsageError(f"'{command}' needs {_name(error.param)}", hint=f"write {command} {shape}; {more}")
    if isinstance(error, click.BadParameter) and error.param is not None:
        return _bad_value(error, error.param, command, more)
    return UsageError(_sentence(error.format_message()), hint=more)


def _bad_value(error: click.BadParameter, parameter: click.Parameter, command: str, more: str) -> UsageError:
    message = f"'{command}' does not take what is given for {_name(parameter)}"
    if not isinstance(parameter.type, click.Choice):
        return UsageError(message, cause=_sentence(error.message), hint=more)
    given = re.match(r"'(.*)' is not", error.message)
    choices = [str(choice) for choice in parameter.type.choices]
    hint = f"one of: {', '.join(choices)}{did_you_mean(given[1] if given else '', choices)}"
    return UsageError(message, cause=f"{given[1]!r} is none of its values" if given else None, hint=hint)


def _name(parameter: click.Parameter) -> str:
    if isinstance(parameter, click.Option):
        return parameter.opts[-1]
    return (parameter.metavar or parameter.human_readable_name).rstrip(".")


def _path(context: click.Context | None) -> str:
    """`layerbuild push`, however the program was started."""
    names: list[str] = []
    while context is not None and context.parent is not None:
        names.insert(0, context.info_name or "")
        context = context.parent
    return " ".join(["layerbuild", *names])


def _sentence(text: str) -> str:
    """What click says, as our messages begin and end."""
    text = " ".join(text.split()).rstrip(".")
    return text[:1].lower() + text[1:]
