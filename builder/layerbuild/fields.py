"""The types of single fields in declarations: what they look like, and what they may never hold.

Every path that a declaration can name goes through `paths.unsafe_reason` here.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, StringConstraints

from layerbuild.headers import NAME
from layerbuild.paths import unsafe_reason


def _below(value: str) -> str:
    """A path that is put below a directory of the image."""
    reason = unsafe_reason(value)
    if reason:
        raise ValueError(f"{value[:200]!r} cannot be a path in an image: {reason}")
    return value


def _directory(value: str) -> str:
    _below(value.removesuffix("/")[1:])
    return value


def _own_directory(value: str) -> str:
    path = _directory(value).strip("/")
    if path == "opt" or f"{path}/".startswith("opt/weights/"):
        raise ValueError(f"{value!r} is shared by every image: use a directory of its own")
    return value


def _place(value: str) -> str:
    return value if value == "/" else _directory(value)


def _file(value: str) -> str:
    path = _below(value[1:])
    if path == "opt" or f"{path}/".startswith("opt/weights/"):
        raise ValueError(f"{value!r} is layerbuild's own: every image shares /opt/weights")
    return value


def _link(value: str) -> str:
    if not value or not value.isprintable() or len(value.encode()) > 4095:
        raise ValueError("a link's target is printable text of 1 to 4095 bytes")
    return value


def _suffix(value: str) -> str:
    if not value.startswith(".") or value == "." or "/" in value:
        raise ValueError(f"{value!r} is no suffix: it begins with a dot, as '.yaml' or '.preview.png'")
    _below(f"x{value}")
    return value


def _mirror(value: str) -> str:
    if value.startswith(("file:", "git+")):
        raise ValueError(f"{value[:200]!r} cannot be a mirror of a file: name an address that others can reach too")
    return value


def _requirement(value: str) -> str:
    """A line of uv's input: one requirement, and no option or file name, which other lines can be."""
    if not value.isprintable() or not value[:1].isalnum() or len(value) > 2000:
        raise ValueError(f"{value[:200]!r} is no requirement: write NAME, NAME==VERSION or NAME @ ADDRESS")
    return value


def _index(value: str) -> str:
    host = value.partition("://")[2].partition("/")[0].rpartition(":")[0]
    here = value.startswith("http://") and host in ("127.0.0.1", "localhost", "[::1]")
    if not (value.startswith("https://") or here) or not value.isprintable() or " " in value:
        raise ValueError("an index is an https:// address: digests come from it, and nothing else vouches for them")
    if "@" in value.partition("://")[2].partition("/")[0] or "?" in value:
        raise ValueError("an index's address holds no login: put it into ~/.netrc")
    return value


_ABSOLUTE = r"^/"
_HEX64 = r"^[0-9a-f]{64}$"
_HEX40 = r"^[0-9a-f]{40}$"
_MODE = r"^0?[0-7]{3}$"
_LAYER_NAME = r"^[A-Za-z0-9][A-Za-z0-9._+-]*$"
_CHECKOUT = r"^([A-Za-z0-9][A-Za-z0-9._+-]*|\*)$"
_ENV_NAME = r"^[^=\x00]+$"
_REPOSITORY = r"^(datasets/)?[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)?$"
_PYTHON = r"^3\.(8|9|1[0-3])(\.\d{1,3})?$"
_PLATFORM = r"^[a-z0-9]+/[a-z0-9]+(/[a-z0-9]+)?$"
_PYTHON_PLATFORM = r"^[a-z0-9][a-z0-9_-]*$"
_PACKAGE = r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$"
_TIMESTAMP = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2}))?$"

MEANINGS = {
    _ABSOLUTE: "an absolute path, which begins with '/'",
    _HEX64: "64 lower-case hex digits",
    _HEX40: "40 lower-case hex digits",
    _MODE: "an octal mode in quotes, like '0644'",
    _LAYER_NAME: "a name of letters, digits, '.', '_', '+' and '-'",
    _CHECKOUT: "a name of letters, digits, '.', '_', '+' and '-', or '*'",
    _ENV_NAME: "a name without '='",
    _REPOSITORY: "ORG/NAME",
    _PYTHON: "a version of Python from 3.8 to 3.13 in quotes, like '3.10' or '3.10.13'",
    _PLATFORM: "os/architecture, like linux/amd64",
    _PYTHON_PLATFORM: "a platform as uv's --python-platform names it, like x86_64-manylinux_2_28",
    _PACKAGE: "the name of a package",
    _TIMESTAMP: "a date in quotes, like '2026-01-31', or a time in RFC 3339",
    NAME: "the name of a header",
}
"""What each pattern means, in words for messages."""

Hex64 = Annotated[str, StringConstraints(pattern=_HEX64)]
Commit = Annotated[str, StringConstraints(pattern=_HEX40)]
Mode = Annotated[str, StringConstraints(pattern=_MODE)]
AbsolutePath = Annotated[str, StringConstraints(pattern=_ABSOLUTE), AfterValidator(_place)]
Directory = Annotated[str, StringConstraints(pattern=_ABSOLUTE), AfterValidator(_own_directory)]
FilePath = Annotated[str, StringConstraints(pattern=_ABSOLUTE), AfterValidator(_file)]
RelativePath = Annotated[str, AfterValidator(_below)]
LinkTarget = Annotated[str, AfterValidator(_link)]
Suffix = Annotated[str, AfterValidator(_suffix)]
CheckoutName = Annotated[str, StringConstraints(pattern=_CHECKOUT)]
LayerName = Annotated[str, StringConstraints(pattern=_LAYER_NAME)]
Repository = Annotated[str, StringConstraints(pattern=_REPOSITORY)]
PythonVersion = Annotated[str, StringConstraints(pattern=_PYTHON)]
Platform = Annotated[str, StringConstraints(pattern=_PLATFORM)]
HeaderName = Annotated[str, StringConstraints(pattern=NAME)]
Mirror = Annotated[str, AfterValidator(_mirror)]
PythonPlatform = Annotated[str, StringConstraints(pattern=_PYTHON_PLATFORM)]
PackageName = Annotated[str, StringConstraints(pattern=_PACKAGE)]
Timestamp = Annotated[str, StringConstraints(pattern=_TIMESTAMP)]
Requirement = Annotated[str, AfterValidator(_requirement)]
IndexAddress = Annotated[str, AfterValidator(_index)]
EnvName = Annotated[str, StringConstraints(pattern=_ENV_NAME)]
Scalar = str | int | float | bool
