"""Names of distributions and of wheels (PyPA's "Names and normalization" and "Binary distribution format")."""

from __future__ import annotations

import re

from layerbuild.errors import SourceError

_RUN = re.compile(r"[-_.]+")
_WHEEL = re.compile(r"(?P<name>[^\s/-]+)-(?P<version>[^\s/-]+)(?:-[0-9][^\s/-]*)?(?:-[^\s/-]+){3}\.whl")


def normalized(name: str) -> str:
    """As indexes write it: lower case, one dash for each run of separators."""
    return _RUN.sub("-", name).lower()


def of_wheel(filename: str) -> tuple[str, str]:
    """Name and version, as the file name has them.

    Raises:
        SourceError: it is no wheel's name.
    """
    match = _WHEEL.fullmatch(filename)
    if match is None:
        raise SourceError(f"{filename[:200]!r} is not called as a wheel is", hint="whoever made it must make it anew")
    return match["name"], match["version"]
