"""Which of several wheels of one version an installer takes ("Platform compatibility tags", PyPA; pip's order)."""

from __future__ import annotations

import re
from collections.abc import Sequence

_TAGGED = re.compile(r"(?P<python>[^-]+)-(?P<abi>[^-]+)-(?P<platform>[^-]+)\.whl")
_MANYLINUX = re.compile(r"(?:many|musl)linux_([0-9]+)_([0-9]+)_")
_OLD_MANYLINUX = {"manylinux1_": (2, 5), "manylinux2010_": (2, 12), "manylinux2014_": (2, 17)}

_Score = tuple[int, ...]


def best(filenames: Sequence[str], python: str) -> str:
    """The file name that comes first for Python `3.X`. All of them must fit."""
    return max(filenames, key=lambda name: (*_score(name, int(python.split(".")[1])), _build(name), name))


def _build(filename: str) -> int:
    """The number of the build that the name has, which breaks ties."""
    parts = filename.removesuffix(".whl").split("-")
    digits = re.match(r"[0-9]+", parts[2]) if len(parts) == 6 else None
    return int(digits[0]) if digits else -1


def _score(filename: str, minor: int) -> _Score:
    match = _TAGGED.fullmatch("-".join(filename.split("-")[-3:]))
    if match is None:
        return (-1, 0, 0, 0)
    return max(
        (*_of_python(python, abi, platform, minor), *_of_platform(platform))
        for python in match["python"].split(".")
        for abi in match["abi"].split(".")
        for platform in match["platform"].split(".")
    )


def _of_python(python: str, abi: str, platform: str, minor: int) -> tuple[int, int]:
    own = python == f"cp3{minor}"
    version = int(python[3:]) if re.fullmatch(r"(?:cp|py)3[0-9]+", python) else 0
    anywhere = platform == "any"
    if own and abi not in ("abi3", "none"):
        return 5, 0
    if abi == "abi3":
        return (4, version) if own else (2, version)
    if own:
        return (3, 0) if not anywhere else (0, 100)
    newest = 99 if version == minor else 98 if python == "py3" else version
    return (1, newest) if not anywhere else (0, newest)


def _of_platform(platform: str) -> tuple[int, int]:
    match = _MANYLINUX.match(platform)
    if match is not None:
        return int(match[1]), int(match[2])
    return next((version for prefix, version in _OLD_MANYLINUX.items() if platform.startswith(prefix)), (0, 0))
