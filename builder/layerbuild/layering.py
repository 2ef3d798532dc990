"""The layers of one image, from its declarations and their pins. Pure.

Each declaration stands for layers of its own, and wants links and hash-cache entries of the image.
`compose.py` puts the result in order.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from layerbuild.buckets import SLOTS, Buckets, choose, groups
from layerbuild.errors import ProjectError
from layerbuild.images import ImageDeclaration, LayerUse
from layerbuild.kinds import files, gittree, hashcache, huggingface, is_weights, links, requests, weights
from layerbuild.lockmodel import Lock, layer_line
from layerbuild.model import Content, Instance, Pin, Target
from layerbuild.paths import parents
from layerbuild.schema import FilesLayer, HuggingFaceLayer, Layer, ModelLayer, WebuiLayer
from layerbuild.webui.hashcache import FactName, PlacedModel, cache_path, pending_facts, stores_extensions
from layerbuild.webui.modeltypes import MODEL_TYPES, is_hidden, name_of_checkpoint, place

Algorithm = Literal["none", "zstd", "gzip"]

RANKS = {
    kind: rank
    for rank, kind in enumerate(
        ("webui", "repositories", "extensions", "huggingface", "weights", "links", "hash-cache", "files")
    )
}
"""Software first: what changes least lies lowest, so that most of a chain is shared."""


LayerId = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class ComposedLayer:
    """A layer of an image. `instance` is None while facts are pending."""

    instance: Instance | None
    rank: int
    kind: str
    label: str
    algorithm: Algorithm

    @property
    def title(self) -> str:
        """For people, and for the image's history."""
        return f"{self.kind} {self.label}"

    @property
    def id(self) -> LayerId:
        """What images that share the layer share: its key and its form. Only where nothing is pending."""
        assert self.instance is not None
        return self.instance.key, self.algorithm

    @property
    def line(self) -> str:
        """How the lock names it."""
        return layer_line(self.kind, self.label, self.instance.key if self.instance else None)


class LayerMaker:
    """Collects the layers of one image."""

    def __init__(self, image: ImageDeclaration, target: Target, lock: Lock) -> None:
        self.image = image
        self.target = target
        self.lock = lock
        self.layers: list[ComposedLayer] = []
        self.models: list[PlacedModel] = []
        self.links: dict[str, str] = {}
        self.extensions: dict[str, Pin] = {}
        self._taken: dict[str, str] = {}
        self._leaves: dict[str, LayerUse] = {}
        self._refs: dict[tuple[str, str], str] = {}
        self.pending: dict[str, frozenset[FactName]] = {}
        self._seen: set[str] = set()
        self._sizes: dict[str, int | None] = {}

    def add(self, use: LayerUse) -> None:
        """The layers that a declaration stands for itself, and what it wants of the derived ones."""
        locked = self.lock.layers.get(use.pin_key)
        pins = locked.pins if locked else {}
        layer: Layer = use.layer
        if isinstance(layer, ModelLayer):
            self._model(use, layer, pins)
        elif isinstance(layer, HuggingFaceLayer):
            pin = self._sized(pins[requests.SNAPSHOT])
            self._find_by_name(use, layer, pin)
            self._put(huggingface.snapshot(layer, pin, self.target, use.name), "huggingface")
            self._weights([f.content for f in pin.files if huggingface.is_weights(f.content)], use.name)
        elif isinstance(layer, WebuiLayer):
            self._put(gittree.tree(pins[requests.WEBUI], self.target.root, self.target, use.name), "webui")
            for directory in sorted(layer.repositories):
                path = f"{self.target.root}/repositories/{directory}"
                pin = pins[requests.repository(directory)]
                self._put(gittree.tree(pin, path, self.target, f"{use.name}/{directory}"), "repositories")
            for directory in sorted(layer.extensions):
                path = f"{self.target.data_dir}/extensions/{directory}"
                pin = self.extensions[directory] = pins[requests.extension(directory)]
                remembered = stores_extensions(self.target)
                tree = gittree.tree(pin, path, self.target, f"{use.name}/{directory}", extension=remembered)
                self._put(tree, "extensions")
        elif isinstance(layer, FilesLayer):
            for path in layer.files:
                self._occupy(path, use)
            self._put(files.files(layer, pins, self.target, use.name), "files")

    def _find_by_name(self, use: LayerUse, layer: HuggingFaceLayer, pin: Pin) -> None:
        """Two revisions of one repository cannot both be found by one name."""
        folder, revision = huggingface.repository_of(layer), layer.revision or pin.revision or ""
        for ref in {*layer.refs, *([pin.ref] if pin.ref else [])}:
            if self._refs.setdefault((folder, ref), revision) != revision:
                message = f"another revision of the repository is called {ref!r} in image {self.image.name}"
                raise _refused(use, message, "give one of the two layers 'refs: []' or other names")

    def _occupy(self, path: str, use: LayerUse) -> None:
        """Two models at one path are told of by what they share with the webui; see `collisions`."""
        other = self._leaves.setdefault(path, use)
        if other is not use and FilesLayer in (type(other.layer), type(use.layer)):
            message = f"{path} is also a file of layer {other.name}, in image {self.image.name}"
            raise _refused(use, message, "keep one")

    def check_paths(self) -> None:
        """No file may lie where the image's links, models and hash cache go, or where they need a directory.

        Files of the webui's own tree may be replaced: that is what a files layer is for.

        Raises:
            ProjectError: layers of the image would destroy each other's files.
        """
        cache = cache_path(self.target)
        if any(layer.kind == hashcache.KIND for layer in self.layers) and cache in self._leaves:
            raise _refused(self._leaves[cache], f"{cache} is the hash cache of image {self.image.name}", "leave it out")
        for path in (*self._leaves, *([cache] if self.models else [])):
            for parent in parents(path.strip("/")):
                blocking = self._leaves.get(f"/{parent}")
                if blocking is not None:
                    message = f"/{parent} is a file of this layer, and {path} lies below it in image {self.image.name}"
                    raise _refused(blocking, message, "choose another place for one of them")

    def _model(self, use: LayerUse, layer: ModelLayer, pins: Mapping[str, Pin]) -> None:
        pin = pins[requests.MODEL]
        content = _single(pin, use)
        name = layer.filename or posixpath.basename(pin.files[0].path)
        if is_hidden(name):
            raise _refused(
                use, f"the webui lists nothing called {name!r}: a part begins with a dot", "give it a 'filename'"
            )
        path = place(layer.type, name, self.target, layer.directory)
        if layer.type == "checkpoint":
            path = self._started_with(name) or path
            name = name_of_checkpoint(path, self.target)
        if is_hidden(path) and MODEL_TYPES[layer.type].hashed and path != self.target.checkpoint:
            message = f"the webui lists nothing at {path}: a part begins with a dot"
            raise _refused(use, message, "choose other directories under 'webui' in the recipe")
        self.models.append(PlacedModel(type=layer.type, name=name, path=path, content=content, layer=use.name))
        placed = {path: content}
        for suffix in layer.sidecars:
            beside = posixpath.splitext(path)[0] + suffix
            if beside in placed:
                raise _refused(use, f"the sidecar {suffix!r} would replace the model", "use another suffix")
            placed[beside] = _single(pins[requests.sidecar(suffix)], use)
        for where, what in placed.items():
            assert what.sha256 is not None
            if self._taken.setdefault(where, what.sha256) != what.sha256:
                hint = "give one of the models another 'filename'"
                raise _refused(use, f"another model already puts a file at {where}", hint)
            self._occupy(where, use)
            if layer.links == "file":
                self._put(files.placed_model(where, what, self.target, use.name), "weights")
            else:
                self.links[where] = what.sha256
        if layer.links == "symlink":
            self._weights(list(placed.values()), use.name)

    def _started_with(self, name: str) -> str | None:
        """The path of `--ckpt` if it means this checkpoint: that has the file's name, or is the image's only one."""
        path = self.target.checkpoint
        if path is None or posixpath.basename(name) == posixpath.basename(path):
            return path
        only = sum(1 for u in self.image.uses if isinstance(u.layer, ModelLayer) and u.layer.type == "checkpoint") == 1
        return path if only else None

    def share_layers(self, kept: Buckets | None) -> Buckets | None:
        """Put the smaller model files together where there are more of them than layer slots."""
        single = [layer for layer in self.layers if layer.kind == weights.KIND]
        if len(single) <= SLOTS:
            return None
        labels = {sha: layer.label for layer in single if layer.instance for sha in weights.files(layer.instance)}
        sizes = {sha256: self._sizes.get(sha256) for sha256 in labels}
        try:
            buckets = choose(sizes, kept)
        except ValueError as error:
            problem = self.image.document.problem(("layers",), f"image {self.image.name}: {error}", "split the recipe")
            raise ProjectError([problem]) from None
        self.layers = [layer for layer in self.layers if layer.kind != weights.KIND]
        self._seen -= {layer.instance.key for layer in single if layer.instance}
        for name, group in groups(sizes, buckets).items():
            alone = len(group) == 1 and name == group[0]
            self._put(weights.group(group, labels[name] if alone else f"bucket-{name}"), "weights")
        return buckets

    def derived(self) -> None:
        """The links and hash-cache layers."""
        name = self.image.name
        if self.links:
            self._put(links.links(self.links, self.target, name), "links")
        checkpoint = self.target.checkpoint
        if checkpoint is not None and all(model.path != checkpoint for model in self.models):
            hint = f"give one of them 'filename: {posixpath.basename(checkpoint)}'"
            message = f"no checkpoint of image {self.image.name} is called like the file of 'ckpt'"
            raise ProjectError([self.image.document.problem(("webui", "ckpt"), message, hint)])
        for model in self.models:
            sha256 = model.content.sha256 or ""
            missing = pending_facts(model, self.target, self.lock.files.get(sha256))
            if missing:
                self.pending[sha256] = self.pending.get(sha256, frozenset()) | missing
        if self.pending:
            layer = ComposedLayer(
                instance=None, rank=RANKS["hash-cache"], kind=hashcache.KIND, label=name, algorithm=self._compression
            )
            self.layers.append(layer)
            return
        cache = hashcache.hash_cache(self.models, self.lock.files, self.target, name, self.extensions)
        if cache is not None:
            self._put(cache, "hash-cache")

    @property
    def _compression(self) -> Algorithm:
        return self.image.recipe.compression

    def _weights(self, contents: Sequence[Content], label: str) -> None:
        for instance in weights.instances([self._with_size(c) for c in contents], label):
            self._put(instance, "weights")

    def _put(self, instance: Instance, rank: str) -> None:
        if instance.key in self._seen:
            return
        self._seen.add(instance.key)
        algorithm: Algorithm = "none" if is_weights(instance) else self._compression
        self.layers.append(
            ComposedLayer(
                instance=instance, rank=RANKS[rank], kind=instance.kind, label=instance.label, algorithm=algorithm
            )
        )

    def _with_size(self, content: Content) -> Content:
        facts = self.lock.files.get(content.sha256 or "")
        content = replace(content, size=facts.size) if content.size is None and facts else content
        self._sizes[content.sha256 or ""] = content.size
        return content

    def _sized(self, pin: Pin) -> Pin:
        return replace(pin, files=tuple(replace(f, content=self._with_size(f.content)) for f in pin.files))


def _single(pin: Pin, use: LayerUse) -> Content:
    """The one file of a model's pin, which must have a sha256: its path in the image is made of it."""
    if len(pin.files) != 1 or pin.files[0].content.sha256 is None:
        raise _refused(use, f"{pin.source} is not one file with a known sha256", "name one file of the source")
    return pin.files[0].content


def _refused(use: LayerUse, message: str, hint: str) -> ProjectError:
    return ProjectError([use.document.problem(use.path, message, hint)])
