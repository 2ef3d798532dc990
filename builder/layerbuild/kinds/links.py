"""The links layer of an image: symlinks where the webui looks, to weights where their content lies."""

from __future__ import annotations

from collections.abc import Mapping

from layerbuild.kinds.base import (
    Canonical,
    Json,
    base_directories,
    canonical,
    instance,
    owner,
    strip,
    weights_path,
    with_parents,
)
from layerbuild.model import Entry, Instance, Target

KIND = "links"
REVISION = 1


def link(path: str, sha256: str) -> Canonical:
    """A link from an absolute path to weights by sha256."""
    return canonical({"path": strip(path), "sha256": sha256})


def links(places: Mapping[str, Canonical], target: Target, label: str) -> Instance:
    """Links by their absolute paths."""
    directories = base_directories(map(strip, places), target)
    items = [places[path] for path in sorted(places)]
    return instance(KIND, REVISION, {"links": items, "directories": directories, **owner(target)}, label)


def describe(inputs: Json) -> list[Entry]:
    """One symlink per item, and their parents."""
    ids = {"uid": inputs["uid"], "gid": inputs["gid"]}
    entries = [
        Entry(path=item["path"], type="symlink", mode=0o777, target=weights_path(item["sha256"]), **ids)
        for item in inputs["links"]
    ]
    return with_parents(entries, inputs, **ids)
