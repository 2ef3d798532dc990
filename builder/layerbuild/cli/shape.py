"""The commands without what they do: all that completing a command line takes, loaded in no time.

Importing every command takes half a second, more than anybody wants to wait for after a key. So what their options
and arguments are is written to the store once for each version of the code, and commands are put together from that.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from layerbuild import __version__
from layerbuild.cli.names import complete
from layerbuild.storepath import store_path

_FILE = "completion.json"
_LARGEST = 4 * 1024 * 1024


def tree(group: click.Group, environ: Mapping[str, str]) -> click.Group:
    """What `group` looks like to somebody who completes a command line. Its commands are only loaded if nobody did so
    with this code before.
    """
    path, key = store_path(environ) / _FILE, _key()
    shape = _read(path, key)
    if shape is None:
        shape = _of_group(group)
        _write(path, {"key": key, "shape": shape})
    return _group(shape)


def _key() -> str:
    """Changes with the code."""
    here = Path(__file__).parent
    stats = sorted((path.name, path.stat().st_mtime_ns, path.stat().st_size) for path in here.glob("*.py"))
    return json.dumps([__version__, str(here), stats])


def _read(path: Path, key: str) -> Any:
    with contextlib.suppress(OSError, ValueError, RecursionError):
        if path.stat().st_size <= _LARGEST:
            value = json.loads(path.read_bytes())
            if isinstance(value, dict) and value.get("key") == key:
                return value.get("shape")
    return None


def _write(path: Path, value: Mapping[str, Any]) -> None:
    # Who cannot remember it asks again the next time.
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{_FILE}.", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(value, file)
            Path(name).replace(path)
        finally:
            Path(name).unlink(missing_ok=True)


# --- to JSON -----------------------------------------------------------------------------------------


def _of_group(group: click.Group) -> dict[str, Any]:
    context = click.Context(group)
    commands = {}
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is not None and not command.hidden:
            commands[name] = _of_group(command) if isinstance(command, click.Group) else _of_command(command)
    return {**_of_command(group), "commands": commands}


def _of_command(command: click.Command) -> dict[str, Any]:
    parameters = [_of_parameter(parameter) for parameter in command.params]
    return {"name": command.name, "help": command.get_short_help_str(100), "params": parameters}


def _of_parameter(parameter: click.Parameter) -> dict[str, Any]:
    choices = list(parameter.type.choices) if isinstance(parameter.type, click.Choice) else None
    common = {"choices": choices, "nargs": parameter.nargs, "metavar": parameter.metavar or ""}
    if not isinstance(parameter, click.Option):
        return {**common, "names": [parameter.name], "argument": True}
    more = {"flag": parameter.is_flag, "multiple": parameter.multiple, "help": parameter.help or ""}
    # What click declares as '--one/--other' has two lists of names.
    slash = [f"{'/'.join(parameter.opts)}/{'/'.join(parameter.secondary_opts)}"] if parameter.secondary_opts else []
    return {**common, **more, "names": [parameter.name, *(slash or parameter.opts)], "argument": False}


# --- from JSON ---------------------------------------------------------------------------------------


def _group(shape: Mapping[str, Any]) -> click.Group:
    commands = {
        name: _group(inside) if "commands" in inside else _command(inside) for name, inside in shape["commands"].items()
    }
    return click.Group(
        name=shape["name"],
        params=_parameters(shape),
        commands=commands,
        short_help=shape["help"],
        invoke_without_command=True,
    )


def _command(shape: Mapping[str, Any]) -> click.Command:
    return click.Command(name=shape["name"], params=_parameters(shape), short_help=shape["help"])


def _parameters(shape: Mapping[str, Any]) -> list[click.Parameter]:
    return [_parameter(value, shape["name"] or "") for value in shape["params"]]


def _parameter(value: Mapping[str, Any], command: str) -> click.Parameter:
    names, help_text = value["names"], value.get("help")
    if value.get("flag"):
        return click.Option(names, is_flag=True, help=help_text)
    kind = click.Choice(value["choices"]) if value["choices"] else None
    more: dict[str, Any] = {"nargs": value["nargs"], "type": kind}
    if kind is None:
        more["shell_complete"] = complete(command, names[0], value["metavar"])
    if value["argument"]:
        return click.Argument(names, required=False, **more)
    return click.Option(names, multiple=value["multiple"], help=help_text, **more)
