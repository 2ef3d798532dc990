"""What a lock makes possible to foresee: images whose start would still fetch or compute something. Pure.

Advice is no error: a recipe may rely on its base, or on what a worker mounts.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from layerbuild.compose import ComposedImage, environment
from layerbuild.kinds import huggingface, outer_paths
from layerbuild.lockmodel import Lock
from layerbuild.schema import FilesLayer, HuggingFaceLayer, ModelLayer
from layerbuild.webui.architecture import family
from layerbuild.webui.hashcache import PlacedModel
from layerbuild.webui.needs import NEEDS, Needs

_TRUE = frozenset({"1", "on", "yes", "true"})
"""What `huggingface_hub` takes for yes, in lower case."""

_HUB_VARIABLES = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_CACHE")
"""Variables that move the hub's cache away from `HF_HOME`."""


@dataclass(frozen=True, kw_only=True)
class Advice:
    """One thing about one image: what will happen at a start, and what to do about it."""

    image: str
    message: str
    hint: str

    def __str__(self) -> str:
        return f"{self.image}: {self.message} (try: {self.hint})"


def advise(images: Sequence[ComposedImage], lock: Lock) -> list[Advice]:
    """Everything that can be said of `images` before they are built; once of all platforms of one."""
    found = (
        Advice(image=image.title, message=message, hint=hint)
        for image in images
        for said in (
            _missing(image, lock),
            _vaes(image),
            _cache_file(image),
            _cache_directory(image),
            _variables(image),
        )
        for message, hint in said
    )
    return list(dict.fromkeys(found))


Found = Iterator[tuple[str, str]]
"""Message and hint."""


def _missing(image: ComposedImage, lock: Lock) -> Found:
    """What the architectures of its checkpoints need, and no layer brings. A base may bring it."""
    if image.target.flavor != "a1111":
        return  # The forks carry tokenizers with them, or load by diffusers.
    said = set()
    for model, found in _checkpoints(image, lock):
        needs, version = NEEDS[found], image.target.version
        if version is not None and version < needs.since:
            release = ".".join(map(str, needs.since))
            yield f"{model.name} is {found}, which the webui knows from {release} on", "take a newer webui"
            continue
        # Ten checkpoints of one architecture lack the same file: said once, with the first one's name.
        for message, hint in _lacks(image, needs):
            if (message, hint) not in said:
                said.add((message, hint))
                yield f"{model.name} is {found}: {message}", hint
        if needs.configuration and not _has_sidecar(image, model):
            message = f"{model.name} is {found} without its .yaml: each start runs the model to find out what it is"
            yield message, "add 'sidecars: {.yaml: ...}' to its layer"


def _lacks(image: ComposedImage, needs: Needs) -> Found:
    base = " unless the base holds it" if image.declaration.recipe.base != "scratch" else ""
    layers = [use.layer for use in image.declaration.uses]
    folders = {huggingface.repository_of(layer) for layer in layers if isinstance(layer, HuggingFaceLayer)}
    paths = {model.path for model in image.models}
    paths.update(path for layer in layers if isinstance(layer, FilesLayer) for path in layer.files)
    for repository, name in needs.repositories:
        if f"models--{repository.replace('/', '--')}" not in folders:
            yield f"its start asks for {repository}{base}", f"add the layer {name}"
    for file, name in needs.files:
        if f"{image.target.models_dir}/{file}" not in paths:
            yield f"its first generation downloads {file}{base}", f"add the layer {name}"


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


def _vaes(image: ComposedImage) -> Found:
    count = sum(model.type == "vae" for model in image.models)
    if count > 1:
        message = f"{count} VAEs share one key in the webui's hash cache: each is hashed when it is used"
        yield message, "keep one VAE in the image, if one is enough"


def _cache_file(image: ComposedImage) -> Found:
    version = image.target.version
    if image.target.cache_file is not None and version is not None and version < (1, 6):
        yield "the webui knows SD_WEBUI_CACHE_FILE from 1.6 on, and reads no hash cache", "leave 'cache_file' out"


def _cache_directory(image: ComposedImage) -> Found:
    """From 1.9 on `cache.json` is converted at the start, into a directory that is not there yet."""
    version, recipe, target = image.target.version, image.declaration.recipe, image.target
    if (version is not None and version < (1, 9)) or target.flavor == "sdnext":
        return
    stated = recipe.webui.cache_dir if recipe.webui else None
    directory = (stated or f"{target.data_dir}/cache").rstrip("/")
    inside = [path for layer in image.layers if layer.instance for path in outer_paths(layer.instance)]
    if any(f"/{path}/".startswith(f"{directory}/") for path in [*inside, target.root[1:], target.data_dir[1:]]):
        message = f"{directory} is in the image: the webui then converts no cache.json, and hashes every model"
        yield message, "name a directory that is not there under 'webui.cache_dir'"
    user = (recipe.config.user or "").partition(":")[0]
    if stated is None and image.models and user.isdigit() and int(user) not in (0, recipe.owner.uid):
        message = f"user {user} cannot write below {target.data_dir}, and the webui fails without its cache"
        yield message, "set 'owner', or 'webui.cache_dir' to a new directory below a writable one"


def _variables(image: ComposedImage) -> Found:
    """Variables of the config that lead away from what the layers hold."""
    env = image.declaration.recipe.config.env
    wanted = environment(image)
    for name, value in wanted.items():
        stated = str(env.get(name, value))
        same = stated.lower() in _TRUE if name == "HF_HUB_OFFLINE" else posixpath.normpath(stated) == value
        if not same:
            yield (
                f"its config sets {name} to {stated!r}, its layers need {value!r}",
                f"leave {name} out of 'config.env'",
            )
    if "HF_HOME" in wanted:
        hub = f"{wanted['HF_HOME']}/hub"
        for name in _HUB_VARIABLES:
            if name in env and posixpath.normpath(str(env[name])) != hub:
                message = f"its config sets {name} to {str(env[name])!r}, its layers lie in {hub}"
                yield message, f"leave {name} out of 'config.env'"
