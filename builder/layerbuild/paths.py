"""Paths that came from outside. A layer is unpacked by root: nothing may leave its directory."""

from __future__ import annotations

from layerbuild.errors import SourceError

_MAX_BYTES = 4096


def unsafe_reason(path: str) -> str | None:
    """Why `path` may not become a path in a layer, or None if it may.

    A safe path is relative, `/`-separated, in normal form (no empty, `.` or `..` component, no
    trailing slash), UTF-8, free of control characters and of backslashes (which some clients take
    for separators), and at most 4096 bytes.
    """
    if not path:
        return "it is empty"
    if path.startswith("/"):
        return "it is absolute"
    parts = path.split("/")
    if ".." in parts:
        return "it has a '..' component"
    if "" in parts or "." in parts:
        return "it is not in normal form"
    if any(ord(c) < 32 or ord(c) == 127 for c in path):
        return "it has a control character"
    if "\\" in path:
        return "it has a backslash"
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        return "it is not valid Unicode"
    if len(encoded) > _MAX_BYTES or any(len(p.encode()) > 255 for p in parts):
        return "it is too long"
    return None


def safe_relative(path: str, *, origin: str) -> str:
    """`path`, if it is safe to put below a directory of a layer.

    Args:
        path: a path that a server, an archive or a git tree named.
        origin: where it came from, for the message.

    Raises:
        SourceError: the path could escape or confuse what unpacks the layer.
    """
    reason = unsafe_reason(path)
    if reason is not None:
        raise SourceError(
            f"{origin} names a path that no layer may hold: {path[:200]!r}",
            cause=reason,
            hint="do not use this source: an honest one has no such path",
        )
    return path


def parents(path: str) -> list[str]:
    """Every directory above `path`, outermost first: `a/b/c` gives `a`, `a/b`."""
    parts = path.split("/")[:-1]
    return ["/".join(parts[: i + 1]) for i in range(len(parts))]
