"""The hash-cache layer of an image: `cache.json` in the webui's data directory."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

from layerbuild.kinds.base import Json, Knowledge, base_directories, instance, owner, strip, with_parents
from layerbuild.model import Entry, Facts, Instance, Target
from layerbuild.webui.hashcache import (
    FILENAME,
    PlacedModel,
    cache_json,
    hash_entry,
    metadata_entry,
    pending_facts,
    stores_metadata,
)
from layerbuild.webui.safetensors import metadata_of, require_valid, stored_metadata

KIND = "hash-cache"
REVISION = 1


def hash_cache(
    models: Sequence[PlacedModel], facts: Mapping[str, Facts], target: Target, label: str
) -> Instance | None:
    """The image's hash cache, None where no model of the image is ever hashed.

    Every fact that `pending_facts` names must be known.

    Raises:
        SourceError: a file called .safetensors is none.
    """
    entries: list[dict[str, Any]] = []
    vaes = sum(1 for model in models if model.keys.key == "vae")
    for model in sorted(models, key=lambda m: (m.type, m.name)):
        sha256 = model.content.sha256
        assert sha256 is not None and not pending_facts(model, target.version, facts.get(sha256)), model
        # One key for every VAE: with several, each would make the others stale.
        if model.keys.key == "vae" and vaes > 1:
            continue
        entries += _entries(model, sha256, facts.get(sha256), target)
    if not entries:
        return None
    path = strip(f"{target.data_dir}/{FILENAME}")
    version = list(target.version) if target.version else None
    inputs = {"path": path, "version": version, "entries": entries, "directories": base_directories([path], target)}
    return instance(KIND, REVISION, {**inputs, **owner(target)}, label)


def _entries(model: PlacedModel, sha256: str, facts: Facts | None, target: Target) -> list[dict[str, Any]]:
    keys = model.keys
    entries: list[dict[str, Any]] = []
    header: dict[str, Any] = {}
    if stores_metadata(model, target.version) or keys.section == "hashes-addnet":
        assert facts is not None
        require_valid(f"{model.layer} ({model.name})", facts.safetensors)
        header = {"metadata": facts.metadata} if facts.metadata is not None else {"header": facts.header_sha256}
    if keys.section == "hashes":
        entries.append({"section": "hashes", "key": keys.key, "sha256": sha256})
    elif keys.section == "hashes-addnet":
        assert facts is not None
        # Whether the metadata itself names a hash, which spares the entry, is decided with the header.
        entries.append({"section": "hashes-addnet", "key": keys.key, "sha256": facts.addnet, **header})
    if stores_metadata(model, target.version):
        entries.append({"section": "safetensors-metadata", "key": keys.metadata, "type": model.type, **header})
    return entries


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
