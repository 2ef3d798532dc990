"""Two images compared: in models, and in what a node that has the one pulls for the other. Pure.

A runtime tells in one of two ways whether it has a layer. containerd keeps blobs, and knows them by digest.
Docker keeps what it unpacked, and knows that by its chain: the layer and everything below it (image-spec 1.1,
config.md, "Layer ChainID"), so that a layer which moved is pulled again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from layerbuild.inventory import ImageItem, LayerItem, ModelItem, Pull


@dataclass(frozen=True, kw_only=True)
class ImageDiff:
    """What the way from `old` to `new` changes.

    Attributes:
        added, removed, same: models; `same` are those of `new`, and may be called otherwise there.
        renamed: of these, the old name and the new model.
        by_digest, by_chain: what a node that has `old` pulls for `new`.
        base: whether their bases are the same, or all layers of both are known: else layers of the bases are not
            counted.
    """

    old: ImageItem
    new: ImageItem
    added: tuple[ModelItem, ...]
    removed: tuple[ModelItem, ...]
    same: tuple[ModelItem, ...]
    renamed: tuple[tuple[ModelItem, ModelItem], ...]
    by_digest: Pull
    by_chain: Pull
    base: bool

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "old": {"name": self.old.name, "platform": self.old.platform, "manifest": self.old.manifest},
            "new": {"name": self.new.name, "platform": self.new.platform, "manifest": self.new.manifest},
            "models": {
                "added": [asdict(model) for model in self.added],
                "removed": [asdict(model) for model in self.removed],
                "same": [asdict(model) for model in self.same],
                "renamed": [{"from": old.name, "to": new.name} for old, new in self.renamed],
            },
            "pull": {"by_digest": self.by_digest.as_json(), "by_chain": self.by_chain.as_json()},
            "base_counted": self.base,
        }


def image_diff(old: ImageItem, new: ImageItem) -> ImageDiff:
    """Compares two images."""
    before, after = _by_identity(old.models), _by_identity(new.models)
    same = tuple(model for model in new.models if model.identity in before)
    first = {identity: models[0] for identity, models in before.items()}
    names = {identity: {model.name for model in models} for identity, models in before.items()}
    known = old.complete and new.complete
    one, other = (image.layers if known else image.own_layers for image in (old, new))
    alike = old.base_digest == new.base_digest
    return ImageDiff(
        old=old,
        new=new,
        added=tuple(model for model in new.models if model.identity not in before),
        removed=tuple(model for model in old.models if model.identity not in after),
        same=same,
        renamed=tuple((first[m.identity], m) for m in same if m.name not in names[m.identity]),
        by_digest=Pull(layers=_lacking(one, other)),
        by_chain=Pull(layers=tuple(other[_common(one, other) if known or alike else 0 :])),
        base=known or alike,
    )


def _by_identity(models: Iterable[ModelItem]) -> dict[str, list[ModelItem]]:
    found: dict[str, list[ModelItem]] = {}
    for model in models:
        found.setdefault(model.identity, []).append(model)
    return found


def _lacking(old: Sequence[LayerItem], new: Sequence[LayerItem]) -> tuple[LayerItem, ...]:
    """Layers of `new` that `old` has no blob of."""
    digests = {layer.digest for layer in old if layer.digest}
    keys = {_form(layer): layer.digest for layer in old}

    def there(layer: LayerItem) -> bool:
        if layer.digest in digests:
            return True
        # Where one of the two was never made, they will be the same if their keys are.
        return _form(layer) in keys and None in (layer.digest, keys[_form(layer)])

    return tuple({layer.digest or _form(layer): layer for layer in new if not there(layer)}.values())


def _form(layer: LayerItem) -> tuple[str | None, str, str]:
    """What decides a layer's blob, but for the version of the library that packs it."""
    return layer.key, layer.encoding.partition(":")[0], "" if layer.key else layer.title


def _common(old: Sequence[LayerItem], new: Sequence[LayerItem]) -> int:
    """How many layers from the bottom on are the same chain."""
    pairs = zip(old, new, strict=False)
    return next((i for i, pair in enumerate(pairs) if not _unpack_alike(*pair)), min(len(old), len(new)))


def _unpack_alike(one: LayerItem, other: LayerItem) -> bool:
    if one.diff_id and other.diff_id:
        return one.diff_id == other.diff_id
    if one.key and other.key:
        return one.key == other.key
    return one.digest == other.digest if one.digest else one == other
