"""Under which name a layer's pins stand in the lock.

The layer's name, and the values of the variables that its sources depend on: images that give
those the same values share the pins, and a change of any other variable moves none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from layerbuild.model import canonical_json
from layerbuild.render import references

_FETCHED = ("source", "sha256", "size", "mirrors", "headers")
_GIT = ("repositories", "extensions", "mirrors", "submodules", "lfs_pointers")
_PYTHON = ("requirements", "packages", "constraints", "indexes", "index_strategy", "exclude_newer", "python")
_PINNED = frozenset({*_FETCHED, "sidecars", "files", "absent", *_GIT, *_PYTHON, "platform", "build"})
"""Keys of a declaration that its sources are asked with; paths in an image are roles of pins."""


def pin_key(name: str, raw: Mapping[str, Any], context: Mapping[str, Any]) -> str:
    """The name, or `name[variable=value,...]`.

    Args:
        raw: the declaration before rendering.
        context: the variables of the image.
    """
    pinned = {key: value for key, value in raw.items() if key in _PINNED}
    if isinstance(pinned.get("files"), dict):
        pinned["files"] = {
            path: {k: v for k, v in spec.items() if k in _FETCHED} if isinstance(spec, dict) else spec
            for path, spec in pinned["files"].items()
            if not isinstance(spec, dict) or "source" in spec
        }
    used = {}
    for reference in references(pinned):
        variable, _, attribute = reference.partition(".")
        value = context.get(variable)
        if isinstance(value, Mapping) and attribute in value:
            used[reference] = value[attribute]
        elif variable in context:
            used[variable] = value
    return f"{name}[{','.join(f'{n}={_shown(used[n])}' for n in sorted(used))}]" if used else name


def _shown(value: Any) -> str:
    """Plain text as it is; in JSON what could be taken for something else."""
    plain = isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_./:+@-]+", value)
    if plain and not re.fullmatch(r"-?[0-9]+(\.[0-9]*)?|true|false", value):
        return str(value)
    return canonical_json(value)
