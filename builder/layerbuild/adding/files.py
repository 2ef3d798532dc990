"""Text files of a project, read as they are and written whole: never half, and never over one that is there."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

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


def write(path: Path, text: str, *, new: bool) -> None:
    """Writes a file as a whole; its mode stays.

    Args:
        new: it must not be there yet.

    Raises:
        UsageError: it is there.
        LayerbuildError: it cannot be written. What was there is untouched.
    """
    target = path.resolve()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())
            if new:
                Path(temporary).chmod(0o644)
                os.link(temporary, target)
                Path(temporary).unlink()
            else:
                Path(temporary).chmod(target.stat().st_mode & 0o777)
                Path(temporary).replace(target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except FileExistsError:
        raise UsageError(f"{path} is there already", hint="nothing is written over: move it away first") from None
    except OSError as error:
        raise LayerbuildError(
            f"{path} cannot be written", cause=error.strerror, hint="make room, or make its directory writable"
        ) from None
