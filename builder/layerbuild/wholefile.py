"""Files that appear under their names only when they are whole: whoever reads one sees the old one or the new one."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write(path: Path, data: bytes, *, new: bool = False) -> None:
    """Writes a file as a whole; one that is replaced keeps its mode.

    Args:
        new: it must not be there yet, nor come to be there meanwhile.

    Raises:
        FileExistsError: it is there, and should not be.
        OSError: it cannot be written. What was there is untouched.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(path.stat().st_mode & 0o777 if not new and path.exists() else 0o644)
        if new:
            os.link(temporary, path)
        else:
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
