"""Images as a project declares them, every string rendered and checked: values. `images.py` makes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from layerbuild.lockmodel import platform_name
from layerbuild.model import Target, canonical_json, sha256_hex
from layerbuild.schema import Layer, Recipe
from layerbuild.yamlfile import Document, KeyPath


@dataclass(frozen=True, kw_only=True)
class LayerUse:
    """A layer as one image uses it.

    Attributes:
        name: as the recipe names it.
        pin_key: its name in the lock: the name, and the recipe's variables that its sources depend on.
        layer: rendered and checked; templates are already text.
        document, path: where it is declared, for messages.
    """

    name: str
    pin_key: str
    layer: Layer
    document: Document = field(compare=False, repr=False)
    path: KeyPath = field(compare=False)


@dataclass(frozen=True, kw_only=True)
class IndexDeclaration:
    """What holds the images of one recipe for several platforms together (image-spec 1.1, image-index.md).

    Attributes:
        name: as the recipe says it.
        platforms: in the order of the recipe.
        annotations: those that are the same on every platform.
    """

    name: str
    platforms: tuple[str, ...]
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def images(self) -> tuple[str, ...]:
        """Names of its images."""
        return tuple(platform_name(self.name, platform) for platform in self.platforms)


@dataclass(frozen=True, kw_only=True)
class ImageDeclaration:
    """One image: a recipe with one choice of its matrix, for one platform.

    Attributes:
        name: tells it from every other image: `NAME`, or `NAME@os/architecture` where its recipe has several
            platforms.
        recipe: with neither matrix nor variables nor `platforms` any more.
        index: that it belongs to; None where its recipe has one platform.
    """

    name: str
    recipe: Recipe
    document: Document = field(repr=False)
    uses: tuple[LayerUse, ...]
    target: Target
    index: IndexDeclaration | None = None

    @property
    def title(self) -> str:
        """What the recipe calls it, whatever the platform."""
        return self.index.name if self.index else self.name

    @property
    def repository(self) -> str:
        """Where the image lands below a destination's prefix. Moves no byte of the image."""
        return self.title if self.recipe.repository is None else self.recipe.repository

    @cached_property
    def settings(self) -> str:
        """16 hex digits over what shapes the image besides its base and its layers."""
        recipe = self.recipe
        value = {
            "annotations": recipe.annotations,
            "compression": recipe.compression,
            "config": recipe.config.model_dump(mode="json"),
            "hf_home": self.target.hf_home,
            "cache": [recipe.webui.cache_file, recipe.webui.cache_dir] if recipe.webui else [],
        }
        return sha256_hex(canonical_json(value).encode())[:16]
