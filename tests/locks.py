"""Locks of made-up sources, for the tests of what follows from a lock."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from builders import SHA, sha256
from layerbuild.compose import ComposedImage
from layerbuild.images import ImageDeclaration
from layerbuild.kinds.requests import declaration_digest, requests
from layerbuild.lockmodel import Lock, LockedBase, LockedImage, LockedLayer
from layerbuild.model import LARGE, Content, Facts, Pin, PinnedFile

_COMMIT = "1" * 40
BASE = f"sha256:{SHA['b']}"
"""Digest of every base."""


def sha_of(uri: str) -> str:
    """A stand-in: equal addresses before `#` have equal contents."""
    return sha256(uri.partition("#")[0].encode())


def pin_of(uri: str, size: int) -> Pin:
    if uri.startswith("git"):
        return Pin(source=uri, revision=_COMMIT, tree="2" * 40, listing=sha_of(uri))
    content = Content(size=size, sha256=sha_of(uri))
    small = PinnedFile(path="config.json", content=Content(size=5, git_blob="3" * 40))
    files = (
        PinnedFile(path=re.split("[/:]", uri)[-1], content=content),
        *((small,) if uri.startswith("hf://") else ()),
    )
    return Pin(source=uri, files=files, revision=_COMMIT)


def made_up(images: Sequence[ImageDeclaration], sizes: Mapping[str, int] | None = None, *, facts: bool = True) -> Lock:
    """What `layerbuild lock` would write of made-up sources; without layers of images."""
    layers, files = {}, {}
    for image in images:
        for use in image.uses:
            asked = requests(use.layer)
            pins = {role: pin_of(r.uri, (sizes or {}).get(use.name, LARGE)) for role, r in asked.items()}
            layers[use.pin_key] = LockedLayer(declaration=declaration_digest(asked), pins=pins)
            for pin in pins.values():
                for file in pin.files:
                    if file.content.sha256 and facts:
                        known = Facts(size=file.content.size or 0, safetensors=True, metadata="{}", addnet=SHA["a"])
                        files[file.content.sha256] = known
    found = {
        image.name: LockedImage(
            platform=image.recipe.platform,
            settings=image.settings,
            base=None if image.recipe.base == "scratch" else LockedBase(reference=image.recipe.base, digest=BASE),
            layers=(),
        )
        for image in images
    }
    return Lock(layers=layers, files=files, images=found)


def with_images(lock: Lock, images: Sequence[ComposedImage]) -> Lock:
    """The lock with the images' layers in it."""
    lines = {i.name: tuple(layer.line for layer in i.layers) for i in images}
    changed = {i.name: replace(lock.images[i.name], layers=lines[i.name], buckets=i.buckets) for i in images}
    return replace(lock, images={**lock.images, **changed})
