"""What is known of Python's bytecode files: how they are called, and how they begin (PEP 3147, PEP 552). Pure."""

from __future__ import annotations

import posixpath

MAGIC = {8: 3413, 9: 3425, 10: 3439, 11: 3495, 12: 3531, 13: 3571}
"""Minor version of Python 3 -> magic number of its releases (Lib/importlib/_bootstrap_external.py)."""

HEAD = 16
"""Bytes before the code: magic number, flags, and the source's hash or its time and size."""

REVISION = 1
"""Of the form that `bytecode.worker` gives the code. Part of the key of every layer that holds some."""


def tag(version: str) -> str:
    """What the files of a Python's bytecode are called by: `cpython-310` for 3.10 and 3.10.13."""
    return "cpython-" + "".join(version.split(".")[:2])


def setting(version: str) -> str:
    """All that bytecode depends on besides the sources and their paths, for the key of a layer that holds some."""
    return f"{version} unchecked-hash {REVISION}"


def cached_path(path: str, tag: str) -> str:
    """Where Python looks for the bytecode of the source at `path` (PEP 3147)."""
    directory, name = posixpath.split(path)
    return posixpath.join(directory, "__pycache__", f"{name.removesuffix('.py')}.{tag}.pyc")


def is_cached(path: str) -> bool:
    """Whether bytecode lies at `path` that somebody made of a source beside it."""
    return path.endswith(".pyc") and posixpath.basename(posixpath.dirname(path)) == "__pycache__"


def head(version: str) -> bytes:
    """How a file of unchecked bytecode begins, the source's hash left out."""
    return MAGIC[int(version.split(".")[1])].to_bytes(2, "little") + b"\r\n" + b"\1\0\0\0"
