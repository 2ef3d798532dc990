"""Which images a command means: by name, by label, by what has changed in the lock. Pure."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

from layerbuild.errors import UsageError
from layerbuild.images import ImageDeclaration
from layerbuild.lockmodel import PENDING, Lock, key_of_line
from layerbuild.similar import did_you_mean

_SHOWN = 20


def select(
    images: Sequence[ImageDeclaration], patterns: Sequence[str], labels: Sequence[str] = ()
) -> tuple[ImageDeclaration, ...]:
    """The images whose names match any of `patterns` and that have all of `labels`.

    Args:
        patterns: shell globs; every image where there are none. `NAME` means every platform of it,
            `NAME@os/architecture` one.
        labels: `KEY`, or `KEY=GLOB` for its value, of the recipe's own `config.labels`.

    Raises:
        UsageError: a pattern or a label matches nothing, or all of them together match nothing.
    """
    for pattern in patterns:
        if not any(_called(image, pattern) for image in images):
            names = [*dict.fromkeys(image.title for image in images)]
            parts = (image.name for image in images if image.index is not None)
            hint = f"images: {_listed(names)}{did_you_mean(pattern, [*names, *parts])}"
            raise UsageError(f"no image is called {pattern!r}", hint=hint)
    for label in labels:
        if not any(_has(image, label) for image in images):
            known = dict.fromkeys(f"{k}={v}" for image in images for k, v in image.recipe.config.labels.items())
            raise UsageError(f"no image has a label {label!r}", hint=f"labels of recipes: {_listed(list(known))}")
    chosen = tuple(
        image
        for image in images
        if (not patterns or any(_called(image, pattern) for pattern in patterns))
        and all(_has(image, label) for label in labels)
    )
    if not chosen and labels:
        raise UsageError(
            f"no image has all of that together: {', '.join([*patterns, *labels])}",
            cause="each of them matches some image, and no image matches all",
            hint="leave one of them out",
        )
    return chosen


def _called(image: ImageDeclaration, pattern: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for name in (image.title, image.name))


def lies_elsewhere(reference: str) -> bool:
    """Whether `reference` names a layout or a registry's image: images of a project have no host."""
    first, slash, _ = reference.partition("/")
    named = "@" in first  # NAME@os/architecture
    host = bool(slash) and not named and ("." in first or ":" in first or first == "localhost")
    return host or reference.startswith("oci:")


def refuse_parts(images: Sequence[ImageDeclaration]) -> None:
    """For what is about whole images only.

    Raises:
        UsageError: of an image for several platforms, `images` holds some and not all.
    """
    chosen = {image.name for image in images}
    for index in {image.index.name: image.index for image in images if image.index is not None}.values():
        missing = [platform for name, platform in zip(index.images, index.platforms, strict=True) if name not in chosen]
        if missing:
            raise UsageError(
                f"of {index.name} every platform is pushed, or none: {', '.join(missing)} is not chosen",
                cause="its tags point at an index, which must not lose a platform",
                hint=f"push {index.name}; 'plan', 'build' and 'audit' take one platform. "
                "For a tag of its own, make a recipe with one platform",
            )


def _has(image: ImageDeclaration, label: str) -> bool:
    key, equals, pattern = label.partition("=")
    value = image.recipe.config.labels.get(key)
    return value is not None and (not equals or fnmatch.fnmatchcase(value, pattern))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (" …" if len(names) > _SHOWN else "") if names else "none"


def changed(images: Sequence[ImageDeclaration], now: Lock, before: Lock | None) -> tuple[ImageDeclaration, ...]:
    """Those of `images` that the two locks do not say the same of.

    What an image consists of is all in the lock: its base, platform, settings and layers, with the
    pins of these. An image counts as changed where either lock lacks it, and where its hash cache
    waits for facts: nobody can tell yet what it will be.

    Args:
        before: None where there was no lock.
    """
    if before is None:
        return tuple(images)
    found = [image for image in images if _differs(image, now, before)]
    names = {image.name for image in found}
    # An index is another as soon as one of its images is.
    whole = {image.index.name for image in found if image.index is not None}
    return tuple(image for image in images if image.name in names or (image.index and image.index.name in whole))


def _differs(image: ImageDeclaration, now: Lock, before: Lock) -> bool:
    new, old = now.images.get(image.name), before.images.get(image.name)
    if new is None or old is None:
        return True
    if image.index is not None and _platforms(image.index.name, now) != _platforms(image.index.name, before):
        return True
    if (new.base, new.platform, new.settings, new.layers) != (old.base, old.platform, old.settings, old.layers):
        return True
    if any(key_of_line(line) == PENDING for line in new.layers):
        return True
    # The same layers in other bytes: compressed anew, or put together by another layerbuild.
    if None not in (new.manifest, old.manifest) and new.manifest != old.manifest:
        return True
    return any(now.layers.get(use.pin_key) != before.layers.get(use.pin_key) for use in image.uses)


def _platforms(index: str, lock: Lock) -> tuple[str, ...]:
    locked = lock.indexes.get(index)
    return locked.platforms if locked is not None else ()
