"""A snapshot in the Hugging Face cache that every client from 0.13 on reads offline.

Layout as huggingface_hub's "Understand caching" documents it, and nothing else: no lock files, no
`trees/`, no `CACHEDIR.TAG`. Readers never look at a blob's name, so a large file's snapshot entry
links straight to its weights layer.
"""

from __future__ import annotations

from typing import Any

from layerbuild.kinds.base import Json, base_directories, instance, owner, strip, weights_path, with_parents
from layerbuild.model import LARGE, Content, Entry, Instance, Pin, Target
from layerbuild.schema import HuggingFaceLayer

KIND = "huggingface"
REVISION = 1


def repository_of(layer: HuggingFaceLayer) -> str:
    """`models--ORG--NAME`, or the same with `datasets` or `spaces`."""
    name = layer.repository or layer.source.removeprefix("hf://").partition("@")[0]
    plural, _, rest = name.partition("/")
    kind, name = (plural, rest) if rest and plural in ("datasets", "spaces") else ("models", name)
    # What follows ORG/NAME is a file's path, where no revision stands between.
    return "--".join([kind, *name.split("/")[:2]])


def is_weights(content: Content) -> bool:
    """Whether a file of a snapshot has a weights layer: it is large and its sha256 is pinned."""
    return content.sha256 is not None and (content.size is None or content.size >= LARGE)


def snapshot(layer: HuggingFaceLayer, pin: Pin, target: Target, label: str) -> Instance:
    """The snapshot's own layer."""
    home = strip(target.hf_home)
    # A branch that the source names must be found by that name, whatever `refs` says.
    refs = sorted({*layer.refs, *([pin.ref] if pin.ref else [])})
    inputs = {
        "home": home,
        "folder": repository_of(layer),
        "revision": layer.revision or pin.revision,
        "refs": refs,
        "files": [_file_inputs(f.path, f.content) for f in pin.files],
        "absent": sorted(layer.absent),
        "directories": base_directories([f"{home}/hub/x"], target),
        **owner(target),
    }
    return instance(KIND, REVISION, inputs, label)


def _file_inputs(path: str, content: Content) -> dict[str, Any]:
    return {
        "path": path,
        "size": content.size,
        **({"sha256": content.sha256} if content.sha256 else {"git_blob": content.git_blob}),
        "weights": is_weights(content),
    }


def describe(inputs: Json) -> list[Entry]:
    """version.txt, refs, blobs, snapshot links and the markers of what is known to be absent."""
    ids = {"uid": inputs["uid"], "gid": inputs["gid"]}
    hub = f"{inputs['home']}/hub"
    root = f"{hub}/{inputs['folder']}"
    revision = inputs["revision"]

    def made(path: str, data: bytes) -> Entry:
        return Entry(path=path, type="file", mode=0o644, data=data, **ids)

    # No newline in either: a newline in a ref breaks every look-up by name.
    entries = [made(f"{hub}/version.txt", b"1")]
    entries += [made(f"{root}/refs/{ref}", revision.encode()) for ref in inputs["refs"]]
    entries += [made(f"{root}/.no_exist/{revision}/{name}", b"") for name in inputs["absent"]]
    blobs: dict[str, Entry] = {}
    for file in inputs["files"]:
        link = f"{root}/snapshots/{revision}/{file['path']}"
        if file["weights"]:
            goal = weights_path(file["sha256"])
        else:
            content = Content(size=file["size"], sha256=file.get("sha256"), git_blob=file.get("git_blob"))
            name = content.sha256 or content.git_blob
            blob = f"{root}/blobs/{name}"
            blobs[blob] = Entry(path=blob, type="file", mode=0o644, content=content, **ids)
            goal = "../" * (2 + file["path"].count("/")) + f"blobs/{name}"
        entries.append(Entry(path=link, type="symlink", mode=0o777, target=goal, **ids))
    return with_parents([*entries, *blobs.values()], inputs, **ids)
