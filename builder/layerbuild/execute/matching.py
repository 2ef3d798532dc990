"""Which layer of an image is which of those that a lock makes. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from layerbuild.layering import ComposedLayer
from layerbuild.model import Descriptor


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A layer that the image must have.

    Attributes:
        title: for people.
        media_type: by OCI's names.
        blobs: sizes in bytes by the digests that it is known by; empty where it has no receipt.
        diff_id: None where it has no receipt.
        layer: None for a base's layer.
    """

    title: str
    media_type: str
    blobs: Mapping[str, int] = field(default_factory=dict)
    diff_id: str | None = None
    layer: ComposedLayer | None = None

    @property
    def key(self) -> str | None:
        """Of its instance; None for a base's layer."""
        return self.layer.instance.key if self.layer is not None and self.layer.instance is not None else None


@dataclass(frozen=True, kw_only=True)
class Present:
    """A layer that the image has: what its manifest and its config say of it.

    Attributes:
        key: as annotated.
        diff_id: None where the config names none.
    """

    descriptor: Descriptor
    key: str | None
    diff_id: str | None


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A layer of the image, and what it should be. One of the two may be missing."""

    wanted: Wanted | None
    present: Present | None

    @property
    def title(self) -> str:
        """For people."""
        if self.wanted is not None:
            return self.wanted.title
        assert self.present is not None
        return f"layer {self.present.descriptor.digest[7:19]}"


def match(wanted: Sequence[Wanted], present: Sequence[Present]) -> tuple[list[Pair], bool]:
    """Every layer of both sides once, in the image's order, those that it lacks last; and whether the order is right.

    A layer is found by its digest, else by the key that it is annotated with. A base may hold a blob twice.
    """
    free = list(range(len(wanted)))
    pairs, order = [], []
    for layer in present:
        by_digest = (i for i in free if layer.descriptor.digest in wanted[i].blobs)
        by_key = (i for i in free if layer.key is not None and wanted[i].key == layer.key)
        index = next(by_digest, None)
        index = next(by_key, None) if index is None else index
        pairs.append(Pair(wanted=None if index is None else wanted[index], present=layer))
        if index is not None:
            free.remove(index)
            order.append(index)
    pairs += [Pair(wanted=wanted[i], present=None) for i in free]
    return pairs, order == sorted(order)


def differences(pair: Pair) -> Iterator[str]:
    """By what a layer of the image is not what it should be, as far as its documents tell."""
    wanted, present = pair.wanted, pair.present
    if present is None:
        yield f"{pair.title} is missing"
        return
    descriptor = present.descriptor
    if wanted is None:
        yield f"{pair.title} is no layer of it ({descriptor.digest}, {descriptor.size} bytes)"
        return
    if wanted.blobs and descriptor.digest not in wanted.blobs:
        known = " or ".join(wanted.blobs)
        yield f"{pair.title} is {descriptor.digest}, its receipt says {known}"
    elif wanted.blobs and descriptor.size != wanted.blobs[descriptor.digest]:
        known = str(wanted.blobs[descriptor.digest])
        yield f"{pair.title} is said to have {descriptor.size} bytes, its receipt says {known}"
    if descriptor.media_type != wanted.media_type:
        yield f"{pair.title} is of the type {descriptor.media_type[:100]!r}, not {wanted.media_type}"
    if present.diff_id is not None and wanted.diff_id not in (None, present.diff_id):
        yield f"{pair.title} has the diffID {present.diff_id}, its receipt says {wanted.diff_id}"
    if present.key is not None and wanted.key != present.key:
        yield f"{pair.title} is annotated as another layer"


def config_differences(expected: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Names of what differs between two configs; of `config`, what is below it. Safe to show."""
    names = []
    for key in sorted({*expected, *found}):
        one, other = expected.get(key), found.get(key)
        if key == "config" and isinstance(one, dict) and isinstance(other, dict):
            names += [f"config.{_shown(k)}" for k in sorted({*one, *other}) if one.get(k) != other.get(k)]
        elif one != other:
            names.append(_shown(key))
    return names


def _shown(key: str) -> str:
    return key if key.isidentifier() and len(key) <= 40 else ascii(key[:40])
