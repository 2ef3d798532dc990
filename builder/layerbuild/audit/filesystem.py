"""The file system that a stack of layers makes: image-spec 1.1, layer.md, applied as containerd does.

Parents are resolved in what lies below, so an entry `lib/x` lands in `usr/lib` where `lib` is a
symlink; a directory entry replaces such a symlink. A layer's whiteouts hide only what lies below it.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from layerbuild.audit.limits import Limits, hostile

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_RESERVED = ".wh..wh."
_MAX_SYMLINKS = 40
"""Links that Linux follows in one path (path_resolution(7))."""

_MAX_LINKED = 5_000
"""Directories that one walk reaches through links, which may make more paths than there are files."""

_HIDDEN_SIZE = 1024 * 1024
"""Bytes of a file from which on it is worth telling that a later layer hides it."""


class Node:
    """One file, directory or symlink. `path` is where its layer put it, without a leading slash.

    Attributes:
        size, mtime: bytes; Unix seconds.
        layer, offset: where its body begins.
        kept: its first bytes, or all of them, where they were kept.
        sample: what copies of it have in common, where it is large and was read on the way.
        sha256: of the whole, where it was read on the way or a lock says it.
        links: names that it has.
    """

    __slots__ = (
        "children", "gid", "hardlink", "kept", "layer", "links", "mode", "mtime", "offset", "path",
        "sample", "sha256", "size", "target", "type", "uid",
    )  # fmt: skip

    def __init__(
        self,
        *,
        path: str,
        type: str,
        mode: int = 0o755,
        uid: int = 0,
        gid: int = 0,
        size: int = 0,
        mtime: int = 0,
        target: str = "",
        layer: int = 0,
        offset: int = 0,
        hardlink: bool = False,
    ) -> None:
        self.path = path
        self.type = type
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.size = size
        self.mtime = mtime
        self.target = target
        self.layer = layer
        self.offset = offset
        self.hardlink = hardlink
        self.kept: bytes | None = None
        self.sample: bytes | None = None
        self.sha256: str | None = None
        self.links = 1
        self.children: dict[str, Node] = {}


@dataclass(frozen=True, kw_only=True)
class Hidden:
    """A file that a later layer replaces or removes: it is still pulled, and can still be read."""

    path: str
    size: int
    layer: int
    by: int


ReadBody = Callable[[Node, int, int], "bytes | None"]
"""Reads (node, offset in the file, length), None where only streaming the layer again could."""


class Filesystem:
    """Everything that the layers given so far make together.

    Args:
        read_body: how contents that were not kept are read.
        telling: paths that are remembered when a later layer hides them, whatever their size.
    """

    def __init__(
        self, *, read_body: ReadBody, limits: Limits, telling: Callable[[str], bool] = lambda _: False
    ) -> None:
        self.root = Node(path="", type="directory")
        self.hidden: list[Hidden] = []
        self._read_body = read_body
        self._limits = limits
        self._telling = telling

    # --- made of layers --------------------------------------------------------------------------

    def apply(self, layer: int, entries: Sequence[Node]) -> None:
        """The next layer above."""
        added = []
        for node in entries:
            name = posixpath.basename(node.path)
            if name.startswith(_WHITEOUT):
                self._whiteout(layer, posixpath.dirname(node.path), name)
            else:
                added.append(node)
        for node in added:
            self._add(layer, node)

    def _whiteout(self, layer: int, parent: str, name: str) -> None:
        found = self.resolve(parent)
        if found is None:
            return
        path, directory = found
        if name == _OPAQUE:
            for child in tuple(directory.children):
                self._remove(layer, directory, child, path)
        elif not name.startswith(_RESERVED):
            self._remove(layer, directory, name.removeprefix(_WHITEOUT), path)

    def _add(self, layer: int, node: Node) -> None:
        if not node.path:
            self.root.mode, self.root.uid, self.root.gid = node.mode, node.uid, node.gid
            return
        name = posixpath.basename(node.path)
        where, parent = self._parent(layer, posixpath.dirname(node.path))
        here = parent.children.get(name)
        if node.hardlink:
            other = self.lookup(node.target)
            if other is None or other is here or other.type == "directory":
                return
            other.links += 1
            node = other
        if here is not None:
            if here.type == node.type == "directory":
                here.mode, here.uid, here.gid, here.mtime, here.layer = (
                    node.mode, node.uid, node.gid, node.mtime, layer,
                )  # fmt: skip
                return
            self._remove(layer, parent, name, where)
        parent.children[name] = node

    def _parent(self, layer: int, path: str) -> tuple[str, Node]:
        """The directory at `path`, made where it is missing, as runtimes make it."""
        found = self.resolve(path)
        if found is not None and found[1].type == "directory":
            return found
        where, here = "", self.root
        for name in path.split("/"):
            child = here.children.get(name)
            below = self.resolve(f"{where}/{name}") if child is not None and child.type == "symlink" else None
            if child is not None and child.type == "directory":
                where, here = f"{where}/{name}", child
                continue
            if below is not None and below[1].type == "directory":
                where, here = below
                continue
            self._limits.entry(f"layer {layer + 1}")
            self._remove(layer, here, name, where)
            where = f"{where}/{name}"
            made = Node(path=where.lstrip("/"), type="directory", layer=layer)
            here.children[name] = made
            here = made
        return where, here

    def _remove(self, layer: int, parent: Node, name: str, where: str) -> None:
        top = parent.children.pop(name, None)
        stack = [(f"{where}/{name}", top)] if top is not None else []
        while stack:
            path, node = stack.pop()
            stack += [(f"{path}/{below}", child) for below, child in node.children.items()]
            node.links -= 1
            gone = node.type == "file" and node.links == 0 and node.layer < layer
            if gone and node.size and (node.size >= _HIDDEN_SIZE or self._telling(path)):
                self.hidden.append(Hidden(path=path, size=node.size, layer=node.layer, by=layer))

    # --- asked -----------------------------------------------------------------------------------

    def resolve(self, path: str) -> tuple[str, Node] | None:
        """Where `path` leads, as the kernel follows it with `/` as the image's root; None if nowhere.

        Returns:
            The path without symlinks (`""` for the root), and what is there.
        """
        todo = [part for part in reversed(path.split("/")) if part not in ("", ".")]
        names: list[str] = []
        trail = [self.root]
        followed = 0
        while todo:
            name = todo.pop()
            if trail[-1].type != "directory":
                return None
            if name == "..":
                # `/..` is `/`: nothing leaves the image
                if names:
                    names.pop()
                    trail.pop()
                continue
            node = trail[-1].children.get(name)
            if node is None:
                return None
            if node.type == "symlink":
                followed += 1
                if followed > _MAX_SYMLINKS:
                    return None
                todo += [part for part in reversed(node.target.split("/")) if part not in ("", ".")]
                if node.target.startswith("/"):
                    names.clear()
                    del trail[1:]
                continue
            names.append(name)
            trail.append(node)
        return "/".join(["", *names]), trail[-1]

    def lookup(self, path: str) -> Node | None:
        """What is at `path` itself, a symlink included; None if nothing is."""
        parent, name = posixpath.split(path.rstrip("/"))
        if not name:
            return self.root
        found = self.resolve(parent)
        return found[1].children.get(name) if found else None

    def file(self, path: str) -> Node | None:
        """The regular file that `path` leads to, None if it leads to none."""
        found = self.resolve(path)
        return found[1] if found is not None and found[1].type == "file" else None

    def is_directory(self, path: str) -> bool:
        """Whether `path` leads to a directory."""
        found = self.resolve(path)
        return found is not None and found[1].type == "directory"

    def names(self, path: str) -> list[str]:
        """What the directory that `path` leads to holds, sorted; nothing if it leads to none."""
        found = self.resolve(path)
        return sorted(found[1].children) if found else []

    def walk(self, path: str) -> Iterator[tuple[str, list[str]]]:
        """Directories below `path` with the names of their files, as `os.walk(followlinks=True)`.

        A directory that is entered again below itself is left out; Linux would end that at 40 links.

        Raises:
            Unreadable: links between directories make more paths than anybody can list.
        """
        start = self.resolve(path)
        if start is None or start[1].type != "directory":
            return
        stack: list[tuple[str, Node, frozenset[int], bool]] = [(path.rstrip("/"), start[1], frozenset(), False)]
        linked = 0
        while stack:
            here, node, above, behind = stack.pop()
            linked += behind
            if linked > _MAX_LINKED:
                raise hostile(path, "its symlinks make more paths than any honest image has")
            files = []
            inside = above | {id(node)}
            for name in sorted(node.children, reverse=True):
                child = node.children[name]
                found = self._follow(f"{here}/{name}", child)
                if found is None or found.type != "directory":
                    files.append(name)
                elif id(found) not in inside:
                    stack.append((f"{here}/{name}", found, inside, behind or child.type == "symlink"))
            yield here, sorted(files)

    def _follow(self, path: str, node: Node) -> Node | None:
        if node.type != "symlink":
            return node
        found = self.resolve(path)
        return found[1] if found else None

    def everything(self) -> Iterator[tuple[str, Node]]:
        """Every path but the root, parents first; symlinks are not followed."""
        stack = [("", self.root)]
        while stack:
            path, node = stack.pop()
            for name in sorted(node.children):
                child = node.children[name]
                yield f"{path}/{name}", child
                if child.type == "directory":
                    stack.append((f"{path}/{name}", child))

    # --- contents --------------------------------------------------------------------------------

    def read(self, node: Node, *, offset: int = 0, length: int | None = None) -> bytes | None:
        """Bytes of a file; None where they are in a compressed layer and were not kept.

        Args:
            length: at most so many; None for all of it.
        """
        end = node.size if length is None else min(node.size, offset + length)
        if node.kept is not None and end <= len(node.kept):
            return node.kept[offset:end]
        return self._read_body(node, offset, end - offset) if end > offset else b""
