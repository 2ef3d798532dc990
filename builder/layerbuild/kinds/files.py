"""Files, downloads, links and rendered text at absolute paths; and models placed as plain files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from layerbuild.errors import SourceError
from layerbuild.kinds.base import Json, Knowledge, base_directories, instance, owner, strip, with_parents
from layerbuild.model import Content, Entry, Instance, Pin, Target
from layerbuild.schema import FilesLayer, FileSpec

KIND = "files"
REVISION = 1


def files(layer: FilesLayer, pins: Mapping[str, Pin], target: Target, label: str) -> Instance:
    """The layer's one instance. `pins` are by path, for what has a source."""
    items = [_item(path, spec, pins) for path, spec in layer.files.items()]
    return _instance(items, target, label)


def placed_model(path: str, content: Content, target: Target, label: str) -> Instance:
    """A model that is a plain file at its path (`links: file`)."""
    item = {"path": strip(path), "mode": 0o644, **_content(content)}
    return _instance([item], target, label, weights=True)


def _instance(items: list[dict[str, Any]], target: Target, label: str, *, weights: bool = False) -> Instance:
    items.sort(key=lambda item: item["path"].encode())
    directories = base_directories([item["path"] for item in items], target)
    inputs = {"files": items, "weights": weights, "directories": directories, **owner(target)}
    return instance(KIND, REVISION, inputs, label)


def _item(path: str, spec: FileSpec | str, pins: Mapping[str, Pin]) -> dict[str, Any]:
    where = strip(path)
    if isinstance(spec, FileSpec):
        if spec.link is not None:
            return {"path": where, "link": spec.link}
        mode = int(spec.mode, 8) if spec.mode else 0o644
        if spec.content is not None:
            return {"path": where, "mode": mode, "text": spec.content}
    else:
        mode = 0o644
    pinned = pins[path].files
    if len(pinned) != 1:
        raise SourceError(
            f"{pins[path].source} is not one file, as {path} needs",
            hint="name a file: a directory or a snapshot cannot lie at one path",
        )
    return {"path": where, "mode": mode, **_content(pinned[0].content)}


def _content(content: Content) -> dict[str, Any]:
    return {"sha256": content.sha256} if content.sha256 else {"git_blob": content.git_blob}


def describe(inputs: Json, knowledge: Knowledge) -> list[Entry]:
    """One entry per item, and their parents."""
    ids = {"uid": inputs["uid"], "gid": inputs["gid"]}
    entries = []
    for item in inputs["files"]:
        path = item["path"]
        if "link" in item:
            entries.append(Entry(path=path, type="symlink", mode=0o777, target=item["link"], **ids))
        elif "text" in item:
            entries.append(Entry(path=path, type="file", mode=item["mode"], data=item["text"].encode(), **ids))
        else:
            content = Content(size=None, sha256=item.get("sha256"), git_blob=item.get("git_blob"))
            content = Content(size=knowledge.size(content), sha256=content.sha256, git_blob=content.git_blob)
            entries.append(Entry(path=path, type="file", mode=item["mode"], content=content, **ids))
    return with_parents(entries, inputs, **ids)
