"""Scripts that an installer makes of entry points, and what it makes of a wheel's own (uv's and pip's way)."""

from __future__ import annotations

import configparser
import re

from layerbuild.errors import SourceError
from layerbuild.paths import unsafe_reason

_SECTIONS = ("console_scripts", "gui_scripts")
_REFERENCE = re.compile(r"([A-Za-z_][\w.]*)\s*:\s*([A-Za-z_][\w.]*)\s*(?:\[[^\]]*\])?")
_MAX_SHEBANG = 127
"""Bytes of a first line that every Linux reads to its end."""

_SCRIPT = """\
{shebang}
# -*- coding: utf-8 -*-
import sys
from {module} import {name}
if __name__ == "__main__":
    if sys.argv[0].endswith("-script.pyw"):
        sys.argv[0] = sys.argv[0][:-11]
    elif sys.argv[0].endswith(".exe"):
        sys.argv[0] = sys.argv[0][:-4]
    sys.exit({call}())
"""


def entry_points(text: bytes, *, what: str) -> dict[str, str]:
    """Scripts by name, each with its `module:attribute`, of an `entry_points.txt` ("Entry points", PyPA).

    Raises:
        SourceError: it cannot be read, or a script would lie elsewhere than beside the others.
    """
    parser = configparser.RawConfigParser(delimiters=("=",), strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment]  # its documented way to keep upper case
    try:
        parser.read_string(text.decode())
    except (UnicodeDecodeError, configparser.Error) as error:
        raise _unreadable(what, str(error)[:200]) from None
    found = {}
    for section in (s for s in _SECTIONS if parser.has_section(s)):
        for name, reference in parser.items(section):
            if "/" in name or unsafe_reason(name):
                raise _unreadable(what, f"{name[:200]!r} cannot be the name of a script")
            if _REFERENCE.fullmatch(reference.strip()) is None:
                raise _unreadable(what, f"{reference[:200]!r} names no function")
            found[name] = reference.strip()
    return found


def _unreadable(what: str, cause: str) -> SourceError:
    return SourceError(
        f"the entry points of {what} cannot be read",
        cause=cause,
        hint="do not use this wheel: no installer would take it",
    )


def shebang(interpreter: str) -> str:
    """The first line of a script. A path that is too long for one, or has a space, goes by way of the shell."""
    plain = f"#!{interpreter}"
    if " " not in interpreter and len(plain.encode()) <= _MAX_SHEBANG:
        return plain
    return f"#!/bin/sh\n'''exec' '{interpreter}' \"$0\" \"$@\"\n' '''"


def script(reference: str, interpreter: str) -> bytes:
    """The script of an entry point, byte for byte as uv writes it."""
    match = _REFERENCE.fullmatch(reference)
    assert match is not None
    module, call = match[1], match[2]
    return _SCRIPT.format(shebang=shebang(interpreter), module=module, name=call.partition(".")[0], call=call).encode()


def rewritten(data: bytes, interpreter: str) -> bytes:
    """A wheel's own script with the interpreter in its first line, where it asks for one by `#!python`."""
    for asked in (b"#!pythonw", b"#!python"):
        if data.startswith(asked):
            return shebang(interpreter).encode() + data[len(asked) :]
    return data
