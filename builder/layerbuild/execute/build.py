"""Makes every layer that images need and nobody has a receipt for; learns pending facts on the way."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from layerbuild.compose import MAX_LAYERS, ComposedImage, environment, programs
from layerbuild.errors import LayerbuildError, ProjectError, raise_failed
from layerbuild.execute.contents import Contents
from layerbuild.execute.pack import Outlet, Packer
from layerbuild.execute.parallel import R, attempts
from layerbuild.execute.releases import recorded, same_digest
from layerbuild.execute.screening import require_vouched
from layerbuild.formats import formats
from layerbuild.image import CONFIG, MANIFEST, BaseImage, BuiltLayer, config_json, manifest_json
from layerbuild.images import ImageDeclaration
from layerbuild.kinds import python
from layerbuild.layering import ComposedLayer, LayerId
from layerbuild.locked import checked
from layerbuild.lockmerge import merge_facts
from layerbuild.lockmodel import Lock, LockedBase, LockedImage
from layerbuild.model import Descriptor, Facts, Receipt, sha256_hex
from layerbuild.progress import Progress
from layerbuild.registry.manifests import layers_of, nonsense, read_object

if TYPE_CHECKING:
    from layerbuild.execute.team import Team

FetchBase = Callable[[LockedBase], BaseImage]


@dataclass(frozen=True, kw_only=True)
class BuiltImage:
    """An image whose every byte is decided. Its documents are made when they are asked for: those of a
    thousand images are 20 MB."""

    composed: ComposedImage
    base: BaseImage | None
    layers: tuple[tuple[ComposedLayer, BuiltLayer], ...]

    @property
    def repository(self) -> str:
        """Where it lands at a destination."""
        return self.composed.repository

    @property
    def platform(self) -> str:
        """`os/architecture[/variant]`."""
        return self.composed.declaration.recipe.platform

    @property
    def blobs(self) -> frozenset[str]:
        """Digests of its layers, its base's included."""
        below = self.base.layers if self.base else ()
        return frozenset(d.digest for d in below) | {made.blob.digest for _, made in self.layers}

    @property
    def config(self) -> bytes:
        """The config's bytes."""
        recipe, layers = self.composed.declaration.recipe, [made for _, made in self.layers]
        return config_json(recipe, environment(self.composed), self.base, layers, programs(self.composed))

    @cached_property
    def config_descriptor(self) -> Descriptor:
        """Of the config."""
        config = self.config
        return Descriptor(media_type=CONFIG, digest=f"sha256:{sha256_hex(config)}", size=len(config))

    @property
    def manifest(self) -> bytes:
        """The manifest's bytes."""
        layers = [made for _, made in self.layers]
        return manifest_json(self.composed.declaration.recipe, self.base, layers, self.config_descriptor)

    @cached_property
    def manifest_descriptor(self) -> Descriptor:
        """Of the manifest."""
        manifest = self.manifest
        return Descriptor(media_type=MANIFEST, digest=f"sha256:{sha256_hex(manifest)}", size=len(manifest))

    @property
    def digest(self) -> str:
        """`sha256:<hex>` of the manifest."""
        return self.manifest_descriptor.digest


@dataclass(frozen=True, kw_only=True)
class Built:
    """What a run made, and what it could not make, by image."""

    images: tuple[BuiltImage, ...]
    failed: Mapping[str, LayerbuildError]

    def all(self) -> tuple[BuiltImage, ...]:
        """The images, if none failed.

        Raises:
            LayerbuildError: one did.
        """
        raise_failed(self.failed, len(self.images) + len(self.failed))
        return self.images


Made = Mapping[LayerId, "BuiltLayer | LayerbuildError"]


def _failed(image: ComposedImage, made: Made) -> bool:
    return any(isinstance(made[layer.id], LayerbuildError) for layer in image.layers if layer.instance)


def _or_raise(result: R | LayerbuildError) -> R:
    if isinstance(result, LayerbuildError):
        raise result
    return result


@dataclass(kw_only=True)
class Builder:
    """Builds selected images of a project. `lock` grows by what is learnt.

    Attributes:
        refused_for: tells before anything is made which of those images would fail, and of what.
        outlet_for: gives the outlet that takes layers of those images while they are made.
        team: has large layers made elsewhere.
    """

    images: Sequence[ImageDeclaration]
    lock: Lock
    contents: Contents
    progress: Progress
    fetch_base: FetchBase
    refused_for: Callable[[Sequence[ComposedImage]], Mapping[str, LayerbuildError]] | None = None
    outlet_for: Callable[[Sequence[ComposedImage]], Outlet] | None = None
    team: Team | None = None

    def __post_init__(self) -> None:
        self.packer = Packer(self.contents, self.lock, self.progress)

    @property
    def repositories(self) -> dict[str, str]:
        """Where each image of the project lands."""
        return {image.name: image.repository for image in self.images}

    def compose(self, selected: Sequence[ImageDeclaration]) -> tuple[ComposedImage, ...]:
        """The selected images, as the lock makes them.

        Raises:
            DriftError: the lock does not stand for the declarations.
        """
        composed = checked(self.images, selected, self.lock)
        self.contents.formats = formats(selected, self.lock)
        return composed

    def learnt(self, selected: Sequence[ImageDeclaration]) -> tuple[ComposedImage, ...]:
        """The selected images, none of their layers pending any more.

        Raises:
            DriftError: the lock does not stand for the declarations.
            SourceError: a model whose facts are pending cannot be had.
        """
        composed = self.compose(selected)
        self.contents.wanted = frozenset(sha256 for image in composed for sha256 in image.pending)
        if not self.contents.wanted:
            return composed
        for error in self.learn(composed).values():
            raise error
        return self.compose(selected)

    def run(self, selected: Sequence[ImageDeclaration]) -> Built:
        """Every selected image, with all its layers made or known. One that fails does not stop the others.

        Raises:
            DriftError: the lock does not stand for the declarations.
            DestinationDown: the packer's outlet leads nowhere.
        """
        composed = self.compose(selected)
        failed = dict(self.refused_for(composed)) if self.refused_for else {}
        if failed:
            selected = [image for image in selected if image.name not in failed]
            composed = tuple(image for image in composed if image.name not in failed)
        # Those that the lock has seen whole were held against each other then.
        doubtful = [image for image in composed if self.lock.images[image.name].manifest is None]
        failed |= self._clashing(doubtful)
        composed = tuple(image for image in composed if image.name not in failed)
        selected = [image for image in selected if image.name not in failed]
        self.contents.wanted = frozenset(sha256 for image in composed for sha256 in image.pending)
        self.packer.outlet = self.outlet_for(composed) if self.outlet_for else None
        made = self._make(composed, {})
        clashing = self._clashing(doubtful)
        unlearnt: Mapping[str, LayerbuildError] = {}
        if self.contents.wanted:
            unlearnt = self.learn([image for image in composed if not _failed(image, made)])
            composed = self.compose(selected)
            made = self._make(composed, made)
        bases = {image.base.digest: image.base for image in composed if image.base}
        fetched = dict(zip(bases, attempts(self.fetch_base, list(bases.values())), strict=True))
        images = []
        for image in composed:
            try:
                if image.name in clashing:
                    raise clashing[image.name]
                images.append(self._image(image, made, fetched, unlearnt))
            except LayerbuildError as error:  # noqa: PERF203  # once per image
                failed[image.name] = error
        return Built(images=tuple(images), failed=failed)

    def _clashing(self, images: Iterable[ComposedImage]) -> dict[str, LayerbuildError]:
        """Images of which two packages write one path, as far as it is known here what is in them."""
        found: dict[tuple[str, ...], LayerbuildError | None] = {}
        failed = {}
        for image in images:
            layers = [layer.instance for layer in image.layers if layer.instance and layer.kind == python.KIND]
            keys = tuple(layer.key for layer in layers)
            if len(layers) > 1 and keys not in found:
                found[keys] = python.clash_between(layers, self.contents, self.contents.wheelhouse.is_known)
            if (error := found.get(keys)) is not None:
                failed[image.name] = error
        return failed

    def _make(self, composed: Sequence[ComposedImage], made: Made) -> Made:
        """`made`, and every layer beyond it."""
        layers = {identity: layer for identity, layer in distinct(composed).items() if identity not in made}
        away = self.team.making() if self.team is not None else None
        results = attempts(self.packer.build, list(layers.values()), away=away)
        return {**made, **dict(zip(layers, results, strict=True))}

    def learn(self, composed: Sequence[ComposedImage]) -> Mapping[str, LayerbuildError]:
        """Fetch the models whose facts nobody has learnt while their layers were made, and take all facts into
        the lock. Returns what failed, by sha256."""
        wanted = sorted({sha256 for image in composed for sha256 in image.pending})
        contents = {m.content.sha256: m.content for image in composed for m in image.models}
        away = self.team.learning(distinct(composed).values()) if self.team is not None else None
        results = attempts(self.contents.learn, [contents[sha256] for sha256 in wanted], away=away)
        self.lock = replace(self.lock, files=self._facts(wanted))
        return {sha256: r for sha256, r in zip(wanted, results, strict=True) if isinstance(r, LayerbuildError)}

    def _vouched(self) -> Iterator[str]:
        """sha256 of pickles that were found harmless, in layers of any kind."""
        for suspect in self.contents.formats.pickles.values():
            sha256 = self.contents.store.sha256_of(suspect.content) or ""
            facts = self.contents.store.facts(sha256)
            if facts is not None and facts.pickle:
                yield sha256

    def _facts(self, names: Iterable[str]) -> Mapping[str, Facts]:
        files = dict(self.lock.files)
        for sha256 in names:
            facts = merge_facts(sha256, files.get(sha256), self.contents.store.facts(sha256))
            if facts is not None:
                files[sha256] = facts
        return files

    def _image(
        self,
        image: ComposedImage,
        made: Made,
        bases: Mapping[str, BaseImage | LayerbuildError],
        unlearnt: Mapping[str, LayerbuildError],
    ) -> BuiltImage:
        pairs = tuple(
            (layer, _called(_or_raise(made[layer.id]), layer.title)) for layer in image.layers if layer.instance
        )
        for sha256 in image.pending:
            raise unlearnt[sha256]
        if self.contents.formats.tolerated:
            require_vouched(self.contents, formats([image.declaration], self.lock), self.lock)
        base = _or_raise(bases[image.base.digest]) if image.base else None
        error = too_many_layers(image, len(base.layers) if base else 0)
        if error is not None:
            raise error
        return BuiltImage(composed=image, base=base, layers=pairs)

    def record(self, built: Sequence[BuiltImage]) -> Lock:
        """The lock with receipts, facts, manifests and indexes of what was built, and nothing else changed.

        Raises:
            NotReproducible: an image came out different from the manifest that the lock names.
        """
        receipts = dict(self.lock.receipts)
        images = dict(self.lock.images)
        for image in built:
            for _, made in image.layers:
                receipts[made.key] = _with_blob(receipts.get(made.key), made)
            name, lines = image.composed.name, tuple(layer.line for layer, _ in image.layers)
            _same_manifest(images[name], lines, image)
            images[name] = replace(images[name], layers=lines, manifest=image.digest)
        known, indexes = {*self.lock.files, *self._vouched()}, recorded(self.lock, images, built)
        return replace(self.lock, receipts=receipts, images=images, indexes=indexes, files=self._facts(known))


def too_many_layers(image: ComposedImage, below: int) -> ProjectError | None:
    """The error for an image that no runtime takes, on a base of `below` layers; None where it is not."""
    count = len(image.layers) + below
    if count <= MAX_LAYERS:
        return None
    message = f"image {image.name} has {count} layers, its base's included; runtimes stop at {MAX_LAYERS}"
    hint = "split the recipe into several images"
    return ProjectError([image.declaration.document.problem(("layers",), message, hint)])


def distinct(composed: Iterable[ComposedImage]) -> dict[LayerId, ComposedLayer]:
    """Every layer of some images once; not those whose facts are pending."""
    layers: dict[LayerId, ComposedLayer] = {}
    for image in composed:
        for layer in image.layers:
            if layer.instance is not None:
                layers.setdefault(layer.id, layer)
    return layers


def _called(made: BuiltLayer, title: str) -> BuiltLayer:
    """Images that share a layer may call it differently: each keeps its own name for it, whoever made it."""
    return made if made.title == title else replace(made, title=title)


def _same_manifest(before: LockedImage, lines: tuple[str, ...], image: BuiltImage) -> None:
    if before.layers == lines:
        name = image.composed.name
        same_digest(f"image {name}", before.manifest, image.digest, name)


def _with_blob(receipt: Receipt | None, made: BuiltLayer) -> Receipt:
    receipt = receipt or Receipt(key=made.key, diff_id=made.diff_id, size=made.size)
    if made.algorithm == "none" or made.blob in receipt.blobs:
        return receipt
    return replace(receipt, blobs=tuple(sorted((*receipt.blobs, made.blob), key=lambda blob: blob.encoding)))


def parse_base(base: LockedBase, manifest: bytes, config: bytes) -> BaseImage:
    """A base's documents, whose digests were checked, as values.

    Raises:
        SourceError: they have not the shape of an image's (OCI image-spec 1.1, manifest.md and config.md).
    """
    where = base.reference
    described = read_object(manifest, where)
    layers, value = layers_of(described, where), read_object(config, where)
    wrong = _wrong_part(value, len(layers))
    if wrong is not None:
        raise nonsense(where, f"{wrong} in its config is not what the specification says")
    return BaseImage(reference=where, digest=base.digest, manifest=described, config=value)


def _wrong_part(config: Mapping[str, Any], layers: int) -> str | None:
    """The first part of an image's config that cannot be used, None if all can."""
    runtime, rootfs = (config.get(key) or {} for key in ("config", "rootfs"))
    history = config.get("history") or []
    if not isinstance(runtime, dict) or not isinstance(rootfs, dict):
        return "'config' or 'rootfs'"
    diff_ids = rootfs.get("diff_ids") or []
    if not isinstance(diff_ids, list) or len(diff_ids) != layers or not all(isinstance(d, str) for d in diff_ids):
        return "'diff_ids'"
    if not isinstance(history, list) or not all(isinstance(item, dict) for item in history):
        return "'history'"
    variables = runtime.get("Env") or []
    if not isinstance(variables, list) or not all(isinstance(item, str) for item in variables):
        return "'Env'"
    maps = ("ExposedPorts", "Volumes", "Labels")
    wrong = next((key for key in maps if not isinstance(runtime.get(key) or {}, dict)), None)
    try:
        json.dumps(config, ensure_ascii=False, allow_nan=False).encode()
    except ValueError:
        wrong = "a text or number"
    return wrong
