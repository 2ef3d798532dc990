"""A file in an image's file system: which layer has it, by image-spec 1.1, layer.md.

Layers are read from the top down, and no further than needed. Symlinks are followed as a kernel would
with the image as its root; what is looked up is named as the layers name it.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from layerbuild.errors import NotFound, SourceError
from layerbuild.paths import parents
from layerbuild.registry.layertar import Header
from layerbuild.registry.union import Found, Occupied, Union

_MOST_LINKS = 40
"""Links that Linux follows in one path (path_resolution(7))."""

Layer = Callable[[str], Sequence[Header]]
"""The entries of a layer, given the path that is looked for. Read when it is first called."""


@dataclass(frozen=True, kw_only=True)
class Located:
    """A regular file: its header, and the number of its layer, counted from the top."""

    layer: int
    header: Header


def locate(layers: Sequence[Layer], path: str, *, where: str) -> Located:
    """The regular file that `path` leads to.

    Args:
        layers: the topmost first.
        path: without a leading slash.
        where: the image, for messages.

    Raises:
        NotFound: it leads to nothing.
        SourceError: it leads to something that is no file, or in a circle.
    """
    here, first = path, 0
    for _ in range(_MOST_LINKS):
        if not here:
            break
        found = _look_up(layers[first:], here)
        links = (f for p in (*parents(here), here) if isinstance(f := found.get(p), Occupied) and f.type == "symlink")
        link = next(links, None)
        if link is not None:
            rest = here[len(link.path) :]
            target = posixpath.join("/", posixpath.dirname(link.path), link.target or "")
            here, first = posixpath.normpath(target + rest).lstrip("/"), 0
            continue
        if found[here] is None:
            raise NotFound(f"{where} has no file {path}", hint="check the path: it is that in the image, without a '/'")
        if not isinstance(found[here], Occupied):
            break
        number, header = _topmost(layers, first, here)
        if not header.hardlink:
            return Located(layer=number, header=header)
        # Another name of what its own layer, or one below it, has.
        here, first = posixpath.normpath(f"/{header.target}").lstrip("/"), number
    raise SourceError(
        f"{where}: {path} is no file",
        cause="it is a directory, or a link that leads nowhere",
        hint="name a file of the image by its whole path",
    )


def _look_up(layers: Sequence[Layer], path: str) -> dict[str, Found]:
    """What the image has at `path`; and, where that is nothing, at every directory above it."""
    # Where a layer names a file itself, what lies below that layer is no matter, and is not read.
    for wanted in ([path], [*parents(path), path]):
        union = Union(wanted)
        for layer in layers:
            if union.decided:
                break
            union.add(layer(path))
        found = union.result()
        if found[path] is not None:
            break
    return found


def _topmost(layers: Sequence[Layer], first: int, path: str) -> tuple[int, Header]:
    """The entry that decided what is at `path`: the last one in the first layer that has it."""
    for number in range(first, len(layers)):
        entries = [header for header in layers[number](path) if header.path == path]
        if entries:
            return number, entries[-1]
    raise AssertionError("unreachable: one of the layers has it")
