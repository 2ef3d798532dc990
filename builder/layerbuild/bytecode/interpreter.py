"""Finds an interpreter of the target's version on this machine, and looks at it by running it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layerbuild.errors import InterpreterMissing
from layerbuild.pyc import MAGIC

_HEX = re.compile(r"[0-9a-f]{8}")

_WAIT = 30
"""Seconds that an interpreter may take to say what it is."""

_PROBE = """
import json, sys
from importlib.util import MAGIC_NUMBER
print(json.dumps([sys.executable, sys.implementation.name, list(sys.version_info[:3]), sys.version_info[3],
                  sys.implementation.cache_tag, MAGIC_NUMBER.hex()]))
"""


@dataclass(frozen=True, kw_only=True)
class Interpreter:
    """A CPython that was seen to run.

    Attributes:
        path: of its executable.
        version: all three parts.
        tag: what its bytecode files are called by: `cpython-310`.
        magic: the first four bytes of them.
    """

    path: Path
    version: tuple[int, int, int]
    tag: str
    magic: bytes


def variable(version: str) -> str:
    """The environment variable that names the interpreter of a version."""
    return "LAYERBUILD_PYTHON_" + "_".join(version.split(".")[:2])


def find(version: str) -> Interpreter:
    """The first CPython of `version` (`3.10`, or `3.10.13` for that one only): what the environment variable
    names, this process's own, those on PATH, pyenv's, and the one that uv knows.

    Raises:
        InterpreterMissing: there is none.
    """
    named = os.environ.get(variable(version))
    places = [named] if named else _places(version)
    for place in places:
        found = look_at(place)
        if found is not None and _fits(found, version):
            return found
    minor = ".".join(version.split(".")[:2])
    raise InterpreterMissing(
        f"no Python {version} on this machine can compile what the image's Python will run",
        cause=f"{variable(version)} names {named}, which is none" if named else None,
        hint=f"install python{minor} (for instance with 'uv python install {version}'), name one with "
        f"{variable(version)}=PATH, or say 'bytecode: none'",
    )


def _fits(found: Interpreter, version: str) -> bool:
    asked = tuple(int(part) for part in version.split("."))
    return found.version[: len(asked)] == asked


def _places(version: str) -> Iterator[str]:
    minor = ".".join(version.split(".")[:2])
    if minor == f"{sys.version_info[0]}.{sys.version_info[1]}":
        yield sys.executable
    for directory in os.environ.get("PATH", os.defpath).split(os.pathsep):
        if directory:
            found = shutil.which(f"python{minor}", path=directory)
            if found is not None:
                yield found
    # What pyenv installed is not on PATH, but for the versions that are its default.
    pyenv = Path(os.path.expandvars(os.environ.get("PYENV_ROOT") or "$HOME/.pyenv"), "versions")
    for installed in sorted(pyenv.glob(f"{minor}.*/bin/python{minor}"), reverse=True):
        yield str(installed)
    beside = Path(sys.executable).with_name("uv")
    uv = shutil.which("uv") or (str(beside) if beside.exists() else None)
    if uv is not None:
        told = _output([uv, "python", "find", "--no-project", version], dict(os.environ))
        if told:
            yield told.strip()


def look_at(place: str) -> Interpreter | None:
    """What lies at `place`, None where that is no CPython that runs and was released, or one whose bytecode is
    not known here."""
    # The first time in this environment, where a wrapper may find what it wraps; then as it will be used.
    told = _told(place, dict(os.environ))
    told = _told(str(told[0]), {}) if told else None
    if told is None:
        return None
    path, implementation, version, level, tag, magic = told
    if implementation != "cpython" or level != "final":
        return None
    major, minor, patch = version
    found = Interpreter(path=Path(path), version=(major, minor, patch), tag=tag, magic=bytes.fromhex(magic))
    return found if int.from_bytes(found.magic[:2], "little") == MAGIC.get(minor) else None


def _told(place: str, environment: dict[str, str]) -> list[Any] | None:
    output = _output([place, "-I", "-S", "-c", _PROBE], environment)
    try:
        told = json.loads(output or "null")
    except ValueError:
        return None
    return told if _is_shaped(told) else None


def _is_shaped(told: Any) -> bool:
    return (
        isinstance(told, list)
        and [type(item) for item in told] == [str, str, list, str, str, str]
        and [type(part) for part in told[2]] == [int, int, int]
        and bool(_HEX.fullmatch(told[5]))
    )


def _output(command: list[str], environment: dict[str, str]) -> str | None:
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_WAIT,
            check=False,
            cwd="/",
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="replace") if done.returncode == 0 else None
