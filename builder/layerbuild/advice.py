"""What a lock makes possible to foresee: images whose start would still fetch or compute something. Pure.

Advice is no error: a recipe may rely on its base, or on what a worker mounts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from layerbuild.compose import ComposedImage, environment
from layerbuild.kinds import huggingface
from layerbuild.lockmodel import Lock
from layerbuild.schema import HuggingFaceLayer, ModelLayer
from layerbuild.webui.architecture import family
from layerbuild.webui.hashcache import PlacedModel
from layerbuild.webui.needs import NEEDS


@dataclass(frozen=True, kw_only=True)
class Advice:
    """One thing about one image: what will happen at a start, and what to do about it."""

    image: str
    message: str
    hint: str

    def __str__(self) -> str:
        return f"{self.image}: {self.message} (try: {self.hint})"


def advise(images: Sequence[ComposedImage], lock: Lock) -> list[Advice]:
    """Everything that can be said of `images` before they are built."""
    return [advice for image in images for advice in (*_missing(image, lock), *_caches(image), *_overridden(image))]


def _missing(image: ComposedImage, lock: Lock) -> Iterator[Advice]:
    """What the architectures of its checkpoints need, and no layer brings. A base may bring it."""
    recipe = image.declaration.recipe
    base = " unless the base holds it" if recipe.base != "scratch" else ""
    folders = {
        huggingface.repository_of(use.layer)
        for use in image.declaration.uses
        if isinstance(use.layer, HuggingFaceLayer)
    }
    paths = {model.path for model in image.models}
    for model, found in _checkpoints(image, lock):
        needs = NEEDS[found]
        for repository, layer in needs.repositories:
            if f"models--{repository.replace('/', '--')}" not in folders:
                message = f"{model.name} is {found}: its start asks for {repository}{base}"
                yield Advice(image=image.name, message=message, hint=f"add the layer {layer}")
        for file, layer in needs.files:
            if f"{image.declaration.target.models_dir}/{file}" not in paths:
                message = f"{model.name} is {found}: its first generation downloads {file}{base}"
                yield Advice(image=image.name, message=message, hint=f"add the layer {layer}")
        if needs.configuration and not _has_sidecar(image, model):
            message = f"{model.name} is {found} without its .yaml: each start runs the model to find out what it is"
            yield Advice(image=image.name, message=message, hint="add 'sidecars: {.yaml: ...}' to its layer")


def _checkpoints(image: ComposedImage, lock: Lock) -> Iterator[tuple[PlacedModel, str]]:
    for model in image.models:
        facts = lock.files.get(model.content.sha256 or "")
        found = family(facts.architecture) if facts and model.type == "checkpoint" else None
        if found in NEEDS:
            yield model, found


def _has_sidecar(image: ComposedImage, model: PlacedModel) -> bool:
    return any(
        use.name == model.layer and isinstance(use.layer, ModelLayer) and ".yaml" in use.layer.sidecars
        for use in image.declaration.uses
    )


def _caches(image: ComposedImage) -> Iterator[Advice]:
    vaes = [model.name for model in image.models if model.type == "vae"]
    if len(vaes) > 1:
        message = f"{len(vaes)} VAEs share one key in the webui's hash cache: each is hashed when it is used"
        yield Advice(image=image.name, message=message, hint="keep one VAE in the image, if one is enough")
    version, webui = image.declaration.target.version, image.declaration.recipe.webui
    if webui is not None and webui.cache_file is not None and version is not None and version < (1, 6):
        message = "the webui knows SD_WEBUI_CACHE_FILE from 1.6 on"
        yield Advice(image=image.name, message=message, hint="leave 'cache_file' out")


def _overridden(image: ComposedImage) -> Iterator[Advice]:
    for name, value in environment(image).items():
        stated = image.declaration.recipe.config.env.get(name, value)
        if str(stated) != value:
            message = f"its config sets {name} to {stated!r}, its layers need {value!r}"
            yield Advice(image=image.name, message=message, hint=f"leave {name} out of 'config.env'")
