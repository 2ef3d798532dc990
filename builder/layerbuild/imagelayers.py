"""The layers of one image, from what its declarations give. Pure.

Each declaration stands for layers of its own, and wants links and hash-cache entries of the image.
`compose.py` puts the result in order.
"""

from __future__ import annotations

import posixpath

from layerbuild.buckets import SLOTS, Buckets, choose, groups
from layerbuild.errors import Problem, ProjectError
from layerbuild.images import ImageDeclaration, LayerUse
from layerbuild.kinds import hashcache, links, weights
from layerbuild.kinds.base import Canonical
from layerbuild.layering import (
    RANKS,
    ComposedLayer,
    Contribution,
    Contributions,
    Surroundings,
    composed_layer,
    directories_above,
    refused,
)
from layerbuild.lockmodel import Lock
from layerbuild.model import Instance, Pin, Target
from layerbuild.schema import FilesLayer, ModelLayer, PythonLayer
from layerbuild.webui.hashcache import FactName, PlacedModel, cache_path, collisions


class LayerMaker:
    """Collects the layers of one image."""

    def __init__(self, image: ImageDeclaration, target: Target, lock: Lock, contributions: Contributions) -> None:
        self.image = image
        self.target = target
        self.lock = lock
        self.layers: list[ComposedLayer] = []
        self.models: list[PlacedModel] = []
        self.links: dict[str, Canonical] = {}
        self.extensions: dict[str, Pin] = {}
        self.pending: dict[str, frozenset[FactName]] = {}
        self._given: list[Contribution] = []
        self._files: dict[str, str] = {}
        self._leaves: dict[str, LayerUse] = {}
        self._above: dict[str, str] = {}
        self._refs: dict[tuple[str, str], str] = {}
        self._seen: set[str] = set()
        checkpoints = [u for u in image.uses if isinstance(u.layer, ModelLayer) and u.layer.type == "checkpoint"]
        self._contribution = contributions.within(
            Surroundings(target=target, compression=image.recipe.compression, one_checkpoint=len(checkpoints) == 1)
        )

    def add(self, use: LayerUse) -> None:
        """The layers that a declaration stands for itself, and what it wants of the derived ones."""
        given = self._contribution(use)
        self._given.append(given)
        self._find_by_name(use, given)
        for path, sha256 in given.files.items():
            if self._files.setdefault(path, sha256) != sha256:
                hint = "give one of the models another 'filename'"
                raise refused(use, f"another model already puts a file at {path}", hint)
        for path in given.paths:
            self._occupy(path, use)
        for layer in given.layers:
            self._put(layer)
        self.models += given.models
        self.links.update(given.links)
        self.extensions.update(given.extensions)
        self._above.update(given.above)
        for sha256, missing in given.pending.items():
            self.pending[sha256] = self.pending.get(sha256, frozenset()) | missing

    def _find_by_name(self, use: LayerUse, given: Contribution) -> None:
        """Two revisions of one repository cannot both be found by one name."""
        for (folder, ref), revision in given.refs.items():
            if self._refs.setdefault((folder, ref), revision) != revision:
                message = f"another revision of the repository is called {ref!r} in image {self.image.name}"
                raise refused(use, message, "give one of the two layers 'refs: []' or other names")

    def _occupy(self, path: str, use: LayerUse) -> None:
        """Two models at one path are told of by what they share with the webui; see `confused`."""
        other = self._leaves.setdefault(path, use)
        if other is not use and {FilesLayer, PythonLayer} & {type(other.layer), type(use.layer)}:
            message = f"{path} is also a file of layer {other.name}, in image {self.image.name}"
            raise refused(use, message, "keep one")

    def confused(self) -> list[Problem]:
        """Models that the webui would take for one another."""
        claimed = [claim for given in self._given for claim in given.claims]
        if len(set(claimed)) == len(claimed):
            return []
        found = []
        for one, other, shared in collisions(self.models, self.target):
            hint = f"give one of them another 'filename', or leave one out of {self.image.name}"
            message = f"{one.layer} and {other.layer} are both {shared!r} to the webui, in image {self.image.name}"
            found.append(self.image.document.problem(("layers",), message, hint))
        return found

    def check_paths(self) -> None:
        """No file may lie where the image's links, models and hash cache go, or where they need a directory.

        Files of the webui's own tree may be replaced: that is what a files layer is for.

        Raises:
            ProjectError: layers of the image would destroy each other's files.
        """
        cache = cache_path(self.target)
        if any(layer.kind == hashcache.KIND for layer in self.layers) and cache in self._leaves:
            raise refused(self._leaves[cache], f"{cache} is the hash cache of image {self.image.name}", "leave it out")
        if self.models:
            self._above.update(directories_above([cache]))
        for parent in sorted(self._above.keys() & self._leaves.keys()):
            path = self._above[parent]
            message = f"{parent} is a file of this layer, and {path} lies below it in image {self.image.name}"
            raise refused(self._leaves[parent], message, "choose another place for one of them")

    def share_layers(self, kept: Buckets | None) -> Buckets | None:
        """Put the smaller model files together where there are more of them than layer slots."""
        single = [layer for layer in self.layers if layer.kind == weights.KIND]
        if len(single) <= SLOTS:
            return None
        labels = {sha: layer.label for layer in single if layer.instance for sha in weights.files(layer.instance)}
        known = {sha256: size for given in self._given for sha256, size in given.sizes.items()}
        sizes = {sha256: known.get(sha256) for sha256 in labels}
        try:
            buckets = choose(sizes, kept)
        except ValueError as error:
            problem = self.image.document.problem(("layers",), f"image {self.image.name}: {error}", "split the recipe")
            raise ProjectError([problem]) from None
        self.layers = [layer for layer in self.layers if layer.kind != weights.KIND]
        self._seen -= {layer.instance.key for layer in single if layer.instance}
        for name, group in groups(sizes, buckets).items():
            alone = len(group) == 1 and name == group[0]
            self._derive(weights.group(group, labels[name] if alone else f"bucket-{name}"), "weights")
        return buckets

    def derived(self) -> None:
        """The links and hash-cache layers."""
        name = self.image.title
        if self.links:
            self._derive(links.links(self.links, self.target, name), "links")
        checkpoint = self.target.checkpoint
        if checkpoint is not None and all(model.path != checkpoint for model in self.models):
            hint = f"give one of them 'filename: {posixpath.basename(checkpoint)}'"
            message = f"no checkpoint of image {self.image.name} is called like the file of 'ckpt'"
            raise ProjectError([self.image.document.problem(("webui", "ckpt"), message, hint)])
        if self.pending:
            layer = ComposedLayer(
                instance=None,
                rank=RANKS["hash-cache"],
                kind=hashcache.KIND,
                label=name,
                algorithm=self.image.recipe.compression,
            )
            self.layers.append(layer)
            return
        models = [model for given in self._given for model in given.remembered]
        cache = hashcache.hash_cache(models, self.target, name, self.extensions)
        if cache is not None:
            self._derive(cache, "hash-cache")

    def _derive(self, instance: Instance, rank: str) -> None:
        self._put(composed_layer(instance, rank, self.image.recipe.compression))

    def _put(self, layer: ComposedLayer) -> None:
        assert layer.instance is not None
        if layer.instance.key not in self._seen:
            self._seen.add(layer.instance.key)
            self.layers.append(layer)
