"""The hash cache: which models the webui would hash, or take for something else.

By the rules of the webui's `modules/cache.py` and `modules/hashes.py`: an entry is stale when the file
is newer than it says.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from layerbuild.audit.costs import hashing
from layerbuild.audit.findings import Cost, Finding, When
from layerbuild.audit.limits import MAX_CACHE, hostile
from layerbuild.audit.view import ImageView
from layerbuild.audit.webui import Model, Webui
from layerbuild.webui.hashcache import hash_keys, stores_metadata
from layerbuild.webui.safetensors import MAX_HEADER, PREFIX, header_length, metadata_of

_LOCK = "build the image with layerbuild, which computes the hash cache, or write this entry"
_SMALL = 0.05
"""Seconds to read one header (an assumption)."""

_LARGEST_SETTINGS = 256 * 1024

Sections = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Cache:
    """A `cache.json`. `sections` is None where whatever is there is not read by the webui."""

    path: str
    sections: Sections | None


def check(view: ImageView) -> Iterator[Finding]:
    """The file itself, then every model against it."""
    if view.webui is None:
        return
    cache, findings = read_cache(view, view.webui)
    yield from findings
    if cache.sections is None:
        return
    loaded = _loaded(view)
    several = len(view.of_type("vae")) > 1
    for model in view.models:
        keys = hash_keys(model.placed, view.webui.target)
        if keys and not (model.placed.type == "vae" and several):
            yield from _entry(view, model, keys, cache, "start" if model is loaded else "use")
            yield from _metadata(view.webui, model, cache)


def _loaded(view: ImageView) -> Model | None:
    """The checkpoint that a start loads: by --ckpt, else by the webui's settings, else the first by name."""
    checkpoints = view.of_type("checkpoint")
    chosen = _setting(view)
    named = [m for m in checkpoints if view.webui and m.placed.path == view.webui.checkpoint]
    named = named or [m for m in checkpoints if chosen and chosen == m.placed.name]
    return next(iter(named or checkpoints), None)


def _setting(view: ImageView) -> str | None:
    """`sd_model_checkpoint` of config.json: a name, and perhaps a hash behind it."""
    node = view.files.file(f"{view.webui.data_dir}/config.json") if view.webui else None
    data = view.files.read(node) if node is not None and node.size <= _LARGEST_SETTINGS else None
    try:
        value = json.loads(data or b"{}")
    except (ValueError, RecursionError):
        return None
    chosen = value.get("sd_model_checkpoint") if isinstance(value, dict) else None
    return chosen.partition(" [")[0] if isinstance(chosen, str) else None


def read_cache(view: ImageView, webui: Webui) -> tuple[Cache, list[Finding]]:
    """The hash cache as the webui would read it, and what is wrong with it as a whole."""
    files, path = view.files, webui.cache_file
    node = files.file(path)
    hidden = webui.cache_dir if webui.cache_dir and files.is_directory(webui.cache_dir) else None
    if node is None:
        if hidden and files.file(f"{hidden}/hashes/cache.db"):
            return Cache(path=path, sections=None), [_database(hidden)]
        return Cache(path=path, sections={}), []
    if hidden:
        return Cache(path=path, sections={}), [_hidden(path, hidden)]
    if node.size > MAX_CACHE:
        raise hostile(f"{view.reference}: {path}", f"it has {node.size} bytes")
    data = files.read(node)
    if data is None:
        return Cache(path=path, sections=None), [_unread(path)]
    sections = _sections(data)
    if sections is None:
        return Cache(path=path, sections={}), [_corrupt(path)]
    return Cache(path=path, sections=sections), []


def _sections(data: bytes) -> Sections | None:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or not all(isinstance(section, dict) for section in value.values()):
        return None
    return value


def _hidden(path: str, directory: str) -> Finding:
    return Finding(
        id="cache-hidden",
        severity="error",
        paths=(
            directory,
            path,
        ),
        what="the directory keeps webui 1.9 and newer from ever reading cache.json",
        hint="leave the directory out of the image, or set SD_WEBUI_CACHE_DIR to one that does not exist",
    )


def _database(directory: str) -> Finding:
    return Finding(
        id="cache-database",
        severity="info",
        paths=(f"{directory}/hashes/cache.db",),
        what="hashes are in a database of the webui's own, which is not looked into: no model was checked",
        hint="ship cache.json instead: it serves every release and is reproducible",
    )


def _unread(path: str) -> Finding:
    return Finding(
        id="cache-unread",
        severity="warning",
        paths=(path,),
        what="a compressed layer holds it under a name that only a script tells: no model was checked",
        hint="name it in the image's environment: SD_WEBUI_CACHE_FILE",
    )


def _corrupt(path: str) -> Finding:
    return Finding(
        id="cache-corrupt",
        severity="error",
        paths=(path,),
        what="cache.json is no JSON object of sections: the webui throws it away and hashes everything",
        hint="write it anew, or build the image with layerbuild",
    )


def _entry(view: ImageView, model: Model, keys: list[str], cache: Cache, when: When) -> Iterator[Finding]:
    section, node = model.placed.keys.section or "", model.node
    entries = (cache.sections or {}).get(section, {})
    # SD.Next's releases differ in the key: one of them is enough.
    key = next((key for key in keys if key in entries), keys[0])
    entry, where = entries.get(key), f"{section} / {key}"
    mtime, sha256 = (entry.get("mtime"), entry.get("sha256")) if isinstance(entry, dict) else (None, None)
    paths = (model.placed.path,)
    if not isinstance(mtime, int | float) or not isinstance(sha256, str):
        if not _names_its_hash(view, model, cache):
            yield Finding(
                id="model-not-hashed",
                severity="error" if when == "start" else "warning",
                paths=paths,
                what=f"the {model.placed.type} has no entry {where}: it is hashed {_moment(when)}",
                cost=hashing(node.size, when),
                hint=_LOCK,
            )
    elif node.mtime > mtime:
        yield Finding(
            id="entry-stale",
            severity="error" if when == "start" else "warning",
            paths=paths,
            what=f"the {model.placed.type} is newer than its entry {where}: it is hashed again {_moment(when)}",
            cost=hashing(node.size, when),
            hint="set the file's mtime and the entry's to the same whole second",
        )
    else:
        if node.mtime != mtime:
            yield _other_mtime(paths, where)
        yield from _contradiction(view, model, sha256, where)


def _moment(when: When) -> str:
    return "at start" if when == "start" else "when it is first used"


def _other_mtime(paths: tuple[str, ...], where: str) -> Finding:
    return Finding(
        id="entry-other-mtime",
        severity="info",
        paths=paths,
        what=f"the entry {where} is newer than the file: fine for every release, stale for the development branch",
        hint="set both to the same whole second",
    )


def _contradiction(view: ImageView, model: Model, sha256: str, where: str) -> Iterator[Finding]:
    """An entry that says what its file cannot have."""
    known = model.placed.content.sha256
    if known is None or view.webui is None:
        return
    whole = model.placed.keys.section == "hashes" or view.webui.flavor == "forge"
    if whole == (sha256.lower() == known):
        return
    what = (
        f"the entry {where} has another sha256 than the one that the file's own path tells"
        if whole
        else f"the entry {where} has the sha256 of the whole file, as Forge stores it; A1111 leaves the header out"
    )
    yield Finding(
        id="entry-contradicts",
        severity="error" if whole else "warning",
        paths=(
            model.placed.path,
            model.real,
        ),
        what=what,
        hint="write the entry anew: the webui believes it, and names and finds models by a wrong hash",
    )


def _names_its_hash(view: ImageView, model: Model, cache: Cache) -> bool:
    """Whether a Lora's own metadata holds its hash: then the webui computes none."""
    key = model.placed.keys.metadata
    if model.placed.type != "lora" or key is None:
        return False
    stored = (cache.sections or {}).get("safetensors-metadata", {}).get(key)
    if isinstance(stored, dict) and isinstance(stored.get("value"), dict) and stored["value"].get("sshs_model_hash"):
        return True
    prefix = view.files.read(model.node, length=PREFIX) or b""
    length = header_length(prefix)
    if length is None or length > MAX_HEADER // 16:
        return False
    header = view.files.read(model.node, offset=PREFIX, length=length)
    return bool(header and (metadata_of(header) or {}).get("sshs_model_hash"))


def _metadata(webui: Webui, model: Model, cache: Cache) -> Iterator[Finding]:
    key = model.placed.keys.metadata
    if key is None or not stores_metadata(model.placed, webui.target):
        return
    stored = (cache.sections or {}).get("safetensors-metadata", {}).get(key)
    mtime = stored.get("mtime") if isinstance(stored, dict) else None
    valid = isinstance(stored, dict) and isinstance(stored.get("value"), dict)
    if valid and isinstance(mtime, int | float) and model.node.mtime <= mtime:
        return
    yield Finding(
        id="metadata-not-cached",
        severity="warning",
        paths=(model.placed.path,),
        what=f"the {model.placed.type} has no valid entry safetensors-metadata / {key}: its header is read at start",
        cost=Cost(seconds=_SMALL),
        hint=_LOCK,
    )
