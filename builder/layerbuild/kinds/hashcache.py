"""The hash-cache layer of an image: `cache.json` in the webui's data directory."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, cast

from layerbuild.kinds.base import (
    Canonical,
    Json,
    Knowledge,
    base_directories,
    canonical,
    instance,
    owner,
    strip,
    with_parents,
)
from layerbuild.model import Entry, Facts, Instance, Pin, Target
from layerbuild.webui.flavors import FLAVORS
from layerbuild.webui.hashcache import (
    PlacedModel,
    cache_json,
    cache_path,
    extension_entry,
    hash_entry,
    hash_keys,
    metadata_entry,
    pending_facts,
    stores_extensions,
    stores_metadata,
)
from layerbuild.webui.safetensors import invalid, metadata_of, stored_metadata

KIND = "hash-cache"
REVISION = 1


@dataclass(frozen=True, kw_only=True)
class Remembered:
    """A model, and what the hash cache of every image around which the target is the same says of it."""

    model: PlacedModel
    entries: tuple[Canonical, ...]


def remembered(model: PlacedModel, facts: Facts | None, target: Target) -> Remembered:
    """A model with its entries. Every fact that `pending_facts` names must be known.

    Raises:
        SourceError: a file called .safetensors is none.
    """
    assert not pending_facts(model, target, facts), model
    entries = _entries(model, model.content.sha256 or "", facts, target)
    return Remembered(model=model, entries=tuple(map(canonical, entries)))


def hash_cache(
    models: Iterable[Remembered], target: Target, label: str, extensions: Mapping[str, Pin] = MappingProxyType({})
) -> Instance | None:
    """The image's hash cache, None where nothing in the image is remembered by one."""
    models = sorted(models, key=lambda m: (m.model.type, m.model.name))
    # One key for every VAE: with several, each would make the others stale.
    several = sum(1 for m in models if m.model.keys.key == "vae") > 1
    entries = [entry for m in models if not (several and m.model.keys.key == "vae") for entry in m.entries]
    if stores_extensions(target):
        entries += [canonical(_extension(name, pin)) for name, pin in sorted(extensions.items())]
    if not entries:
        return None
    path = strip(cache_path(target))
    version = list(target.version) if target.version else None
    inputs = {"path": path, "version": version, "entries": entries, "directories": base_directories([path], target)}
    return instance(KIND, REVISION, {**inputs, **owner(target)}, label)


def _entries(model: PlacedModel, sha256: str, facts: Facts | None, target: Target) -> list[dict[str, Any]]:
    keys = model.keys
    entries: list[dict[str, Any]] = []
    header: dict[str, Any] = {}
    flavor = FLAVORS[target.flavor]
    if stores_metadata(model, target) or keys.section == "hashes-addnet":
        assert facts is not None
        if facts.safetensors is False:
            raise invalid(f"{model.layer} ({model.name})")
        header = {"metadata": facts.metadata} if facts.metadata is not None else {"header": facts.header_sha256}
    if keys.section == "hashes" and keys.key is not None:
        entries += [{"section": "hashes", "key": key, "sha256": sha256} for key in hash_keys(model, target)]
    elif keys.section == "hashes-addnet":
        assert facts is not None
        value = facts.addnet if flavor.addnet_skips_header else sha256
        # Whether the metadata itself names a hash, which spares the entry, is decided with the header.
        entries.append({"section": "hashes-addnet", "key": keys.key, "sha256": value, **header})
    if stores_metadata(model, target):
        entries.append({"section": "safetensors-metadata", "key": keys.metadata, "type": model.type, **header})
    return entries


def _extension(name: str, pin: Pin) -> dict[str, Any]:
    repository, _, commit = pin.source.removeprefix("git+").rpartition("@")
    value = extension_entry(repository, pin.ref or "main", commit, pin.date or 0)
    return {"section": "extensions-git", "key": name, "entry": value}


def describe(inputs: Json, knowledge: Knowledge) -> list[Entry]:
    """The file and its parents."""
    ids = {"uid": inputs["uid"], "gid": inputs["gid"]}
    version = tuple(inputs["version"]) if inputs["version"] else None
    sections: dict[str, dict[str, Any]] = {"hashes": {}}
    for item in inputs["entries"]:
        section = sections.setdefault(item["section"], {})
        metadata = _metadata(item, knowledge)
        if item["section"] == "safetensors-metadata":
            model_type = cast(Literal["checkpoint", "lora"], item["type"])
            section[item["key"]] = metadata_entry(stored_metadata(metadata, model_type, version))
        elif item["section"] == "extensions-git":
            section[item["key"]] = item["entry"]
        elif item["section"] == "hashes-addnet" and metadata.get("sshs_model_hash"):
            continue  # The webui takes the hash from the metadata and never asks the cache.
        else:
            section[item["key"]] = hash_entry(item["sha256"])
    file = Entry(path=inputs["path"], type="file", mode=0o644, data=cache_json(sections), **ids)
    return with_parents([file], inputs, **ids)


def _metadata(item: Json, knowledge: Knowledge) -> dict[str, Any]:
    if item.get("metadata") is not None:
        value: dict[str, Any] = json.loads(item["metadata"])
        return value
    if item.get("header"):
        return metadata_of(knowledge.document(item["header"])) or {}
    return {}
