"""Weights layers: files at paths that their content names. No target: the same in every image."""

from __future__ import annotations

import json
from collections.abc import Sequence

from layerbuild.kinds.base import WEIGHTS, Json, Knowledge, instance, with_parents
from layerbuild.model import LARGE, Content, Entry, Instance

KIND = "weights"
REVISION = 1


def instances(contents: Sequence[Content], label: str) -> list[Instance]:
    """Layers for the model files of one declaration: one each from `LARGE` bytes on, one for the rest.

    A file whose size nobody has told counts as large.
    """
    unique = {content.sha256: content for content in contents if content.sha256}
    large = [sha for sha, content in unique.items() if content.size is None or content.size >= LARGE]
    small = sorted(sha for sha in unique if sha not in large)
    return [group(shas, label) for shas in [[sha] for sha in large] + ([small] if small else [])]


def group(files: Sequence[str], label: str) -> Instance:
    """One layer of files by their sha256."""
    return instance(KIND, REVISION, {"files": sorted(files)}, label)


def files(layer: Instance) -> list[str]:
    """sha256 of every file in a weights layer."""
    found: list[str] = json.loads(layer.inputs)["files"]
    return found


def describe(inputs: Json, knowledge: Knowledge) -> list[Entry]:
    """One file per digest."""
    entries = []
    for sha256 in inputs["files"]:
        size = knowledge.size(Content(size=None, sha256=sha256))
        content = Content(size=size, sha256=sha256)
        entries.append(Entry(path=f"{WEIGHTS}/{sha256}", type="file", mode=0o644, content=content))
    return with_parents(entries, inputs)
