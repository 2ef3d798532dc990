"""What each file of an image is taken for by whoever loads it, by its names; and what must be looked at first. Pure.

A file has several names: that at its source, and that under which an image holds it. It is loaded by the
latter; both count.
"""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from layerbuild.images import ImageDeclaration, LayerUse
from layerbuild.kinds import requests
from layerbuild.lockmodel import Lock
from layerbuild.model import Content, Pin
from layerbuild.schema import FilesLayer, Layer, ModelLayer, WebuiLayer
from layerbuild.webui.modeltypes import is_safetensors

PICKLES = frozenset({".ckpt", ".pt", ".pth", ".bin", ".pkl", ".pickle", ".joblib"})
"""Extensions of files that are loaded by Python's pickle: by `torch.load`, or without it."""


def is_pickle(name: str) -> bool:
    """By the extension, as webui and transformers decide."""
    return posixpath.splitext(name)[1].lower() in PICKLES


def files_of(layer: Layer, pins: Mapping[str, Pin]) -> Iterator[tuple[str, Content]]:
    """Every file of a declaration by each of its names. Trees of git are left out: they hold code anyway."""
    if isinstance(layer, WebuiLayer):
        return
    for role, pin in pins.items():
        placed = _placed(layer, role)
        for file in pin.files:
            yield file.path, file.content
            if placed is not None:
                yield placed, file.content


def _placed(layer: Layer, role: str) -> str | None:
    """Another name that a single file gets; of a sidecar, its extension is what counts."""
    if isinstance(layer, ModelLayer):
        return layer.filename if role == requests.MODEL else f"sidecar{role.removeprefix(requests.sidecar(''))}"
    return role if isinstance(layer, FilesLayer) else None


@dataclass(frozen=True, kw_only=True)
class Suspect:
    """A file that may be a pickle. One that is called `.bin` may also be anything else.

    Attributes:
        name: for messages.
    """

    content: Content
    name: str
    lenient: bool


@dataclass(frozen=True, kw_only=True)
class Formats:
    """Contents that must be what their names say, by `Content.id`.

    Attributes:
        safetensors: must have a valid header; values are names for messages.
        pickles: must be harmless, because an image with the policy `scan` has them.
        tolerated: of those that must be harmless, the ones that another image of the run takes as they are:
            their layers are made in any case.
    """

    safetensors: Mapping[str, str] = field(default_factory=dict)
    pickles: Mapping[str, Suspect] = field(default_factory=dict)
    tolerated: frozenset[str] = frozenset()

    @property
    def identity(self) -> list[list[str]]:
        """The same for two whose answers are."""
        lenient = (name for name, suspect in self.pickles.items() if suspect.lenient)
        return [sorted(ids) for ids in (self.safetensors, self.pickles, lenient, self.tolerated)]

    def of(self, contents: Iterable[Content]) -> Formats:
        """What they say of some contents."""
        ids = {content.id for content in contents}
        return Formats(
            safetensors={name: self.safetensors[name] for name in ids & self.safetensors.keys()},
            pickles={name: self.pickles[name] for name in ids & self.pickles.keys()},
            tolerated=self.tolerated & ids,
        )


def formats(images: Collection[ImageDeclaration], lock: Lock) -> Formats:
    """What must be looked at in `images`."""
    known: dict[str, list[tuple[Content, str, str]]] = {}

    def named(use: LayerUse) -> list[tuple[Content, str, str]]:
        """(Content, name, declaration) of a layer's files that are safetensors or pickles."""
        found = known.get(use.pin_key)
        if found is None:
            locked = lock.layers.get(use.pin_key)
            files = files_of(use.layer, locked.pins if locked else {})
            found = known[use.pin_key] = [
                (content, name, use.name) for name, content in files if is_safetensors(name) or is_pickle(name)
            ]
        return found

    safetensors: dict[str, str] = {}
    pickles: dict[str, Suspect] = {}
    for image in images:
        for use in image.uses:
            for content, name, declaration in named(use):
                title, lenient = f"{declaration} ({name})", name.lower().endswith(".bin")
                if is_safetensors(name):
                    safetensors.setdefault(content.id, title)
                elif image.recipe.pickle == "scan" and (content.id not in pickles or not lenient):
                    pickles[content.id] = Suspect(content=content, name=title, lenient=lenient)

    allowing = (use for image in images if image.recipe.pickle == "allow" for use in image.uses)
    allowed = frozenset(content.id for use in allowing for content, name, _ in named(use) if is_pickle(name))
    tolerated = allowed & pickles.keys()
    return Formats(safetensors=safetensors, pickles=pickles, tolerated=tolerated)


def first_pickle(image: ImageDeclaration, lock: Lock) -> tuple[LayerUse, str] | None:
    """A declaration of the image that holds a pickle, and that file's name; None where none does."""
    for use in image.uses:
        locked = lock.layers.get(use.pin_key)
        for name, _ in files_of(use.layer, locked.pins if locked else {}):
            if is_pickle(name):
                return use, name
    return None
