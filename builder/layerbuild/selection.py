"""Which images a command means: by name, by label, by what has changed in the lock. Pure."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

from layerbuild.errors import UsageError
from layerbuild.images import ImageDeclaration
from layerbuild.lockmodel import PENDING, Lock, key_of_line
from layerbuild.project import did_you_mean

_SHOWN = 20


def select(
    images: Sequence[ImageDeclaration], patterns: Sequence[str], labels: Sequence[str] = ()
) -> tuple[ImageDeclaration, ...]:
    """The images whose names match any of `patterns` and that have all of `labels`.

    Args:
        patterns: shell globs; every image where there are none.
        labels: `KEY`, or `KEY=GLOB` for its value, of the recipe's own `config.labels`.

    Raises:
        UsageError: a pattern or a label matches nothing, or all of them together match nothing.
    """
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(image.name, pattern) for image in images):
            names = [image.name for image in images]
            hint = f"images: {_listed(names)}{did_you_mean(pattern, names)}"
            raise UsageError(f"no image is called {pattern!r}", hint=hint)
    for label in labels:
        if not any(_has(image, label) for image in images):
            known = dict.fromkeys(f"{k}={v}" for image in images for k, v in image.recipe.config.labels.items())
            raise UsageError(f"no image has a label {label!r}", hint=f"labels of recipes: {_listed(list(known))}")
    chosen = tuple(
        image
        for image in images
        if (not patterns or any(fnmatch.fnmatchcase(image.name, pattern) for pattern in patterns))
        and all(_has(image, label) for label in labels)
    )
    if not chosen and labels:
        raise UsageError(
            f"no image has all of that together: {', '.join([*patterns, *labels])}",
            cause="each of them matches some image, and no image matches all",
            hint="leave one of them out",
        )
    return chosen


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
    return tuple(image for image in images if _differs(image, now, before))


def _differs(image: ImageDeclaration, now: Lock, before: Lock) -> bool:
    new, old = now.images.get(image.name), before.images.get(image.name)
    if new is None or old is None:
        return True
    if (new.base, new.platform, new.settings, new.layers) != (old.base, old.platform, old.settings, old.layers):
        return True
    if any(key_of_line(line) == PENDING for line in new.layers):
        return True
    # The same layers in other bytes: compressed anew, or put together by another layerbuild.
    if None not in (new.manifest, old.manifest) and new.manifest != old.manifest:
        return True
    return any(now.layers.get(use.pin_key) != before.layers.get(use.pin_key) for use in image.uses)
