"""An image as people ask for it: its models, its layers, who else has them. Pure.

`inventory_of` reads one off a lock; an image that lies elsewhere is read by `audit.inventory`. Both give the
same values, so that whatever shows, lists or compares images need not know where they came from.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from layerbuild.compose import ComposedImage
from layerbuild.compress import MEDIA_TYPES, is_family
from layerbuild.declared import ImageDeclaration
from layerbuild.image import BaseImage
from layerbuild.kinds import weights
from layerbuild.layering import ComposedLayer
from layerbuild.lockmodel import PENDING, Lock, key_of_line
from layerbuild.model import Facts, Pin, Receipt
from layerbuild.schema import ModelLayer

_SHORT_KEY = 16
"""Hex digits of a key in an image's list of the lock."""

_LONGEST = 100
"""Characters of what a model's own header says that are worth showing."""

BASE = "base"


@dataclass(frozen=True, kw_only=True)
class LayerItem:
    """A layer of an image.

    Attributes:
        kind, label: what made it; kind is `BASE` where another image did.
        key: its key; None where it is pending, or not layerbuild's.
        digest, size: as a registry stores it; None as long as nobody made it. The size of weights is known before.
        diff_id: digest of its tar.
        encoding: `none`, or what packed it; only the algorithm as long as nobody did.
        shared: other images of the project that have the very same layer.
    """

    kind: str
    label: str
    key: str | None = None
    digest: str | None = None
    size: int | None = None
    diff_id: str | None = None
    encoding: str = "none"
    shared: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.kind} {self.label}"


@dataclass(frozen=True, kw_only=True)
class Pull:
    """What has to be pulled.

    Attributes:
        layers: bottom first.
    """

    layers: tuple[LayerItem, ...]

    @property
    def size(self) -> int:
        """Bytes, as far as sizes are known."""
        return sum(layer.size or 0 for layer in self.layers)

    @property
    def unknown(self) -> int:
        """Layers whose size nobody knows before they are made."""
        return sum(1 for layer in self.layers if layer.size is None)

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        layers = [{"layer": layer.title, "digest": layer.digest, "size": layer.size} for layer in self.layers]
        return {"bytes": self.size, "unknown_layers": self.unknown, "layers": layers}


@dataclass(frozen=True, kw_only=True)
class ModelItem:
    """A model that the webui of an image lists.

    Attributes:
        type: key of `webui.modeltypes.MODEL_TYPES`.
        architecture: by its tensors, else what its own header says it was trained on.
        licence: as declared, else what its own header says.
        source: the pinned URI.
        path: absolute, in the image.
        layer: title of the layer that has its bytes.
        declaration: name of the declaration that it comes from.
    """

    name: str
    type: str
    path: str
    size: int | None = None
    sha256: str | None = None
    architecture: str | None = None
    licence: str | None = None
    source: str | None = None
    layer: str | None = None
    declaration: str | None = None

    @property
    def identity(self) -> str:
        """What it is the same model by, wherever it lies: its content, else its name."""
        return self.sha256 or f"{self.type}/{self.name}"


@dataclass(frozen=True, kw_only=True)
class ImageItem:
    """An image.

    Attributes:
        name: in its project, or the reference by which it was asked for.
        manifest: digest; None as long as nobody composed it.
        base: reference and digest of its base's manifest.
        layers: the lowest first, the base's included where these are known.
        complete: whether they are.
        unread: bytes of layers that were not looked into for models.
    """

    name: str
    platform: str
    manifest: str | None
    base: tuple[str, str] | None
    layers: tuple[LayerItem, ...]
    models: tuple[ModelItem, ...]
    repository: str = ""
    tags: tuple[str, ...] = ()
    file: str | None = None
    complete: bool = True
    unread: int = 0

    @property
    def own_layers(self) -> tuple[LayerItem, ...]:
        """Without those of its base."""
        return tuple(layer for layer in self.layers if layer.kind != BASE)

    @property
    def base_digest(self) -> str | None:
        """Of its base's manifest."""
        return self.base[1] if self.base else None

    @property
    def pull(self) -> Pull:
        """What a node with an empty disk pulls."""
        return Pull(layers=self.layers)

    def brief(self) -> dict[str, Any]:
        """For programs, without its models and layers."""
        return {
            **{"name": self.name, "platform": self.platform, "manifest": self.manifest},
            "base": {"reference": self.base[0], "digest": self.base[1]} if self.base else None,
            **{"recipe": self.file, "repository": self.repository, "tags": list(self.tags)},
            "pull": {"bytes": self.pull.size, "unknown_layers": self.pull.unknown, "base_counted": self.complete},
        }

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            **self.brief(),
            "models": [asdict(model) for model in self.models],
            "layers": [{**asdict(layer), "shared": list(layer.shared)} for layer in self.layers],
            "unread_bytes": self.unread,
        }


class Sharing:
    """Which images of a project have a layer: the same key, in the same form."""

    def __init__(self, images: Iterable[ImageDeclaration], lock: Lock) -> None:
        self._users: dict[str, list[tuple[str, str]]] = {}
        for image in images:
            locked = lock.images.get(image.name)
            for line in locked.layers if locked else ():
                if (key := key_of_line(line)) != PENDING:
                    self._users.setdefault(key, []).append((image.name, image.recipe.compression))

    def others(self, layer: ComposedLayer, image: str) -> tuple[str, ...]:
        """Every other image that has `layer` of `image`."""
        users = self._users.get(layer.instance.key[:_SHORT_KEY], []) if layer.instance else []
        return tuple(n for n, how in users if n != image and layer.algorithm in ("none", how))


FindBase = Callable[[Any], "BaseImage | None"]
"""The documents of a locked base, None where they are not at hand."""


def inventory_of(image: ComposedImage, lock: Lock, sharing: Sharing, find_base: FindBase) -> ImageItem:
    """An image as its lock makes it."""
    locked = lock.images.get(image.name)
    below = find_base(image.base) if image.base else None
    sizes = {sha: size for pin in _pins(image, lock) for sha, size in _sizes(pin).items()}
    own = [_layer(layer, lock, sizes, sharing.others(layer, image.name)) for layer in image.layers]
    recipe = image.declaration.recipe
    return ImageItem(
        name=image.name,
        platform=recipe.platform,
        manifest=locked.manifest if locked else None,
        base=(image.base.reference, image.base.digest) if image.base else None,
        layers=(*(base_layers(below) if below else ()), *own),
        models=tuple(_models(image, lock)),
        repository=image.repository,
        tags=tuple(recipe.tags),
        file=image.declaration.document.file,
        complete=image.base is None or below is not None,
    )


def base_layers(base: BaseImage) -> list[LayerItem]:
    """The layers that an image takes over from another."""
    diff_ids = (base.config.get("rootfs") or {}).get("diff_ids") or []
    return [
        LayerItem(
            kind=BASE,
            label=described.digest[7:19],
            digest=described.digest,
            size=described.size,
            diff_id=diff_id,
            encoding=encoding_of(described.media_type),
        )
        for described, diff_id in zip(base.layers, diff_ids, strict=True)
    ]


def encoding_of(media_type: str) -> str:
    """The algorithm that a layer's media type names."""
    return next((name for name, known in MEDIA_TYPES.items() if known == media_type), "none")


def _pins(image: ComposedImage, lock: Lock) -> Iterable[Pin]:
    return (pin for use in image.declaration.uses for pin in lock.layers[use.pin_key].pins.values())


def _sizes(pin: Pin) -> dict[str, int]:
    contents = (file.content for file in pin.files)
    return {c.sha256: c.size for c in contents if c.sha256 is not None and c.size is not None}


def _layer(layer: ComposedLayer, lock: Lock, sizes: Mapping[str, int], shared: tuple[str, ...]) -> LayerItem:
    receipt = lock.receipts.get(layer.instance.key) if layer.instance else None
    digest, size, encoding = stored(receipt, layer.algorithm)
    if receipt is None and layer.kind == weights.KIND and layer.instance is not None:
        known = [_size(sha, lock, sizes) for sha in weights.files(layer.instance)]
        size = sum(s for s in known if s is not None) if None not in known else None
    return LayerItem(
        kind=layer.kind,
        label=layer.label,
        key=layer.instance.key if layer.instance else None,
        digest=digest,
        size=size,
        diff_id=receipt.diff_id if receipt else None,
        encoding=encoding,
        shared=shared,
    )


def stored(receipt: Receipt | None, algorithm: str) -> tuple[str | None, int | None, str]:
    """Digest, size and encoding of a layer's blob, as far as a receipt tells."""
    if receipt is not None and algorithm == "none":
        return receipt.diff_id, receipt.size, "none"
    blob = next((b for b in receipt.blobs if is_family(b.encoding, algorithm)), None) if receipt else None
    return (blob.digest, blob.size, blob.encoding) if blob else (None, None, algorithm)


def _size(sha256: str, lock: Lock, sizes: Mapping[str, int]) -> int | None:
    facts = lock.files.get(sha256)
    return facts.size if facts is not None else sizes.get(sha256)


# --- models ------------------------------------------------------------------------------------------


def _models(image: ComposedImage, lock: Lock) -> Iterable[ModelItem]:
    uses = {use.name: use for use in image.declaration.uses}
    holders = holders_of(image.layers)
    for model in image.models:
        use, sha256 = uses[model.layer], model.content.sha256 or ""
        layer = use.layer
        assert isinstance(layer, ModelLayer)
        facts = lock.files.get(sha256)
        said = told_by(facts)
        # A model without a link has a layer of its own, which is called after its declaration.
        held = holders.get(sha256) or next((x for x in image.layers if x.label == use.name), None)
        yield ModelItem(
            name=model.name,
            type=model.type,
            path=model.path,
            size=facts.size if facts else model.content.size,
            sha256=model.content.sha256,
            architecture=(facts.architecture if facts else None) or said.architecture,
            licence=layer.licence or said.licence,
            source=lock.layers[use.pin_key].pins["model"].source,
            layer=held.title if held else None,
            declaration=use.name,
        )


def holders_of(layers: Sequence[ComposedLayer]) -> dict[str, ComposedLayer]:
    """The weights layer of each file, by sha256."""
    held = (layer for layer in layers if layer.kind == weights.KIND and layer.instance is not None)
    return {sha: layer for layer in held if layer.instance for sha in weights.files(layer.instance)}


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a model's own header says: whoever made the file wrote it."""

    architecture: str | None = None
    licence: str | None = None


def told_by(facts: Facts | None) -> Told:
    """By the header's metadata as the lock has it."""
    try:
        value = json.loads(facts.metadata) if facts is not None and facts.metadata else {}
    except (ValueError, RecursionError):
        value = {}
    return told(value)


def told(metadata: object) -> Told:
    """By a header's `__metadata__`: the keys of Stability AI's ModelSpec 1.0, and kohya's."""
    architecture = _text(metadata, "modelspec.architecture", "ss_base_model_version")
    return Told(architecture=architecture, licence=_text(metadata, "modelspec.license"))


def _text(metadata: object, *keys: str) -> str | None:
    found = (metadata.get(key) for key in keys) if isinstance(metadata, dict) else ()
    return next((value[:_LONGEST] for value in found if isinstance(value, str) and value), None)
