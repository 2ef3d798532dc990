"""A git tree as a listing: every path with mode, blob and size, checked before anything uses it.

The listing is what a webui layer's entries are made from. It refuses what has no place in a layer
(Git LFS pointers, and submodules that nobody follows) and what no honest tree has (paths and links
that lead out of it).
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from layerbuild import paths
from layerbuild.errors import SourceError
from layerbuild.sources.base import is_hex, words

LFS_POINTER = b"version https://git-lfs.github.com/spec/v1"
"""How the text begins that Git LFS leaves in place of a file (its specification, "The Pointer")."""

SYMLINK = "120000"
_SUBMODULE = "160000"

_LARGEST_POINTER = 200
_LONGEST_TARGET = 4096
_MODES = {"100644": "100644", "100664": "100644", "100755": "100755", SYMLINK: SYMLINK}
_MOST_LINKS = 40
_SHOWN = 10
_DISHONEST = "do not use this repository: an honest one has no such tree"


@dataclass(frozen=True, kw_only=True)
class TreeEntry:
    """One line of `git ls-tree -r -l -z`. Modes are those that git itself would check out."""

    path: str
    mode: str
    blob: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Tree:
    """A commit's tree.

    Attributes:
        entries: in the order of their path's bytes.
        submodules: path -> commit. They are no entries.
    """

    entries: tuple[TreeEntry, ...]
    submodules: Mapping[str, str]


def matches(path: str, patterns: Iterable[str]) -> bool:
    """Whether `path` is one of `patterns`, or fits a glob among them, whose `*` also matches `/`."""
    return any(path == pattern or fnmatchcase(path, pattern) for pattern in patterns)


def parse(output: bytes, *, what: str) -> Tree:
    """A tree from `git ls-tree -r -l -z --full-tree`.

    Raises:
        SourceError: an unsafe path, or one path twice.
    """
    found = [_entry(line, what) for line in output.split(b"\0") if line]
    found.sort(key=lambda entry: entry.path.encode())
    names = {entry.path for entry in found}
    if len(names) != len(found) or any(above in names for name in names for above in paths.parents(name)):
        raise SourceError(f"{what} has a tree with two entries of one name", hint=_DISHONEST)
    return Tree(
        entries=tuple(entry for entry in found if entry.mode != _SUBMODULE),
        submodules={entry.path: entry.blob for entry in found if entry.mode == _SUBMODULE},
    )


def refuse_submodules(tree: Tree, followed: Iterable[str], *, what: str) -> None:
    """Raises where `tree` has a submodule that is not among `followed`: paths and globs.

    Raises:
        SourceError: it has, and its directory would be empty.
    """
    left = {path: commit for path, commit in tree.submodules.items() if not matches(path, followed)}
    if left:
        shown = ", ".join(f"{words(path)} (at commit {commit})" for path, commit in list(left.items())[:_SHOWN])
        raise SourceError(
            f"{what} has a submodule at {shown}" if len(left) == 1 else f"{what} has submodules at {shown}",
            cause="another repository belongs there, and its directory would be empty",
            hint="follow it with 'submodules: true', or with its path; or pin that repository as a layer of its own",
        )


def _entry(line: bytes, what: str) -> TreeEntry:
    meta, _, raw = line.partition(b"\t")
    mode, kind, blob, size = [*meta.decode("ascii", "replace").split(), "", "", "", ""][:4]
    try:
        path = raw.decode()
    except UnicodeDecodeError:
        raise SourceError(f"{what} has a path that is not UTF-8: {raw[:200]!r}", hint="rename it upstream") from None
    paths.safe_relative(path, origin=what)
    if ".git" in path.lower().split("/"):
        raise SourceError(f"{what} has a path inside a .git: {words(path)}", hint=_DISHONEST)
    if mode == _SUBMODULE and kind == "commit" and is_hex(blob, 40):
        return TreeEntry(path=path, mode=mode, blob=blob, size=0)
    if kind != "blob" or mode not in _MODES or not is_hex(blob, 40) or not size.isdigit():
        raise SourceError(
            f"{what} has an entry that is no file: {words(path)}",
            cause=f"its mode is {words(mode)}",
            hint="do not use this repository: an honest one has no such tree",
        )
    return TreeEntry(path=path, mode=_MODES[mode], blob=blob, size=int(size))


def document(
    entries: Iterable[TreeEntry],
    read: Callable[[list[TreeEntry]], Mapping[str, bytes]],
    *,
    what: str,
    lfs_pointers: Collection[str] = (),
) -> list[dict[str, Any]]:
    """The listing as JSON objects: path, mode, blob, size, and target for links.

    Args:
        read: gives the bytes of the blobs of those entries, by blob. Asked for links and for what
            is small enough to be a Git LFS pointer.
        lfs_pointers: paths and globs of pointers that may stay what they are.

    Raises:
        SourceError: a Git LFS pointer, or a link that leads out of the tree.
    """
    entries = list(entries)
    for entry in entries:
        if entry.mode == SYMLINK and entry.size > _LONGEST_TARGET:
            raise SourceError(f"{what} has a link with an endless target: {words(entry.path)}", hint=_DISHONEST)
    texts = read([e for e in entries if e.mode == SYMLINK or len(LFS_POINTER) <= e.size <= _LARGEST_POINTER])
    targets = {e.path: _target(e, texts[e.blob], what) for e in entries if e.mode == SYMLINK}
    for path in targets:
        _stays_inside(path, targets, what)
    listing = []
    for entry in entries:
        pointer = entry.mode != SYMLINK and texts.get(entry.blob, b"").startswith(LFS_POINTER)
        if pointer and not matches(entry.path, lfs_pointers):
            raise SourceError(
                f"{what} keeps {words(entry.path)} in Git LFS",
                cause="the repository holds only a pointer to it",
                hint="if nothing needs it, name it under 'lfs_pointers'; else declare it as a layer of its own, "
                "from https:// or hf://",
            )
        item = {"path": entry.path, "mode": entry.mode, "blob": entry.blob, "size": entry.size}
        listing.append(item | ({"target": targets[entry.path]} if entry.path in targets else {}))
    return listing


def _target(entry: TreeEntry, text: bytes, what: str) -> str:
    try:
        target = text.decode()
    except UnicodeDecodeError:
        target = ""
    if not target or not target.isprintable():
        raise SourceError(f"{what} has a link with a strange target: {words(entry.path)}", hint=_DISHONEST)
    return target


def _stays_inside(path: str, targets: Mapping[str, str], what: str) -> None:
    """Follows a link as a kernel would, through other links, and refuses it if it leaves the tree.

    Where it ends need not exist. A circle leads nowhere, and that is no escape.
    """
    here = posixpath.dirname(path).split("/") if "/" in path else []
    left = list(reversed(targets[path].split("/")))
    followed = 0
    escapes = targets[path].startswith("/")
    while left and not escapes and followed < _MOST_LINKS:
        part = left.pop()
        if part == "..":
            escapes = not here
            here = here[:-1]
        elif part not in ("", "."):
            here.append(part)
            target = targets.get("/".join(here))
            if target is not None:
                followed += 1
                escapes = target.startswith("/")
                here.pop()
                left.extend(reversed(target.split("/")))
    if escapes:
        raise SourceError(
            f"{what} has a link that leads out of it: {words(path)}",
            cause=f"to {words(targets[path])}",
            hint=_DISHONEST,
        )
