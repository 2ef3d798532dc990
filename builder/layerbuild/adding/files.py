"""Text files of a project, read as they are and written whole: never half, and never over one that is there."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from layerbuild import wholefile
from layerbuild.errors import LayerbuildError, UsageError

LARGEST = 4 * 1024 * 1024
"""Bytes of a file that a person wrote."""


def read(path: Path, shown: str) -> str:
    """A file's text with its own line ends.

    Raises:
        UsageError: it is no UTF-8 text, too large, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise UsageError(f"{shown} has more than {LARGEST} bytes", hint="split it")
        return data.decode()
    except UnicodeDecodeError:
        raise UsageError(f"{shown} is not UTF-8 text", hint="save it as UTF-8") from None
    except OSError as error:
        raise UsageError(
            f"{shown} cannot be read", cause=error.strerror, hint="check its name, and who may read it"
        ) from None


@contextlib.contextmanager
def one_writer(directory: Path) -> Iterator[None]:
    """One at a time changes what lies in a directory, across processes, as far as its file system has locks."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def write(path: Path, text: str, *, new: bool) -> None:
    """Writes a file as a whole; its mode stays.

    Args:
        new: it must not be there yet.

    Raises:
        UsageError: it is there, or something else is where its directory should be.
        LayerbuildError: it cannot be written. What was there is untouched.
    """
    target = path.resolve()
    try:
        _make_directory(target.parent)
        wholefile.write(target, text.encode(), new=new)
    except FileExistsError:
        raise UsageError(f"{path} is there already", hint="nothing is written over: move it away first") from None
    except OSError as error:
        raise LayerbuildError(
            f"{path} cannot be written", cause=error.strerror, hint="make room, or make its directory writable"
        ) from None


def _make_directory(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise UsageError(f"{directory} is there, and is no directory", hint="move it away first") from None
