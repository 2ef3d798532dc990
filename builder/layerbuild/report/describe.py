"""Composed images become a report. Pure: whatever has to be looked up is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from layerbuild.audit.findings import Report as Audit
from layerbuild.compose import ComposedImage
from layerbuild.image import BaseImage
from layerbuild.kinds.requests import MODEL
from layerbuild.layering import LayerId
from layerbuild.lockmodel import Lock, LockedBase
from layerbuild.report.values import NotAudited, Note, Report, ReportedImage, ReportedLayer, ReportedModel, Stored

BASE = "base"
"""The kind of a base's layers."""


def describe(
    images: Sequence[ComposedImage],
    *,
    project: str,
    lock: Lock,
    lock_digest: str,
    stored: Mapping[LayerId, Stored],
    bases: Mapping[str, BaseImage | None],
    audit: Callable[[ComposedImage], Audit | NotAudited],
) -> Report:
    """The report of `images`.

    Args:
        lock_digest: of the lock's text.
        stored: what is known of each layer.
        bases: by digest of their manifest; None where that is not known here.
        audit: gives what a start of an image would do.
    """
    shelf = _Shelf(stored)
    described = tuple(_image(image, shelf, bases, audit, lock) for image in images)
    layers = shelf.layers()
    held = [frozenset(image.layers) for image in described]
    users = [sum(i in layers_of for layers_of in held) for i in range(len(layers))]
    sizes = [layer.stored.size or 0 for layer in layers]
    unknown = [layer for layer in layers if layer.stored.size is None]
    return Report(
        project=project,
        lock=lock_digest,
        images=described,
        layers=layers,
        models=_models(images, lock),
        notes=_notes(unknown, described),
        stored=sum(sizes),
        separate=sum(size * count for size, count in zip(sizes, users, strict=True)),
        shared=sum(size for size, count in zip(sizes, users, strict=True) if count > 1),
        unknown=len(unknown),
    )


class _Shelf:
    """Every layer once: by the digest of its blob, else by what it is made from."""

    def __init__(self, stored: Mapping[LayerId, Stored]) -> None:
        self._stored = stored
        self._places: dict[object, int] = {}
        self._found: list[tuple[dict[str, None], str, str | None, Stored]] = []

    def of_image(self, image: ComposedImage) -> list[int]:
        """Places of the layers that the image's declarations give, in order."""
        places = []
        for layer in image.layers:
            if layer.instance is None:
                places.append(self._put((image.name, layer.title), layer.title, layer.kind, None, Stored()))
                continue
            known = self._stored.get(layer.id, Stored())
            places.append(self._put(known.digest or layer.id, layer.title, layer.kind, layer.instance.key, known))
        return places

    def of_base(self, locked: LockedBase, base: BaseImage | None) -> list[int]:
        """Places of the base's layers; one for all of them where they are not known."""
        if base is None:
            return [self._put(("base", locked.digest), f"all of {locked.reference}", BASE, None, Stored())]
        diff_ids: Sequence[Any] = (base.config.get("rootfs") or {}).get("diff_ids") or ()
        return [
            self._put(
                descriptor.digest,
                f"base layer {descriptor.digest[7:19]}",
                BASE,
                None,
                Stored(digest=descriptor.digest, diff_id=diff_id, size=descriptor.size),
            )
            for descriptor, diff_id in zip(base.layers, diff_ids, strict=True)
        ]

    def _put(self, identity: object, title: str, kind: str, key: str | None, stored: Stored) -> int:
        place = self._places.setdefault(identity, len(self._found))
        if place == len(self._found):
            self._found.append(({}, kind, key, stored))
        self._found[place][0][title] = None
        return place

    def layers(self) -> tuple[ReportedLayer, ...]:
        """All of them, by their places."""
        return tuple(
            ReportedLayer(titles=tuple(titles), kind=kind, key=key, stored=stored)
            for titles, kind, key, stored in self._found
        )


def _image(
    image: ComposedImage,
    shelf: _Shelf,
    bases: Mapping[str, BaseImage | None],
    audit: Callable[[ComposedImage], Audit | NotAudited],
    lock: Lock,
) -> ReportedImage:
    base = bases[image.base.digest] if image.base else None
    below = shelf.of_base(image.base, base) if image.base else []
    return ReportedImage(
        name=image.name,
        platform=image.declaration.recipe.platform,
        base=image.base.reference if image.base else None,
        base_known=image.base is None or base is not None,
        layers=(*below, *shelf.of_image(image)),
        manifest=lock.images[image.name].manifest,
        audit=audit(image),
    )


def _models(images: Sequence[ComposedImage], lock: Lock) -> tuple[ReportedModel, ...]:
    """Every model once for each name that it has, with the images that have it under that name."""
    found: dict[ReportedModel, list[int]] = {}
    for place, image in enumerate(images):
        uses = {use.name: use for use in image.declaration.uses}
        for model in image.models:
            use, sha256 = uses[model.layer], model.content.sha256
            facts = lock.files.get(sha256 or "")
            described = ReportedModel(
                name=model.name,
                type=model.type,
                layer=use.name,
                licence=use.layer.licence,
                source=lock.layers[use.pin_key].pins[MODEL].source,
                sha256=sha256,
                size=model.content.size if model.content.size is not None or facts is None else facts.size,
                images=(),
            )
            found.setdefault(described, []).append(place)
    return tuple(replace(model, images=tuple(dict.fromkeys(places))) for model, places in found.items())


def _notes(unknown: Sequence[ReportedLayer], images: Sequence[ReportedImage]) -> tuple[Note, ...]:
    """What is not known, and what would make it so."""
    notes = []
    bases = dict.fromkeys(image.base for image in images if not image.base_known)
    made_here = sum(1 for layer in unknown if layer.kind != BASE)
    if made_here:
        words = (
            "1 layer has no size yet: it was" if made_here == 1 else f"{made_here} layers have no size yet: they were"
        )
        notes.append(Note(text=f"{words} never made, so the sums leave them out.", command="layerbuild build"))
    if bases:
        names = ", ".join(str(name) for name in list(bases)[:3]) + (" and others" if len(bases) > 3 else "")
        text = f"What {names} consists of is not known on this machine, so the sums leave it out."
        notes.append(Note(text=text, command="layerbuild report --online --html FILE"))
    return tuple(notes)
