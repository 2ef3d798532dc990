"""A plan in the form of a bill: layers in groups, each with its sum, and what moves beside what does not. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from layerbuild.plan import Plan, PlannedLayer

_GROUPS = {
    "base": "base",
    "python": "Python packages",
    "git-tree": "webui",
    "huggingface": "Hugging Face cache",
    "weights": "weights",
    "links": "links",
    "hash-cache": "hash cache",
    "files": "files",
}
"""Kinds of layers, in the order in which they lie in an image, and what people call them."""

_MOST = 20
"""Layers of a group that have a line of their own."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Layers of one kind.

    Attributes:
        layers: those with a line of their own.
        rest: the others.
    """

    title: str
    layers: tuple[PlannedLayer, ...]
    rest: tuple[PlannedLayer, ...]

    @property
    def all(self) -> tuple[PlannedLayer, ...]:
        """Every layer of the group."""
        return (*self.layers, *self.rest)


def groups(plan: Plan) -> list[Group]:
    """The plan's layers by kind; where there are very many of one, only the largest have lines."""
    found: dict[str, list[PlannedLayer]] = {kind: [] for kind in _GROUPS}
    for layer in plan.layers:
        found.setdefault(kind_of(layer), []).append(layer)
    made = []
    for kind, layers in found.items():
        largest = sorted(layers, key=lambda layer: -(layer.size or 0))[:_MOST]
        shown = {id(layer) for layer in largest}
        made.append(
            Group(
                title=_GROUPS.get(kind, kind),
                layers=tuple(layer for layer in layers if id(layer) in shown),
                rest=tuple(layer for layer in layers if id(layer) not in shown),
            )
        )
    return [group for group in made if group.layers]


def kind_of(layer: PlannedLayer) -> str:
    """The kind of a planned layer."""
    return "base" if layer.base else layer.title.partition(" ")[0]


def label_of(layer: PlannedLayer) -> str:
    """What tells a layer from others of its group."""
    return layer.title.partition(" ")[2]


def total(layers: Iterable[PlannedLayer]) -> int:
    """Bytes, as far as sizes are known."""
    return sum(layer.size or 0 for layer in layers)


def known(plan: Plan) -> Sequence[PlannedLayer]:
    """Layers of layerbuild's that were made before: nothing of them is fetched or packed."""
    return [layer for layer in plan.layers if layer.known and not layer.base]
