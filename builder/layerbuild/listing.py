"""What several images have, each thing once, with who has it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from layerbuild.inventory import ImageItem, LayerItem, ModelItem


@dataclass(frozen=True, kw_only=True)
class LayerLine:
    """A layer, and the images that have it."""

    layer: LayerItem
    images: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        value = {key: found for key, found in asdict(self.layer).items() if key != "shared"}
        return {**value, "images": list(self.images)}


@dataclass(frozen=True, kw_only=True)
class ModelLine:
    """A model under one name, and the images that list it so."""

    model: ModelItem
    images: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        value = {key: found for key, found in asdict(self.model).items() if key not in ("path", "layer")}
        return {**value, "images": list(self.images)}


@dataclass(frozen=True, kw_only=True)
class RecipeLine:
    """A recipe's file and its images.

    Attributes:
        size: bytes of their layers, each blob once, as far as sizes are known.
    """

    file: str
    images: tuple[str, ...]
    size: int

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {"recipe": self.file, "images": list(self.images), "stored_bytes": self.size}


def layer_lines(images: Iterable[ImageItem]) -> list[LayerLine]:
    """Every layer of `images`, in the order in which they are met."""
    users: dict[object, tuple[LayerItem, list[str]]] = {}
    for image in images:
        for layer in image.layers:
            users.setdefault(layer_identity(layer, image.name), (layer, []))[1].append(image.name)
    return [LayerLine(layer=layer, images=tuple(names)) for layer, names in users.values()]


def layer_identity(layer: LayerItem, image: str) -> object:
    """What makes layers of two images the same blob: digest, else key and form. One that waits is its image's own."""
    if layer.digest or layer.key:
        return layer.digest or (layer.key, layer.encoding)
    return layer.title, image


def model_lines(images: Iterable[ImageItem]) -> list[ModelLine]:
    """Every model of `images`: by type, then by name."""
    users: dict[tuple[str, str, str], tuple[ModelItem, list[str]]] = {}
    for image in images:
        for model in image.models:
            users.setdefault((model.type, model.name, model.identity), (model, []))[1].append(image.name)
    return [ModelLine(model=users[key][0], images=tuple(users[key][1])) for key in sorted(users)]


def recipe_lines(images: Sequence[ImageItem]) -> list[RecipeLine]:
    """Every recipe of `images`."""
    found: dict[str, list[ImageItem]] = {}
    for image in images:
        found.setdefault(image.file or "", []).append(image)
    return [
        RecipeLine(
            file=file,
            images=tuple(image.name for image in members),
            size=sum(line.layer.size or 0 for line in layer_lines(members)),
        )
        for file, members in found.items()
    ]
