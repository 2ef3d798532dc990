"""Where everything in a project's images comes from: each file and layer with its declaration, pin and path. Pure.

`places` lays a lock out as one flat list; `why.py` finds in it what a person asks about.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from layerbuild.compose import ComposedImage
from layerbuild.declared import ImageDeclaration, LayerUse
from layerbuild.inventory import holders_of
from layerbuild.kinds import files, gittree, hashcache, huggingface, links, outer_paths, python, requests, weights
from layerbuild.kinds.base import WEIGHTS, Json
from layerbuild.layering import ComposedLayer
from layerbuild.lockmodel import Lock
from layerbuild.model import Pin, PinnedFile

_TREES = (gittree.KIND, python.KIND)
"""Kinds of layers that fill a directory with names that no lock holds."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """One thing in one image: a pinned file, a git tree, or a layer that follows from others.

    Attributes:
        use, role, pin: declaration and pin; None for layers that follow from all of an image's declarations.
        file: of the pin; None where the pin is a git tree.
        layer: that has it; None where no image's layer has it any more.
        paths: in the image, absolute: what the webui or a client opens.
    """

    image: ImageDeclaration
    use: LayerUse | None = None
    role: str | None = None
    pin: Pin | None = None
    file: PinnedFile | None = None
    layer: ComposedLayer | None = None
    paths: tuple[str, ...] = ()


class Provenance:
    """What a lock says of images that are made of it. What they share is looked into once."""

    def __init__(self, lock: Lock) -> None:
        self._lock = lock
        self._names: dict[str, tuple[tuple[str, str | None], ...]] = {}

    def places(self, image: ComposedImage) -> Iterator[Place]:
        """Everything in an image."""
        held, paths = holders_of(image.layers), self._paths(image)
        labelled: dict[str, ComposedLayer] = {}
        for layer in image.layers:
            if layer.kind not in (weights.KIND, links.KIND, hashcache.KIND):
                labelled.setdefault(layer.label, layer)
        seen: set[str] = set()
        for use in image.declaration.uses:
            for role, pin in self._lock.layers[use.pin_key].pins.items():
                own = _own(labelled, use, role)
                for file in pin.files or (None,):
                    has = held.get(file.content.sha256 or "", own) if file else own
                    seen |= {has.line} if has else set()
                    where = _opened(file, paths) if file else self.directory(has)
                    yield Place(image=image.declaration, use=use, role=role, pin=pin, file=file, layer=has, paths=where)
            if (made := labelled.get(use.name)) is not None and made.line not in seen:
                # Texts and links have no pin.
                seen.add(made.line)
                yield Place(image=image.declaration, use=use, layer=made, paths=self._leaves(made))
        for layer in image.layers:
            if layer.line not in seen:
                yield Place(image=image.declaration, layer=layer, paths=self._leaves(layer))

    def names(self, layer: ComposedLayer) -> tuple[tuple[str, str | None], ...]:
        """Absolute paths of a layer's files and links, each with the hex name of its content if it has one; nothing
        of a tree, whose names no lock holds."""
        if layer.instance is None:
            return ()
        key = layer.instance.key
        if key not in self._names:
            inputs: Json = json.loads(layer.instance.inputs) if layer.kind not in _TREES else {}
            self._names[key] = tuple((f"/{path}", content) for path, content in _names(layer.kind, inputs))
        return self._names[key]

    def directory(self, layer: ComposedLayer | None) -> tuple[str, ...]:
        """The directory that a layer fills, of those that fill one."""
        if layer is None or layer.instance is None or layer.kind not in _TREES:
            return ()
        return tuple(f"/{posixpath.dirname(path)}" for path in outer_paths(layer.instance))

    def _leaves(self, layer: ComposedLayer) -> tuple[str, ...]:
        return tuple(path for path, _ in self.names(layer))

    def _paths(self, image: ComposedImage) -> dict[str, list[str]]:
        """Paths of an image by what lies there."""
        found: dict[str, list[str]] = {}
        for layer in image.layers:
            for path, content in self.names(layer):
                if content is not None:
                    found.setdefault(content, []).append(path)
        return found


def _own(labelled: Mapping[str, ComposedLayer], use: LayerUse, role: str) -> ComposedLayer | None:
    """The layer that a pin of a declaration has for itself, by the labels that `layering` gives."""
    part = requests.place_of(role).removeprefix("repositories/").removeprefix("extensions/").removeprefix("wheel ")
    return labelled.get(f"{use.name}/{part}") or labelled.get(use.name)


def _names(kind: str, inputs: Json) -> Iterable[tuple[str, str | None]]:
    if kind == weights.KIND:
        return [(f"{WEIGHTS}/{sha256}", sha256) for sha256 in inputs["files"]]
    if kind in (links.KIND, files.KIND):
        return [(item["path"], item.get("sha256") or item.get("git_blob")) for item in inputs[kind]]
    if kind == hashcache.KIND:
        return [(inputs["path"], None)]
    if kind == huggingface.KIND:
        leaves = (entry for entry in huggingface.describe(inputs) if entry.type != "directory")
        # A snapshot's name for a file is a link to what its content names.
        return [(e.path, posixpath.basename(e.target) if e.target else None) for e in leaves]
    return ()


def _opened(file: PinnedFile, paths: Mapping[str, list[str]]) -> tuple[str, ...]:
    """Where a file is opened: by the names that links and snapshots give it, else where its content names it."""
    contents = [name for name in (file.content.sha256, file.content.git_blob) if name]
    found = [path for name in contents for path in paths.get(name, [])]
    return tuple(dict.fromkeys(p for p in found if posixpath.basename(p) not in contents)) or tuple(found)
