"""Makes every layer that images need and nobody has a receipt for; learns pending facts on the way."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from layerbuild.compose import MAX_LAYERS, ComposedImage, environment
from layerbuild.errors import NotReproducible, ProjectError
from layerbuild.execute.contents import Contents, in_threads
from layerbuild.execute.lock import merge_facts
from layerbuild.execute.pack import Packer
from layerbuild.image import CONFIG, BaseImage, BuiltLayer, config_json, manifest_json
from layerbuild.images import ImageDeclaration
from layerbuild.layering import ComposedLayer
from layerbuild.locked import checked
from layerbuild.lockmodel import Lock, LockedBase, LockedImage
from layerbuild.model import Content, Descriptor, Facts, Receipt, sha256_hex
from layerbuild.progress import Progress
from layerbuild.registry.manifests import layers_of, nonsense, read_object

FetchBase = Callable[[LockedBase], BaseImage]


@dataclass(frozen=True, kw_only=True)
class BuiltImage:
    """An image whose every byte is decided. Its documents are made when they are asked for: those of a
    thousand images are 20 MB."""

    composed: ComposedImage
    base: BaseImage | None
    layers: tuple[tuple[ComposedLayer, BuiltLayer], ...]

    @property
    def config(self) -> bytes:
        """The config's bytes."""
        recipe, layers = self.composed.declaration.recipe, [made for _, made in self.layers]
        return config_json(recipe, environment(self.composed), self.base, layers)

    @property
    def manifest(self) -> bytes:
        """The manifest's bytes."""
        config = self.config
        descriptor = Descriptor(media_type=CONFIG, digest=f"sha256:{sha256_hex(config)}", size=len(config))
        layers = [made for _, made in self.layers]
        return manifest_json(self.composed.declaration.recipe, self.base, layers, descriptor)

    @cached_property
    def digest(self) -> str:
        """`sha256:<hex>` of the manifest."""
        return f"sha256:{sha256_hex(self.manifest)}"

    @property
    def tags(self) -> list[str]:
        """Its recipe's tags, else 12 hex digits of its own digest."""
        return self.composed.declaration.recipe.tags or [self.digest.removeprefix("sha256:")[:12]]


@dataclass(kw_only=True)
class Builder:
    """Builds selected images of a project. `lock` grows by what is learnt."""

    images: Sequence[ImageDeclaration]
    lock: Lock
    contents: Contents
    progress: Progress
    fetch_base: FetchBase

    def __post_init__(self) -> None:
        self.packer = Packer(self.contents, self.lock, self.progress)

    def run(self, selected: Sequence[ImageDeclaration]) -> tuple[BuiltImage, ...]:
        """Every selected image, with all its layers made or known.

        Raises:
            DriftError: the lock does not stand for the declarations.
            NotReproducible: a layer came out different from its receipt.
            SourceError: a content cannot be had.
        """
        composed = checked(self.images, selected, self.lock)
        if any(image.pending for image in composed):
            self.learn(composed)
            composed = checked(self.images, selected, self.lock)
        layers: dict[tuple[str, str], ComposedLayer] = {}
        for image in composed:
            for layer in image.layers:
                assert layer.instance is not None
                layers.setdefault((layer.instance.key, layer.algorithm), layer)
        results = in_threads(self.packer.build, list(layers.values()))
        built = dict(zip(layers, results, strict=True))
        bases = {image.base.digest: image.base for image in composed if image.base}
        fetched = dict(zip(bases, in_threads(self.fetch_base, list(bases.values())), strict=True))
        return tuple(self._image(image, built, fetched) for image in composed)

    def learn(self, composed: Sequence[ComposedImage]) -> None:
        """Fetch the models whose facts are pending, and take their facts into the lock."""
        pending = {sha256 for image in composed for sha256 in image.pending}
        contents = {m.content.sha256: m.content for image in composed for m in image.models}
        in_threads(self._learn, [contents[sha256] for sha256 in sorted(pending)])
        self.lock = replace(self.lock, files=self._facts(pending))

    def _learn(self, content: Content) -> None:
        sha256 = content.sha256 or ""
        self.contents.ensure([content])
        facts = self.contents.store.facts(sha256)
        if facts is None or facts.safetensors is None or (facts.safetensors and facts.addnet is None):
            with self.progress.task(f"read {sha256[:12]}", content.size) as task:
                self.contents.store.scan(content, task.advance)

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
        built: Mapping[tuple[str, str], BuiltLayer],
        bases: Mapping[str, BaseImage],
    ) -> BuiltImage:
        pairs = tuple(
            (layer, _called(built[layer.instance.key, layer.algorithm], layer.title))
            for layer in image.layers
            if layer.instance
        )
        base = bases[image.base.digest] if image.base else None
        count = len(pairs) + (len(base.layers) if base else 0)
        if count > MAX_LAYERS:
            document = image.declaration.document
            message = f"image {image.name} has {count} layers, its base's included; runtimes stop at {MAX_LAYERS}"
            raise ProjectError([document.problem(("layers",), message, "split the recipe into several images")])
        return BuiltImage(composed=image, base=base, layers=pairs)

    def record(self, built: Sequence[BuiltImage]) -> Lock:
        """The lock with receipts, facts and manifests of what was built, and nothing else changed.

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
        known = set(self.lock.files)
        return replace(self.lock, receipts=receipts, images=images, files=self._facts(known))


def _called(made: BuiltLayer, title: str) -> BuiltLayer:
    """Images that share a layer may call it differently: each keeps its own name for it, whoever made it."""
    return made if made.title == title else replace(made, title=title)


def _same_manifest(before: LockedImage, lines: tuple[str, ...], image: BuiltImage) -> None:
    if before.manifest is None or before.layers != lines or before.manifest == image.digest:
        return
    raise NotReproducible(
        f"not reproducible: image {image.composed.name} is now {image.digest}",
        cause=f"the lock says {before.manifest}, of the same layers and settings",
        hint=f"if layerbuild was updated meanwhile: 'layerbuild lock --repack {image.composed.name}'",
    )


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
