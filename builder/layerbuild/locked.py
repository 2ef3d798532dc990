"""A lock is used only where it says what the declarations say. Pure.

Everything that can be computed again is: declaration digests, the layers of every image and their
keys. A lock that was edited by hand, or that is older than a declaration, does not get past here.
"""

from __future__ import annotations

from collections.abc import Sequence

from layerbuild.compose import ComposedImage, compose, parents_in_base
from layerbuild.errors import DriftError, LockError
from layerbuild.images import ImageDeclaration, IndexDeclaration, LayerUse
from layerbuild.kinds.requests import complete, contradiction, declaration_digest, requests, with_mirrors
from layerbuild.lockmodel import PENDING, Lock

RELOCK = "run 'layerbuild lock', and review what it changes"


def checked(
    images: Sequence[ImageDeclaration], selected: Sequence[ImageDeclaration], lock: Lock
) -> tuple[ComposedImage, ...]:
    """The `selected` images, composed, if the lock still stands for them.

    Args:
        images: the whole project: the order of an image's layers depends on its siblings.

    Raises:
        DriftError: the lock does not say what the declarations say.
        LockError: it never could: a source was not reached when it was made.
    """
    wanted = {image.name for image in selected}
    faults = _faults(images, lock)
    refuse({name: found for name, found in faults.items() if name in wanted and found})
    composed = compose([image for image in images if not faults[image.name]], lock)
    chosen = tuple(image for image in composed if image.name in wanted)
    refuse({image.name: found for image in chosen if (found := differences(image, lock))})
    known = {layer.instance.key for image in composed for layer in image.layers if layer.instance}
    strangers = [key for key in lock.receipts if key not in known]
    if strangers and len(composed) == len(images):
        raise DriftError(
            f"the lock holds a receipt for {strangers[0][:16]}, which is no layer of this project",
            cause="keys follow from the declarations and pins; this one does not",
            hint=RELOCK,
        )
    return chosen


def refuse(faults: dict[str, list[str]]) -> None:
    """Raise if there are any faults, all of them in one error."""
    if not faults:
        return
    lines = dict.fromkeys(line for found in faults.values() for line in found)
    text = "\n".join(f"  {line}" for line in list(lines)[:20])
    more = f"\n  ... and {len(lines) - 20} more" if len(lines) > 20 else ""
    if all(line.startswith("unlocked: ") for line in lines):
        raise LockError(
            f"some sources were never locked:\n{text}{more}", hint="run 'layerbuild lock' where they can be reached"
        )
    raise DriftError(f"the lock does not say what the declarations say:\n{text}{more}", hint=RELOCK)


def _faults(images: Sequence[ImageDeclaration], lock: Lock) -> dict[str, list[str]]:
    """By image, what keeps it from being composed at all."""
    # Most declarations are used by many images: each is compared with its pins once.
    uses = {id(use): use for image in images for use in image.uses}
    of_uses = {name: fault for name, use in uses.items() if (fault := _fault_of_use(use, lock))}
    return {
        image.name: [of_uses[id(use)] for use in image.uses if id(use) in of_uses] + _faults_of_image(image, lock)
        for image in images
    }


def _fault_of_use(use: LayerUse, lock: Lock) -> str | None:
    locked = lock.layers.get(use.pin_key)
    if use.pin_key in lock.unlocked:
        return f"unlocked: {use.pin_key}: {lock.unlocked[use.pin_key]}"
    if locked is None:
        return f"{use.pin_key} is not in the lock"
    asked = requests(use.layer)
    if locked.declaration != declaration_digest(asked):
        return f"{use.pin_key} has changed since it was locked, or its digest was edited"
    if not complete(asked, locked.pins):
        return f"{use.pin_key} has other pins in the lock than its declaration asks for"
    for role, request in asked.items():
        if role in locked.pins and (fault := contradiction(request, locked.pins[role])):
            return f"{use.pin_key} has {fault} in the lock than its declaration says"
    if with_mirrors(use.layer, locked.pins) != locked.pins:
        return f"{use.pin_key} has other mirrors or headers than when it was locked"
    return None


def _faults_of_image(image: ImageDeclaration, lock: Lock) -> list[str]:
    found = []
    base = image.recipe.base
    entry = lock.images.get(image.name)
    if f"base:{base}" in lock.unlocked:
        found.append(f"unlocked: base {base}: {lock.unlocked[f'base:{base}']}")
    elif entry is None:
        if not _waits(image, lock):
            found.append(f"image {image.name} is not in the lock")
    elif entry.platform != image.recipe.platform:
        found.append(f"image {image.name} was locked for {entry.platform}, the recipe says {image.recipe.platform}")
    elif (entry.base.reference if entry.base else "scratch") != base:
        found.append(f"image {image.name} was locked on another base than {base}")
    elif entry.settings != image.settings:
        found.append(f"image {image.name} has another config, compression or annotations than when it was locked")
    elif image.index is not None:
        found += _faults_of_index(image.index, lock)
    return found


def _faults_of_index(index: IndexDeclaration, lock: Lock) -> list[str]:
    locked = lock.indexes.get(index.name)
    if locked is None:
        # Where a platform could not be locked, neither could the index.
        return [f"the index {index.name} is not in the lock"] if set(index.images) <= set(lock.images) else []
    if locked.platforms != index.platforms:
        was, now = ", ".join(locked.platforms), ", ".join(index.platforms)
        return [f"the index {index.name} was locked for {was}, the recipe says {now}"]
    return []


def differences(image: ComposedImage, lock: Lock) -> list[str]:
    """Layers that the lock lists and the declarations do not give, or the other way round."""
    listed = lock.images[image.name].layers
    made = tuple(layer.line for layer in image.layers)
    if lock.images[image.name].buckets != image.buckets:
        return [f"{image.name}: its model files share layers in another way than the lock says"]
    if listed == made:
        return []
    # Facts may have been learnt since, or be missing here: a pending line matches any key.
    loose = {line.rpartition("@")[0] for line in (*listed, *made) if line.endswith(f"@{PENDING}")}
    found = [
        f"{image.name}: {line} is not in the lock"
        for line in made
        if line not in listed and line.rpartition("@")[0] not in loose
    ]
    found += [
        f"{image.name}: the lock lists {line}, which the declarations do not give"
        for line in listed
        if line not in made and line.rpartition("@")[0] not in loose
    ]
    if not found and not loose:
        found = [f"{image.name}: the lock lists its layers in another order"]
    return found


def drift(images: Sequence[ImageDeclaration], lock: Lock) -> list[str]:
    """Everything by which `lock` differs from what locking these declarations would leave.

    What is named under `unlocked` is no drift, and neither are missing facts and receipts.
    """
    found: list[str] = []
    usable = []
    faults = _faults(images, lock)
    for image in images:
        waits = _waits(image, lock)
        if not waits or image.name in lock.images:
            found += [line for line in faults[image.name] if not line.startswith("unlocked: ")]
        if not faults[image.name] and not waits:
            usable.append(image)
    composed = compose(usable, lock)
    for made in composed:
        found += differences(made, lock)
        looked_up = made.base.directories if made.base else {}
        missing = [path for path in parents_in_base(made) if path not in looked_up]
        found += [f"{made.name}: {path} of the base was not looked up" for path in missing]
    keys = {layer.instance.key for image in composed for layer in image.layers if layer.instance}
    uses = {use.pin_key for image in images for use in image.uses}
    bases = {f"base:{image.recipe.base}" for image in images}
    found += [f"{name} is in the lock, and no recipe uses it" for name in lock.layers if name not in uses]
    found += [
        f"image {name} is in the lock, and no recipe makes it"
        for name in sorted(set(lock.images) - {i.name for i in images})
    ]
    indexes = {image.index.name for image in images if image.index is not None}
    found += [
        f"the index {name} is in the lock, and no recipe makes it" for name in lock.indexes if name not in indexes
    ]
    found += [f"{name} is under 'unlocked', and nothing uses it" for name in lock.unlocked if name not in uses | bases]
    found += [f"the receipt {key[:16]} belongs to no layer" for key in lock.receipts if key not in keys]
    return list(dict.fromkeys(found))


def _waits(image: ImageDeclaration, lock: Lock) -> bool:
    """Whether the image needs something that could not be locked."""
    return f"base:{image.recipe.base}" in lock.unlocked or any(use.pin_key in lock.unlocked for use in image.uses)
