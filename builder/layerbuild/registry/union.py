"""What a stack of layers has at some paths, read from the top down (image-spec 1.1, layer.md).

A path is decided by the topmost layer that has it. Whiteouts and opaque directories hide what lies
below; so does a file or a symlink where a path wants a directory.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from layerbuild.model import Directory
from layerbuild.paths import parents
from layerbuild.registry.layertar import Header

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"


@dataclass(frozen=True, kw_only=True)
class Occupied:
    """A path that holds something else than a directory. `target` is that of a symlink, as written."""

    path: str
    type: Literal["symlink", "file"]
    target: str | None = None


Found = Directory | Occupied | None


class Union:
    """Gathers what layers have at the `wanted` paths. Give it the topmost layer first."""

    def __init__(self, wanted: Sequence[str]) -> None:
        self._decided: dict[str, Found] = {}
        self._open = set(wanted)
        self._implied: set[str] = set()
        self._ancestors = {path: (*parents(path), path) for path in wanted}
        self._watched = {name for names in self._ancestors.values() for name in names}

    @property
    def decided(self) -> bool:
        """Whether no further layer can change anything."""
        return not self._open

    def add(self, headers: Iterable[Header]) -> None:
        """The next layer below. All of its entries: the last one of a path counts."""
        present: dict[str, Header] = {}
        implied: set[str] = set()
        removed: set[str] = set()
        opaque: set[str] = set()
        for header in headers:
            parent, name = posixpath.split(header.path)
            if name == _OPAQUE:
                opaque |= {parent} & {"", *self._watched}
            elif name.startswith(_WHITEOUT):
                removed |= {posixpath.join(parent, name.removeprefix(_WHITEOUT))} & self._watched
            else:
                if header.path in self._watched:
                    present[header.path] = header
                while parent in self._watched and parent not in implied:
                    implied.add(parent)
                    parent = posixpath.dirname(parent)
        for path in tuple(self._open):
            self._judge(path, present, implied, removed, opaque)

    def result(self) -> dict[str, Found]:
        """What every wanted path is. Call it when no layer is left, or `decided`."""
        for path in tuple(self._open):
            self._settle(path, None)
        return dict(self._decided)

    def _judge(
        self, path: str, present: dict[str, Header], implied: set[str], removed: set[str], opaque: set[str]
    ) -> None:
        *above, _ = self._ancestors[path]
        own = present.get(path)
        if any(name in present and present[name].type != "directory" for name in above):
            self._settle(path, None)
        elif own is not None:
            self._settle(path, _found(own))
        else:
            if path in implied:
                self._implied.add(path)
            hidden = any(name in removed for name in self._ancestors[path]) or any(name in opaque for name in above)
            # an opaque root is written without a directory before it
            if hidden or "" in opaque:
                self._settle(path, None)

    def _settle(self, path: str, found: Found) -> None:
        if path in self._implied and not isinstance(found, Directory):
            # Only entries below it were seen: runtimes make such a directory by themselves.
            found = Directory(path=path, mode=0o755, uid=0, gid=0)
        self._decided[path] = found
        self._open.discard(path)


def _found(header: Header) -> Directory | Occupied:
    if header.type == "directory":
        return Directory(path=header.path, mode=header.mode, uid=header.uid, gid=header.gid)
    if header.type == "symlink":
        return Occupied(path=header.path, type="symlink", target=header.target)
    return Occupied(path=header.path, type="file")
