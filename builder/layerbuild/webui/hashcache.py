"""`cache.json`: what the webui would have computed at its first start, computed before.

Sections and values as the webui's `modules/cache.py` and `modules/hashes.py` write them. A plain
`cache.json` serves every release: 1.9 and later convert it once into their own database.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from layerbuild.model import MTIME, Content, Facts, Target
from layerbuild.webui.flavors import FLAVORS
from layerbuild.webui.modeltypes import MODEL_TYPES, CacheKeys, is_safetensors, short_names

_METADATA_SINCE = {"checkpoint": (1, 6), "lora": (1, 5)}
_HASHED_SINCE = {"lora": (1, 3), "embedding": (1, 5), "vae": (1, 6)}
_EXTENSIONS_SINCE = (1, 5)


@dataclass(frozen=True, kw_only=True)
class PlacedModel:
    """A model at its place in one image.

    Attributes:
        type: key of `MODEL_TYPES`.
        name: below the type's directory, with its sub-folder.
        path: absolute path in the image.
        content: of the model file.
        layer: name of the declaration, for messages.
    """

    type: str
    name: str
    path: str
    content: Content
    layer: str

    @cached_property
    def keys(self) -> CacheKeys:
        """Its keys in the hash cache."""
        return MODEL_TYPES[self.type].keys(self.name)


FactName = Literal["header", "addnet"]


def cache_path(target: Target) -> str:
    """Absolute path of the hash cache."""
    return target.cache_file or f"{target.data_dir}/{FLAVORS[target.flavor].cache}"


def needed_facts(model: PlacedModel, target: Target) -> frozenset[FactName]:
    """Which facts of the file's content its entries need, beyond its sha256."""
    needed: set[FactName] = set()
    if stores_metadata(model, target):
        needed.add("header")
    if model.keys.section == "hashes-addnet":
        # A Lora whose metadata names its hash has no entry.
        needed.add("header")
        if FLAVORS[target.flavor].addnet_skips_header:
            needed.add("addnet")
    return frozenset(needed)


def pending_facts(model: PlacedModel, target: Target, facts: Facts | None) -> frozenset[FactName]:
    """Those of `needed_facts` that nobody has learnt yet."""
    known = set()
    if facts is not None and facts.safetensors is not None:
        known.add("header")
        if not facts.safetensors or facts.addnet is not None:
            known.add("addnet")
    return needed_facts(model, target) - known


def stores_metadata(model: PlacedModel, target: Target) -> bool:
    """Whether the target's webui stores the header's metadata. Without a version, the newest one's rule."""
    since = _METADATA_SINCE.get(model.type)
    if since is None or not FLAVORS[target.flavor].metadata or not is_safetensors(model.name):
        return False
    return _knows(target, since)


def _knows(target: Target, since: tuple[int, ...]) -> bool:
    """Whether the target's webui has what AUTOMATIC1111's has from release `since` on. Its forks have it all."""
    return target.version is None or target.flavor != "a1111" or target.version >= since


def stores_extensions(target: Target) -> bool:
    """Whether the target's webui remembers what git says of extensions."""
    return FLAVORS[target.flavor].extensions and _knows(target, _EXTENSIONS_SINCE)


def hash_keys(model: PlacedModel, target: Target) -> list[str]:
    """Keys under which the target's webui looks the file's hash up; none where it never hashes it."""
    if model.keys.key is None or not _knows(target, _HASHED_SINCE.get(model.type, ())):
        return []
    if model.type == "checkpoint" and FLAVORS[target.flavor].short_checkpoint_keys:
        return [f"checkpoint/{name}" for name in short_names(model.path, target)]
    return [model.keys.key]


def claims(model: PlacedModel, target: Target) -> tuple[str, ...]:
    """What the webui knows the model by: its path, and the keys that it must not share; each once."""
    keys = hash_keys(model, target) if model.keys.unique else []
    return tuple(dict.fromkeys([model.path, *keys]))


def collisions(models: Iterable[PlacedModel], target: Target) -> list[tuple[PlacedModel, PlacedModel, str]]:
    """Pairs of models that the webui would take for one another, with the path or key they share."""
    found = []
    paths: dict[str, PlacedModel] = {}
    keys: dict[str, PlacedModel] = {}
    for model in models:
        other = paths.setdefault(model.path, model)
        if other is not model:
            found.append((other, model, model.path))
            continue
        if not model.keys.unique:
            continue
        for key in hash_keys(model, target):
            other = keys.setdefault(key, model)
            if other is not model:
                found.append((other, model, key))
                break
    return found


def cache_json(sections: Mapping[str, Mapping[str, Any]]) -> bytes:
    """The file's bytes: `indent=4`, no newline at the end, ASCII (a header may hold anything that
    JSON can escape, also what UTF-8 cannot)."""
    ordered = {name: {key: sections[name][key] for key in sorted(sections[name])} for name in sorted(sections)}
    return json.dumps(ordered, indent=4, ensure_ascii=True).encode()


def hash_entry(sha256: str) -> dict[str, Any]:
    """An entry of `hashes` and `hashes-addnet`. The mtime is exactly the tar's: an older one is
    stale for every release, another one for the development branch."""
    return {"mtime": float(MTIME), "sha256": sha256}


def metadata_entry(value: Mapping[str, Any]) -> dict[str, Any]:
    """An entry of `safetensors-metadata`."""
    return {"mtime": float(MTIME), "value": dict(value)}


def extension_entry(remote: str, branch: str, commit: str, date: int) -> dict[str, Any]:
    """An entry of `extensions-git` (`modules/extensions.py:Extension.cached_fields`).

    Args:
        date: the commit's time in Unix seconds.
    """
    value = {
        "remote": remote,
        "commit_date": date,
        "branch": branch,
        "commit_hash": commit,
        "version": commit[:8],
    }
    return {"mtime": float(MTIME), "value": value}
