"""How pins become entries: one module per kind of layer. Pure: nothing here opens a file or a socket.

A new kind is one new module and one line in `_DESCRIBE`.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from layerbuild.kinds import files, gittree, hashcache, huggingface, links, python, weights
from layerbuild.kinds.base import Json, Knowledge
from layerbuild.model import Entry, Instance

_DESCRIBE: dict[str, Callable[[Json, Knowledge], list[Entry]]] = {
    weights.KIND: weights.describe,
    huggingface.KIND: lambda inputs, _: huggingface.describe(inputs),
    gittree.KIND: gittree.describe,
    files.KIND: files.describe,
    links.KIND: lambda inputs, _: links.describe(inputs),
    hashcache.KIND: hashcache.describe,
    python.KIND: python.describe,
}


def describe(instance: Instance, knowledge: Knowledge) -> list[Entry]:
    """The entries of a layer, in the order in which they stand in its tar.

    Raises:
        LayerbuildError: a document that the layer needs is not on this machine.
    """
    return _DESCRIBE[instance.kind](json.loads(instance.inputs), knowledge)


def documents(instance: Instance) -> frozenset[str]:
    """sha256 of every document that `describe` will ask for."""
    if instance.kind not in (gittree.KIND, hashcache.KIND):
        return frozenset()
    inputs: Json = json.loads(instance.inputs)
    if instance.kind == gittree.KIND:
        return frozenset({inputs["listing"]})
    return frozenset(item["header"] for item in inputs["entries"] if item.get("header"))


def is_compiled(instance: Instance) -> bool:
    """Whether the layer holds bytecode that some Python of the target's version made."""
    return instance.kind in (gittree.KIND, python.KIND) and "bytecode" in json.loads(instance.inputs)


def is_weights(instance: Instance) -> bool:
    """Whether the layer holds model files: those hardly compress and are stored as they are."""
    return instance.kind == weights.KIND or (
        instance.kind == files.KIND and bool(json.loads(instance.inputs).get("weights"))
    )


def outer_paths(instance: Instance) -> list[str]:
    """Paths that the layer puts where its target says, and whose parents may be the base's.

    A weights layer has none: its place is its own in every image.
    """
    if instance.kind == weights.KIND:
        return []
    inputs: Json = json.loads(instance.inputs)
    if instance.kind in (files.KIND, links.KIND):
        return [item["path"] for item in inputs[instance.kind]]
    if instance.kind == gittree.KIND:
        return [f"{inputs['path']}/x"]
    if instance.kind == hashcache.KIND:
        return [inputs["path"]]
    if instance.kind == huggingface.KIND:
        return [f"{inputs['home']}/hub/x"]
    if instance.kind == python.KIND:
        return [f"{inputs['prefix']}/x"]
    return []
