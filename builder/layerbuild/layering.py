"""What one declaration gives to every image that uses it in the same surroundings. Pure.

Most of what an image consists of is the same in its siblings. So a declaration is turned into layers
once for all of them, and `imagelayers.py` puts an image together from what is shared.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from layerbuild.errors import ProjectError
from layerbuild.images import LayerUse
from layerbuild.kinds import files, gittree, hashcache, huggingface, is_weights, links, python, requests, weights
from layerbuild.kinds.base import Canonical
from layerbuild.lockmodel import Lock, layer_line
from layerbuild.model import Content, Instance, Pin, Target
from layerbuild.paths import parents
from layerbuild.schema import HuggingFaceLayer, ModelLayer, PythonLayer, WebuiLayer
from layerbuild.webui.hashcache import FactName, PlacedModel, claims, pending_facts, stores_extensions
from layerbuild.webui.modeltypes import MODEL_TYPES, is_hidden, is_safetensors, name_of_checkpoint, place
from layerbuild.webui.safetensors import invalid

Algorithm = Literal["none", "zstd", "gzip"]

RANKS = {
    kind: rank
    for rank, kind in enumerate(
        ("python", "webui", "repositories", "extensions", "huggingface", "weights", "links", "hash-cache", "files")
    )
}
"""Software first: what changes least lies lowest, so that most of a chain is shared."""


LayerId = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class ComposedLayer:
    """A layer of images. `instance` is None while facts are pending."""

    instance: Instance | None
    rank: int
    kind: str
    label: str
    algorithm: Algorithm

    @cached_property
    def title(self) -> str:
        """For people, and for the image's history."""
        return f"{self.kind} {self.label}"

    @cached_property
    def id(self) -> LayerId:
        """What images that share the layer share: its key and its form. Only where nothing is pending."""
        assert self.instance is not None
        return self.instance.key, self.algorithm

    @cached_property
    def line(self) -> str:
        """How the lock names it."""
        return layer_line(self.kind, self.label, self.instance.key if self.instance else None)


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """All of an image that its declarations' layers depend on.

    Attributes:
        compression: of layers other than weights.
        one_checkpoint: whether the image has a single checkpoint: `--ckpt` means that one, whatever its name.
    """

    target: Target
    compression: Algorithm
    one_checkpoint: bool


@dataclass(frozen=True, kw_only=True)
class Contribution:
    """What a declaration gives to an image.

    Attributes:
        layers: its own.
        models: those that the webui lists.
        claims: what the webui knows each model by; no two models of an image may share one.
        remembered: the same models with their entries in the hash cache, those that wait for facts left out.
        links: by path.
        files: path -> sha256, of models and their sidecars.
        paths: every path of the image that is taken, absolute.
        above: every directory above these, and one of the paths below it.
        refs: Hugging Face repository and name -> the revision that is found by it.
        extensions: of the webui, by directory.
        pending: facts that must be learnt first, by sha256.
        sizes: bytes of each weights file, by sha256.
    """

    layers: tuple[ComposedLayer, ...] = ()
    models: tuple[PlacedModel, ...] = ()
    remembered: tuple[hashcache.Remembered, ...] = ()
    claims: tuple[str, ...] = ()
    links: Mapping[str, Canonical] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    paths: tuple[str, ...] = ()
    refs: Mapping[tuple[str, str], str] = field(default_factory=dict)
    extensions: Mapping[str, Pin] = field(default_factory=dict)
    pending: Mapping[str, frozenset[FactName]] = field(default_factory=dict)
    sizes: Mapping[str, int | None] = field(default_factory=dict)

    @cached_property
    def above(self) -> Mapping[str, str]:
        """See the class."""
        return directories_above(self.paths)


def directories_above(paths: Iterable[str]) -> dict[str, str]:
    """Every directory above absolute `paths`, and one of them that lies below it."""
    return {f"/{parent}": path for path in paths for parent in parents(path.strip("/"))}


class Contributions:
    """Contributions by declaration and surroundings, each made once."""

    def __init__(self, lock: Lock) -> None:
        self._lock = lock
        # By identity: a declaration may hold what cannot be hashed, and is shared by the images that use it.
        self._made: dict[Surroundings, dict[int, tuple[LayerUse, Contribution]]] = {}

    def within(self, surroundings: Surroundings) -> Callable[[LayerUse], Contribution]:
        """What gives the contribution of a declaration in these surroundings.

        Raises (what it gives):
            ProjectError: the declaration and its pins do not fit together.
        """
        made = self._made.setdefault(surroundings, {})

        def of(use: LayerUse) -> Contribution:
            found = made.get(id(use))
            if found is None:
                found = made[id(use)] = (use, _Maker(use, surroundings, self._lock).make())
            return found[1]

        return of


class _Maker:
    """Makes one contribution."""

    def __init__(self, use: LayerUse, surroundings: Surroundings, lock: Lock) -> None:
        self.use = use
        self.surroundings = surroundings
        self.target = surroundings.target
        self.facts = lock.files
        locked = lock.layers.get(use.pin_key)
        self.pins: Mapping[str, Pin] = locked.pins if locked else {}

    def make(self) -> Contribution:
        layer = self.use.layer
        if isinstance(layer, ModelLayer):
            return self._model(layer)
        if isinstance(layer, HuggingFaceLayer):
            return self._snapshot(layer)
        if isinstance(layer, WebuiLayer):
            return self._webui(layer)
        if isinstance(layer, PythonLayer):
            return self._python(layer)
        instance = files.files(layer, self.pins, self.target, self.use.name)
        return Contribution(layers=(self._layer(instance, "files"),), paths=tuple(layer.files))

    def _model(self, layer: ModelLayer) -> Contribution:
        pin = self.pins[requests.MODEL]
        content = self._single(pin)
        model = self._placed(layer, content, layer.filename or posixpath.basename(pin.files[0].path))
        placed = {model.path: content}
        for suffix in layer.sidecars:
            beside = posixpath.splitext(model.path)[0] + suffix
            if beside in placed:
                raise refused(self.use, f"the sidecar {suffix!r} would replace the model", "use another suffix")
            placed[beside] = self._single(self.pins[requests.sidecar(suffix)])
        digests = {where: what.sha256 or "" for where, what in placed.items()}
        if layer.links == "file":
            made = [files.placed_model(where, what, self.target, self.use.name) for where, what in placed.items()]
        else:
            made = self._weights(list(placed.values()))
        facts = self.facts.get(content.sha256 or "")
        if facts is not None and facts.safetensors is False and is_safetensors(model.path):
            raise invalid(f"{self.use.name} ({model.name})")
        missing = pending_facts(model, self.target, facts)
        return Contribution(
            layers=tuple(self._layer(instance, "weights") for instance in made),
            models=(model,),
            remembered=() if missing else (hashcache.remembered(model, facts, self.target),),
            claims=claims(model, self.target),
            links={w: links.link(w, s) for w, s in digests.items()} if layer.links == "symlink" else {},
            files=digests,
            paths=tuple(placed),
            pending={content.sha256 or "": missing} if missing else {},
            sizes=self._sizes(placed.values()),
        )

    def _placed(self, layer: ModelLayer, content: Content, name: str) -> PlacedModel:
        """The model at its path, under the name that the webui gives it."""
        if is_hidden(name):
            message = f"the webui lists nothing called {name!r}: a part begins with a dot"
            raise refused(self.use, message, "give it a 'filename'")
        path = place(layer.type, name, self.target, layer.directory)
        if layer.type == "checkpoint":
            path = self._started_with(name) or path
            name = name_of_checkpoint(path, self.target)
        if is_hidden(path) and MODEL_TYPES[layer.type].hashed and path != self.target.checkpoint:
            message = f"the webui lists nothing at {path}: a part begins with a dot"
            raise refused(self.use, message, "choose other directories under 'webui' in the recipe")
        return PlacedModel(type=layer.type, name=name, path=path, content=content, layer=self.use.name)

    def _started_with(self, name: str) -> str | None:
        """The path of `--ckpt` if it means this checkpoint: that has the file's name, or is the image's only one."""
        path = self.target.checkpoint
        if path is None or posixpath.basename(name) == posixpath.basename(path):
            return path
        return path if self.surroundings.one_checkpoint else None

    def _snapshot(self, layer: HuggingFaceLayer) -> Contribution:
        pin = self.pins[requests.SNAPSHOT]
        pin = replace(pin, files=tuple(replace(f, content=self._with_size(f.content)) for f in pin.files))
        folder, revision = huggingface.repository_of(layer), layer.revision or pin.revision or ""
        own = self._layer(huggingface.snapshot(layer, pin, self.target, self.use.name), "huggingface")
        large = [file.content for file in pin.files if huggingface.is_weights(file.content)]
        return Contribution(
            layers=(own, *(self._layer(instance, "weights") for instance in self._weights(large))),
            refs={(folder, ref): revision for ref in {*layer.refs, *([pin.ref] if pin.ref else [])}},
            sizes=self._sizes(large),
        )

    def _webui(self, layer: WebuiLayer) -> Contribution:
        target, name = self.target, self.use.name
        layers = [self._layer(gittree.tree(self.pins[requests.WEBUI], target.root, target, name), "webui")]
        for role, pin in sorted(self.pins.items()):
            if role.startswith(requests.repository("")) and ":" not in role:
                directory, path = role.removeprefix(requests.repository("")), f"{target.root}/{role}"
                layers.append(self._layer(gittree.tree(pin, path, target, f"{name}/{directory}"), "repositories"))
        extensions = {directory: self.pins[requests.extension(directory)] for directory in sorted(layer.extensions)}
        for directory, pin in extensions.items():
            path, label = f"{target.data_dir}/extensions/{directory}", f"{name}/{directory}"
            tree = gittree.tree(pin, path, target, label, extension=stores_extensions(target))
            layers.append(self._layer(tree, "extensions"))
        layers += [self._submodule(role, pin) for role, pin in sorted(self.pins.items()) if ":" in role]
        return Contribution(layers=tuple(layers), extensions=extensions)

    def _python(self, layer: PythonLayer) -> Contribution:
        for name, pin in requests.wheels(self.pins).items():
            first = pin.files[0] if pin.files else None
            if first is None or not first.path.endswith(".whl") or None in (first.content.sha256, first.content.size):
                message = f"the lock pins no wheel for {name}"
                raise refused(self.use, message, f"run 'layerbuild lock --update {self.use.name}'")
        made = python.instances(layer, self.pins, self.target, self.use.name)
        return Contribution(
            layers=tuple(self._layer(instance, "python") for instance in made), paths=(f"{layer.prefix}/pyvenv.cfg",)
        )

    def _submodule(self, role: str, pin: Pin) -> ComposedLayer:
        """A submodule's tree, where its parent's tree has it."""
        place, outer = requests.place_of(role), role.partition("/")[0].partition(":")[0]
        extension = role.startswith(requests.extension(""))
        root = self.target.data_dir if extension else self.target.root
        label = f"{self.use.name}/{place.removeprefix(f'{outer}/')}"
        return self._layer(gittree.tree(pin, f"{root}/{place}", self.target, label), outer)

    def _weights(self, contents: Sequence[Content]) -> list[Instance]:
        return weights.instances([self._with_size(content) for content in contents], self.use.name)

    def _layer(self, instance: Instance, rank: str) -> ComposedLayer:
        return composed_layer(instance, rank, self.surroundings.compression)

    def _with_size(self, content: Content) -> Content:
        facts = self.facts.get(content.sha256 or "")
        return replace(content, size=facts.size) if content.size is None and facts else content

    def _sizes(self, contents: Iterable[Content]) -> dict[str, int | None]:
        return {content.sha256 or "": self._with_size(content).size for content in contents}

    def _single(self, pin: Pin) -> Content:
        """The one file of a model's pin, which must have a sha256: its path in the image is made of it."""
        if len(pin.files) != 1 or pin.files[0].content.sha256 is None:
            message = f"{pin.source} is not one file with a known sha256"
            raise refused(self.use, message, "name one file of the source")
        return pin.files[0].content


def composed_layer(instance: Instance, rank: str, compression: Algorithm) -> ComposedLayer:
    """A layer of its rank; model files hardly compress, and are stored as they are."""
    algorithm: Algorithm = "none" if is_weights(instance) else compression
    return ComposedLayer(
        instance=instance, rank=RANKS[rank], kind=instance.kind, label=instance.label, algorithm=algorithm
    )


def refused(use: LayerUse, message: str, hint: str) -> ProjectError:
    """An error at a declaration."""
    return ProjectError([use.document.problem(use.path, message, hint)])
