"""The tree of a git commit at a path: the webui, or one of its checkouts. Blobs as git holds them, and the bytecode
of its Python sources where the target asks for it."""

from __future__ import annotations

import json

from layerbuild import pyc
from layerbuild.kinds import bytecode
from layerbuild.kinds.base import Json, Knowledge, base_directories, instance, owner, strip, with_parents
from layerbuild.model import Content, Entry, Instance, Pin, Target

KIND = "git-tree"
REVISION = 1

_MODES = {"100644": 0o644, "100755": 0o755}


def tree(pin: Pin, path: str, target: Target, label: str, *, extension: bool = False) -> Instance:
    """The tree of `pin` at the absolute `path`.

    Args:
        extension: whether it is an extension of the webui, which is looked up in the hash cache only
            if it has a `.git`: an empty file serves.
    """
    inputs = {
        "path": strip(path),
        "tree": pin.tree,
        "listing": pin.listing,
        "directories": base_directories([strip(path) + "/x"], target),
        **({"extension": True} if extension else {}),
        **({"bytecode": pyc.setting(target.bytecode)} if target.bytecode else {}),
        **owner(target),
    }
    return instance(KIND, REVISION, inputs, label)


def describe(inputs: Json, knowledge: Knowledge) -> list[Entry]:
    """Every path of the listing; with bytecode, what somebody checked in of it is left out."""
    ids = {"uid": inputs["uid"], "gid": inputs["gid"]}
    root = inputs["path"]
    entries = []
    if inputs.get("extension"):
        entries.append(Entry(path=f"{root}/.git", type="file", mode=0o644, data=b"", **ids))
    for item in json.loads(knowledge.document(inputs["listing"])):
        path = f"{root}/{item['path']}"
        if item["mode"] == "120000":
            entries.append(Entry(path=path, type="symlink", mode=0o777, target=item["target"], **ids))
        else:
            content = Content(size=item["size"], git_blob=item["blob"])
            entries.append(Entry(path=path, type="file", mode=_MODES[item["mode"]], content=content, **ids))
    if "bytecode" in inputs:
        entries = bytecode.compiled(entries, inputs["bytecode"], knowledge, listing=inputs["listing"])
    return with_parents(entries, inputs, **ids)
