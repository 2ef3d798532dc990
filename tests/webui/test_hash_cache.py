"""The hash cache against what the webui's own code stored for the same files (`vectors.json`)."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from builders import SHA, Known, facts_of, hash_cache_of, sha256
from layerbuild.errors import SourceError
from layerbuild.kinds import describe, documents
from layerbuild.model import MTIME, Content, Facts, Pin, Target
from layerbuild.webui.hashcache import PlacedModel, collisions, needed_facts, pending_facts, stores_extensions
from layerbuild.webui.modeltypes import MODEL_TYPES, is_hidden, place
from layerbuild.webui.releases import COMMITS, PREFIXES, parse_version, version_of_commit
from layerbuild.webui.safetensors import header_length, metadata_of, stored_metadata

VECTORS = json.loads((Path(__file__).parents[1] / "vectors.json").read_text(encoding="utf-8"))
TYPES = {
    "models/Stable-diffusion": "checkpoint",
    "models/Lora": "lora",
    "models/VAE": "vae",
    "embeddings": "embedding",
    "models/hypernetworks": "hypernetwork",
}
TARGET = Target(root="/w", data_dir="/w", models_dir="/w/models", embeddings_dir="/w/embeddings")


@dataclass(frozen=True)
class Vector:
    """One of the vectors' files."""

    data: bytes
    header: bytes
    model: PlacedModel


def vector(item: dict[str, Any]) -> Vector:
    body = bytes([item["byte"]]) * item["length"]
    header = item["header"].encode() if item["header"] is not None else b""
    data = len(header).to_bytes(8, "little") + header + body if header else body
    assert (len(data), sha256(data)) == (item["size"], item["sha256"])
    folder = next(folder for folder in TYPES if item["path"].startswith(f"{folder}/"))
    name = item["path"].removeprefix(f"{folder}/")
    content = Content(size=len(data), sha256=sha256(data))
    path = place(TYPES[folder], name, TARGET)
    assert path == f"/w/{item['path']}"
    return Vector(data, header, PlacedModel(type=TYPES[folder], name=name, path=path, content=content, layer=name))


FILES = [vector(item) for item in VECTORS["files"]]
FACTS = {sha256(file.data): facts_of(file.data) for file in FILES}


def cache_of(
    models: list[PlacedModel], facts: dict[str, Facts], version: str | None, documents: tuple[bytes, ...] = ()
) -> dict[str, Any]:
    target = Target(**{**vars(TARGET), "version": parse_version(version) if version else None})
    instance = hash_cache_of(models, facts, target)
    assert instance is not None
    entry = describe(instance, Known(documents=documents))[-1]
    assert entry.path == "w/cache.json"
    assert entry.data is not None
    text = entry.data.decode("ascii")
    assert not text.endswith("\n")
    cache: dict[str, Any] = json.loads(text)
    assert json.dumps(cache, indent=4) == text
    return cache


def test_the_vectors_cover_what_they_should() -> None:
    assert set(VECTORS["stored"]) == {"1.6.1", "1.8.0", "1.9.4", "1.10.1"}
    assert {file.model.type for file in FILES} >= {"checkpoint", "lora"}
    assert VECTORS["mtime"] == MTIME


@pytest.mark.parametrize("release", list(VECTORS["stored"]))
def test_the_cache_is_what_the_webui_itself_stored(release: str) -> None:
    stored = VECTORS["stored"][release]
    made = cache_of([file.model for file in FILES], FACTS, release)
    for section in {*stored, *made}:
        assert made.get(section, {}) == stored.get(section, {}), section
    times = [entry["mtime"] for section in made.values() for entry in section.values()]
    assert all(type(time) is float for time in times)


def test_without_a_release_the_newest_rules_hold() -> None:
    models = [file.model for file in FILES]
    assert cache_of(models, FACTS, None) == cache_of(models, FACTS, "1.10.1")


@pytest.mark.parametrize("release", list(VECTORS["stored"]))
def test_long_metadata_is_read_from_the_header_instead(release: str) -> None:
    short = {sha: Facts(**{**vars(facts), "metadata": None}) for sha, facts in FACTS.items()}
    headers = tuple(file.header for file in FILES if file.header)
    models = [file.model for file in FILES]
    assert cache_of(models, short, release, headers) == cache_of(models, FACTS, release)
    instance = hash_cache_of(models, short, TARGET)
    assert instance is not None
    assert documents(instance) <= {sha256(header) for header in headers}


def test_covers_of_loras_are_kept_from_1_9_on() -> None:
    metadata = {"ssmd_cover_images": "[]", "modelspec.thumbnail": "x"}
    for version, kept in [((1, 5, 2), False), ((1, 8, 0), False), ((1, 8), False), ((1, 9), True), (None, True)]:
        assert ("ssmd_cover_images" in stored_metadata(metadata, "lora", version)) == kept
        assert "modelspec.thumbnail" in stored_metadata(metadata, "lora", version)
        assert list(stored_metadata(metadata, "checkpoint", version)) == ["ssmd_cover_images"]


def test_strings_that_begin_with_a_brace_are_decoded_where_they_can_be() -> None:
    deep = '{"a":' * 500 + "1" + "}" * 500
    metadata = {"a": '{"b": [1]}', "c": "{no", "d": "[1]", "e": ' {"f": 1}', "g": deep, "h": 3}
    assert stored_metadata(metadata, "lora", None) == {**metadata, "a": {"b": [1]}}


# --- facts -----------------------------------------------------------------------------------------


def model(type_name: str, name: str, letter: str = "a", *, path: str | None = None) -> PlacedModel:
    where = path or place(type_name, name, TARGET)
    return PlacedModel(type=type_name, name=name, path=where, content=Content(size=1, sha256=SHA[letter]), layer=name)


@pytest.mark.parametrize(
    ("type_name", "name", "version", "needed"),
    [
        ("checkpoint", "a.safetensors", (1, 10, 1), {"header"}),
        ("checkpoint", "a.SAFETENSORS", (1, 6, 0), {"header"}),
        ("checkpoint", "a.safetensors", (1, 5, 2), set()),
        ("checkpoint", "a.ckpt", None, set()),
        ("lora", "a.safetensors", None, {"header", "addnet"}),
        ("lora", "a.safetensors", (1, 4, 0), {"header", "addnet"}),
        ("lora", "a.pt", None, set()),
        ("vae", "a.safetensors", None, set()),
        ("embedding", "a.safetensors", None, set()),
        ("upscaler", "a.pth", None, set()),
    ],
)
def test_facts_that_are_needed(type_name: str, name: str, version: tuple[int, ...] | None, needed: set[str]) -> None:
    placed = model(type_name, name)
    assert needed_facts(placed, Target(version=version)) == needed
    assert pending_facts(placed, Target(version=version), None) == needed
    assert pending_facts(placed, Target(version=version), Facts(size=1)) == needed
    assert pending_facts(placed, Target(version=version), Facts(size=1, safetensors=True)) == needed - {"header"}
    assert not pending_facts(placed, Target(version=version), Facts(size=1, safetensors=True, addnet=SHA["b"]))
    assert not pending_facts(placed, Target(version=version), Facts(size=1, safetensors=False))


@pytest.mark.parametrize("type_name", ["checkpoint", "lora"])
def test_a_file_that_is_no_safetensors_is_refused_by_name(type_name: str) -> None:
    with pytest.raises(SourceError, match=r"bad\.safetensors.* is not a valid safetensors file") as caught:
        hash_cache_of([model(type_name, "bad.safetensors")], {SHA["a"]: Facts(size=1, safetensors=False)}, TARGET)
    assert caught.value.hint


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"[]",
        b"3",
        b"{",
        b"\xff\xfe",
        b'{"__metadata__": []}',
        b'{"__metadata__": {"a": ' + b"[" * 99 + b"]" * 99 + b"}}",
        b"[" * 100_000,
    ],
)
def test_headers_that_are_none(header: bytes) -> None:
    assert metadata_of(header) is None


def test_header_lengths() -> None:
    assert header_length((2).to_bytes(8, "little")) == 2
    for prefix in [b"", b"1234567", bytes(8), (1).to_bytes(8, "little"), (2**63).to_bytes(8, "little"), b"\xff" * 8]:
        assert header_length(prefix) is None


# --- flavors ---------------------------------------------------------------------------------------


def flavored(flavor: str, models: list[PlacedModel], **extensions: Pin) -> tuple[str, Any]:
    """Path and content of the hash cache of a flavor."""
    target = replace(TARGET, flavor=flavor)
    known = {SHA[c]: Facts(size=1, safetensors=True, metadata="{}", addnet=SHA["f"]) for c in "abc"}
    instance = hash_cache_of(models, known, target, extensions)
    assert instance is not None
    entry = describe(instance, Known())[-1]
    assert entry.data is not None
    return entry.path, json.loads(entry.data)


def test_forge_hashes_the_whole_lora() -> None:
    lora = model("lora", "sub/l.safetensors")
    assert needed_facts(lora, replace(TARGET, flavor="forge")) == {"header"}
    path, cache = flavored("forge", [lora, model("checkpoint", "c.safetensors", "b")])
    assert path == "w/cache.json"
    assert cache["hashes-addnet"] == {"lora/l": {"mtime": float(MTIME), "sha256": SHA["a"]}}
    assert set(cache["safetensors-metadata"]) == {"lora/l", "checkpoint/c.safetensors"}
    # The same without any release of AUTOMATIC1111's being named: the fork began after 1.6.
    old = replace(TARGET, flavor="forge", version=(1, 0))
    assert needed_facts(model("checkpoint", "c.safetensors"), old) == {"header"}


def test_sdnext_has_both_names_of_a_checkpoint_and_no_metadata() -> None:
    models = [model("checkpoint", "sub/c.safetensors"), model("lora", "l.safetensors", "b"), model("embedding", "e.pt")]
    path, cache = flavored("sdnext", models, ext=Pin(source=f"git+https://h/r@{'0' * 40}"))
    assert path == "w/data/cache.json"
    assert {section: list(entries) for section, entries in cache.items()} == {
        "hashes": ["checkpoint/sub/c", "checkpoint/sub/c.safetensors", "textual_inversion/e"],
        "hashes-addnet": ["lora/l"],
    }
    assert cache["hashes-addnet"]["lora/l"]["sha256"] == SHA["f"]
    one, two = model("checkpoint", "a.ckpt"), model("checkpoint", "a.safetensors", "b")
    assert collisions([one, two], replace(TARGET, flavor="sdnext")) == [(one, two, "checkpoint/a")]
    assert collisions([one, two], TARGET) == []


def test_extensions_are_what_git_would_say_of_them() -> None:
    commit = "0123456789" * 4
    pin = Pin(source=f"git+https://h/o/r@{commit}", ref="dev", revision=commit, date=1700000000)
    _, cache = flavored("a1111", [], b=pin, a=replace(pin, ref=None, date=None))
    value = {"remote": "https://h/o/r", "commit_date": 1700000000, "branch": "dev", "commit_hash": commit}
    entry = {"mtime": float(MTIME), "value": {**value, "version": "01234567"}}
    assert cache["extensions-git"]["b"] == entry
    assert cache["extensions-git"]["a"]["value"] == {**entry["value"], "commit_date": 0, "branch": "main"}
    assert list(cache["extensions-git"]) == ["a", "b"]


@pytest.mark.parametrize(("version", "stored"), [((1, 4, 0), False), ((1, 5, 0), True), (None, True)])
def test_extensions_are_remembered_from_1_5_on(version: tuple[int, ...] | None, stored: bool) -> None:
    pin = Pin(source=f"git+https://h/r@{'0' * 40}")
    target = replace(TARGET, version=version)
    assert stores_extensions(target) == stored
    assert (hash_cache_of([], {}, target, {"a": pin}) is not None) == stored


# --- keys and collisions ---------------------------------------------------------------------------


def test_two_models_under_one_key_are_found() -> None:
    first, second = model("lora", "x/a.safetensors"), model("lora", "y/a.pt", "b")
    assert collisions([first, model("lora", "b.pt"), second], TARGET) == [(first, second, "lora/a")]
    first, second = model("embedding", "x/a.pt"), model("embedding", "a.bin", "b")
    assert collisions([first, second], TARGET) == [(first, second, "textual_inversion/a")]


def test_two_models_at_one_path_are_found_whatever_their_type() -> None:
    first, second = model("upscaler", "a.pth", path="/w/x"), model("vae", "b.pt", path="/w/x")
    assert collisions([first, second], TARGET) == [(first, second, "/w/x")]


def test_what_the_webui_can_tell_apart_is_no_collision() -> None:
    names = [
        ("checkpoint", "a.ckpt"),
        ("checkpoint", "a.safetensors"),
        ("checkpoint", "sub/a.ckpt"),
        ("lora", "a.pt"),
        ("embedding", "a.pt"),
        ("hypernetwork", "a.pt"),
        ("vae", "a.pt"),
        ("vae", "b.pt"),
        ("upscaler", "a.pth"),
        ("controlnet", "sub/a.pth"),
    ]
    assert collisions([model(t, n) for t, n in names], TARGET) == []


def test_several_vaes_have_no_entry_and_one_has() -> None:
    vaes = [model("vae", "a.pt"), model("vae", "b.pt", "b")]
    assert hash_cache_of(vaes, {}, TARGET) is None
    assert hash_cache_of([], {}, TARGET) is None
    assert hash_cache_of([model("upscaler", "a.pth")], {}, TARGET) is None
    assert cache_of(vaes[:1], {}, "1.10.1") == {"hashes": {"vae": {"mtime": float(MTIME), "sha256": SHA["a"]}}}
    assert list(cache_of([*vaes, model("embedding", "e.pt")], {}, None)["hashes"]) == ["textual_inversion/e"]


def test_the_order_of_models_does_not_matter() -> None:
    models = [file.model for file in FILES]
    one, two = hash_cache_of(models, FACTS, TARGET), hash_cache_of(models[::-1], FACTS, TARGET)
    assert one is not None
    assert two is not None
    assert one.key == two.key


def test_places() -> None:
    apart = Target(models_dir="/m", embeddings_dir="/e")
    assert place("checkpoint", "sub/a.ckpt", apart) == "/m/Stable-diffusion/sub/a.ckpt"
    assert place("embedding", "a.pt", apart) == "/e/a.pt"
    assert place("upscaler", "a.pth", apart, "DAT") == "/m/DAT/a.pth"
    assert {m.anchor for m in MODEL_TYPES.values()} == {"models", "embeddings"}
    assert is_hidden(".a.ckpt")
    assert is_hidden("x/.y/a.ckpt")
    assert not is_hidden("x.y/a.b.ckpt")


# --- releases --------------------------------------------------------------------------------------


def test_releases() -> None:
    assert parse_version("v1.10.1") == (1, 10, 1)
    assert parse_version("1.6.0-RC") == (1, 6, 0)
    assert [parse_version(text) for text in ("", "1", "dev", "1.x", "1.2.3.4.5", "1.10.1 2", "-1.2")] == [None] * 7
    for release, commit in COMMITS.items():
        assert len(commit) == 40
        assert version_of_commit(commit) == release
    for release, prefix in PREFIXES.items():
        assert version_of_commit(prefix.ljust(40, "0")) == release
    assert version_of_commit("0" * 40) is None
    assert version_of_commit(COMMITS["1.10.1"][:12]) is None
    assert version_of_commit(f"{COMMITS['1.10.1'][:8]}-branch") is None
