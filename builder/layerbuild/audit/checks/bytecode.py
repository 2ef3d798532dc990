"""Python's bytecode: modules that would be compiled anew at each start (PEP 552, importlib's rules)."""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Iterator
from typing import Literal

from layerbuild.audit.costs import BYTECODE, BYTECODE_BYTES, COMPILE_RATE
from layerbuild.audit.filesystem import Node
from layerbuild.audit.findings import Cost, Finding
from layerbuild.audit.interest import PYC_HEAD
from layerbuild.audit.view import ImageView
from layerbuild.pyc import MAGIC, cached_path

Fault = Literal["missing", "stale", "magic", "ignored"]

_PACKAGES = re.compile(r"^(.*/python3\.(\d{1,2})/(?:site|dist)-packages)/")
_SHARED = re.compile(r"^(.*/(?:site|dist)-packages)/")
_STANDARD = re.compile(r"^(.*/lib/python3\.(\d{1,2}))/")
_TOLERATED = 1.0
"""Seconds below which missing bytecode is only information: the webui's own tree has none by nature."""

_WHAT: dict[Fault, tuple[str, str]] = {
    "missing": ("bytecode-missing", "have no bytecode"),
    "stale": ("bytecode-void", "have bytecode of another time or size than their sources', which Python throws away"),
    "magic": ("bytecode-magic", "have bytecode of another version of Python"),
    "ignored": ("bytecode-ignored", "have bytecode that PYTHONPYCACHEPREFIX leads Python away from"),
}


def check(view: ImageView) -> Iterator[Finding]:
    """One finding for each tree of packages and each fault."""
    version = _version(view)
    if version is None:
        return
    elsewhere = bool(view.runtime.env.get("PYTHONPYCACHEPREFIX"))
    tag = f"cpython-3{version}{_optimised(view)}"
    counts: Counter[tuple[str, Fault]] = Counter()
    sizes: Counter[tuple[str, Fault]] = Counter()
    for path, node in view.files.everything():
        if node.type != "file" or not path.endswith(".py") or not node.size:
            continue
        tree = _tree(view, path, version)
        fault = _fault(view, path, node, version, tag) if tree else None
        if tree and fault is None and elsewhere:
            fault = "ignored"
        if tree and fault:
            counts[tree, fault] += 1
            sizes[tree, fault] += node.size
    for (tree, fault), size in sorted(sizes.items()):
        packages = _PACKAGES.match(f"{tree}/") or _SHARED.match(f"{tree}/") or _STANDARD.match(f"{tree}/")
        seconds = min(BYTECODE, BYTECODE * size / BYTECODE_BYTES) if packages else size / COMPILE_RATE
        identity, words = _WHAT[fault]
        yield Finding(
            id=identity,
            severity="warning" if seconds >= _TOLERATED else "info",
            paths=(tree,),
            what=f"{counts[tree, fault]} modules {words}: those that are imported are compiled at each start",
            cost=Cost(seconds=seconds),
            hint="leave PYTHONPYCACHEPREFIX out of the environment"
            if fault == "ignored"
            else f"run 'python3.{version} -m compileall --invalidation-mode unchecked-hash' there as the last step, "
            f"or say \"python: '3.{version}'\" in its recipe",
        )


def _version(view: ImageView) -> int | None:
    """Minor version of the Python whose packages are the largest tree; without packages, that of the image's only
    standard library."""
    found: Counter[int] = Counter()
    standard = set()
    for path, node in view.files.everything():
        if node.type == "directory" and posixpath.basename(path) in ("site-packages", "dist-packages"):
            match = _PACKAGES.match(f"{path}/")
            if match:
                found[int(match[2])] += len(node.children)
        elif path.endswith("/os.py") and (match := _STANDARD.fullmatch(posixpath.dirname(path) + "/")):
            standard.add(int(match[2]))
    if found:
        return found.most_common(1)[0][0]
    return standard.pop() if len(standard) == 1 else None


def _optimised(view: ImageView) -> str:
    """How the names of bytecode end where the environment asks for optimisation (PEP 488)."""
    text = view.runtime.env.get("PYTHONOPTIMIZE", "")
    # What is no number counts as 1, as Python/initconfig.c reads it.
    level = (int(text) if text.isdecimal() and len(text) < 9 else 1) if text else 0
    return f".opt-{min(level, 2)}" if level else ""


def _tree(view: ImageView, path: str, version: int) -> str | None:
    """The tree of modules that a source belongs to, None where this Python imports nothing from."""
    match = _PACKAGES.match(path) or _STANDARD.match(path)
    if match:
        return match[1] if match[2] == str(version) else None
    if shared := _SHARED.match(path):
        return shared[1]
    if view.webui is None:
        return None
    places = (view.webui.root, posixpath.join(view.webui.data_dir, "extensions"))
    return next((place for place in places if path.startswith(f"{place}/")), None)


def _fault(view: ImageView, path: str, source: Node, version: int, tag: str) -> Fault | None:
    cached = cached_path(path, tag)
    parent = view.files.lookup(cached)
    if parent is None or parent.type != "file":
        beside = view.files.lookup(posixpath.dirname(cached))
        stem = posixpath.basename(path).removesuffix("py")
        others = (name for name in beside.children if name.startswith(f"{stem}cpython-")) if beside else ()
        return "magic" if any(f".cpython-3{version}." not in name for name in others) else "missing"
    head = view.files.read(parent, length=PYC_HEAD)
    if head is None or len(head) < PYC_HEAD:
        return "stale"
    magic = int.from_bytes(head[:2], "little")
    if version in MAGIC and magic != MAGIC[version]:
        return "magic"
    if int.from_bytes(head[4:8], "little") & 1:
        # by hash: unchecked, or checked against the source, whatever its time
        return None
    recorded = int.from_bytes(head[8:12], "little"), int.from_bytes(head[12:16], "little")
    return None if recorded == (source.mtime & 0xFFFFFFFF, source.size & 0xFFFFFFFF) else "stale"
