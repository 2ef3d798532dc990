"""Python's bytecode: modules that would be compiled anew at each start (PEP 552, importlib's rules)."""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Iterator
from typing import Literal

from layerbuild.audit.costs import BYTECODE, BYTECODE_BYTES
from layerbuild.audit.filesystem import Node
from layerbuild.audit.findings import Cost, Finding
from layerbuild.audit.interest import PYC_HEAD
from layerbuild.audit.view import ImageView

Fault = Literal["missing", "stale", "magic"]

_MAGIC = {8: 3413, 9: 3425, 10: 3439, 11: 3495, 12: 3531, 13: 3571}
"""Minor version of Python 3 -> magic number of its release (Lib/importlib/_bootstrap_external.py)."""

_PACKAGES = re.compile(r"^(.*/python3\.(\d{1,2})/(?:site|dist)-packages)/")
_SHARED = re.compile(r"^(.*/(?:site|dist)-packages)/")
_STANDARD = re.compile(r"^(.*/lib/python3\.(\d{1,2}))/")
_TOLERATED = 1.0
"""Seconds below which missing bytecode is only information: the webui's own tree has none by nature."""

_WHAT: dict[Fault, tuple[str, str]] = {
    "missing": ("bytecode-missing", "have no bytecode"),
    "stale": ("bytecode-void", "have bytecode of another time or size than their sources', which Python throws away"),
    "magic": ("bytecode-magic", "have bytecode of another version of Python"),
}


def check(view: ImageView) -> Iterator[Finding]:
    """One finding for each tree of packages and each fault."""
    version = _version(view)
    if version is None:
        return
    counts: Counter[tuple[str, Fault]] = Counter()
    sizes: Counter[tuple[str, Fault]] = Counter()
    for path, node in view.files.everything():
        if node.type != "file" or not path.endswith(".py") or not node.size:
            continue
        tree = _tree(view, path, version)
        fault = _fault(view, path, node, version) if tree else None
        if tree and fault:
            counts[tree, fault] += 1
            sizes[tree, fault] += node.size
    for (tree, fault), size in sorted(sizes.items()):
        seconds = min(BYTECODE, BYTECODE * size / BYTECODE_BYTES)
        identity, words = _WHAT[fault]
        yield Finding(
            id=identity,
            severity="warning" if seconds >= _TOLERATED else "info",
            paths=(tree,),
            what=f"{counts[tree, fault]} modules {words}: those that are imported are compiled at each start",
            cost=Cost(seconds=seconds),
            hint=f"run 'python3.{version} -m compileall --invalidation-mode unchecked-hash' there as the last step",
        )


def _version(view: ImageView) -> int | None:
    """Minor version of the Python whose packages are the largest tree."""
    found: Counter[int] = Counter()
    for path, node in view.files.everything():
        if node.type == "directory" and posixpath.basename(path) in ("site-packages", "dist-packages"):
            match = _PACKAGES.match(f"{path}/")
            if match:
                found[int(match[2])] += len(node.children)
    return found.most_common(1)[0][0] if found else None


def _tree(view: ImageView, path: str, version: int) -> str | None:
    """The tree of modules that a source belongs to, None where this Python imports nothing from."""
    match = _PACKAGES.match(path) or _STANDARD.match(path)
    if match:
        return match[1] if match[2] == str(version) else None
    if shared := _SHARED.match(path):
        return shared[1]
    root = view.webui.root if view.webui else None
    return root if root and path.startswith(f"{root}/") else None


def _fault(view: ImageView, path: str, source: Node, version: int) -> Fault | None:
    directory, name = posixpath.split(path)
    parent = view.files.lookup(f"{directory}/__pycache__/{name.removesuffix('.py')}.cpython-3{version}.pyc")
    if parent is None or parent.type != "file":
        return "missing"
    head = view.files.read(parent, length=PYC_HEAD)
    if head is None or len(head) < PYC_HEAD:
        return "stale"
    magic = int.from_bytes(head[:2], "little")
    if version in _MAGIC and magic != _MAGIC[version]:
        return "magic"
    if int.from_bytes(head[4:8], "little") & 1:
        # by hash: unchecked, or checked against the source, whatever its time
        return None
    recorded = int.from_bytes(head[8:12], "little"), int.from_bytes(head[12:16], "little")
    return None if recorded == (source.mtime & 0xFFFFFFFF, source.size & 0xFFFFFFFF) else "stale"
