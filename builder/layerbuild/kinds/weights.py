"""Weights layers: files at paths that their content names. No target: the same in every image."""

from __future__ import annotations

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
    groups = [[sha] for sha in large] + ([small] if small else [])
    return [instance(KIND, REVISION, {"files": group}, label) for group in groups]


def describe(inputs: Json, knowledge: Knowledge) -> list[Entry]:
    """One file per digest."""
    files = []
    for sha256 in inputs["files"]:
        size = knowledge.size(Content(size=None, sha256=sha256))
        content = Content(size=size, sha256=sha256)
        files.append(Entry(path=f"{WEIGHTS}/{sha256}", type="file", mode=0o644, content=content))
    return with_parents(files, inputs)
