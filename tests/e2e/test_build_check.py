"""`build --check`: layers made again, and held against what the lock and the store say of them."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from builders import sha256
from fixtures.project import BIG, Project, safetensors
from fixtures.web import Web
from layerbuild import compress
from layerbuild.model import Receipt
from layerbuild.store import Store

_LAYERS = """
sd: {kind: model, type: checkpoint, source: file:sd.safetensors}
ink: {kind: model, type: lora, source: file:ink.safetensors}
start: {kind: files, files: {/opt/worker/start.sh: {content: "#!/bin/sh\\n", mode: "0755"}}}
"""
_RECIPE = "name: one\nwebui: {root: /webui}\nlayers: [sd, ink, start]\ntags: [v1]\n"
_OTHER = f"sha256:{'f' * 64}"


@pytest.fixture
def locked(project: Project) -> Project:
    project.write(
        {
            "layers/l.yaml": _LAYERS,
            "recipes/r.yaml": _RECIPE,
            "sd.safetensors": safetensors(BIG, {"a": "b"}),
            "ink.safetensors": safetensors(3000, {"ss_output_name": "ink"}),
        }
    )
    project.run("lock")
    return project


def _receipts(project: Project) -> list[Receipt]:
    store = Store(project.store)
    found = [store.receipt(str(key)) for (key,) in store.query("SELECT key FROM receipts")]
    store.close()
    return [receipt for receipt in found if receipt is not None]


def _key(project: Project, kind: str) -> str:
    prefix = next(line for line in project.lock["images"]["one"]["layers"] if line.startswith(kind)).rpartition("@")[2]
    return str(next(key for key in project.lock["receipts"] if key.startswith(prefix)))


def _statuses(result: Any) -> dict[str, str]:
    return {layer["layer"]: layer["status"] for layer in result.json["layers"]}


def _blobs(project: Project) -> list[str]:
    return [path.name for path in (project.store / "blobs").glob("*/*")]


def test_nothing_known_is_nothing_wrong_and_nothing_is_recorded(locked: Project) -> None:
    before = locked.lockfile.read_bytes()
    found = locked.run("build", "--check", "--json")
    assert set(_statuses(found).values()) == {"no receipt"} and len(_statuses(found)) == 5
    assert locked.lockfile.read_bytes() == before
    assert _receipts(locked) == [] and _blobs(locked) == [] and locked.leftovers() == []


def test_true_receipts_are_the_same_here_and_on_another_machine(locked: Project) -> None:
    locked.run("build")
    before = locked.lockfile.read_bytes(), _receipts(locked), sorted(_blobs(locked))
    table = locked.run("build", "--check").out.splitlines()
    assert table[0].split() == ["LAYER", "SIZE", "RECEIPT"]
    assert len(table) == 6 and all(line.endswith("  same") and len(line) <= 80 for line in table[1:])
    assert (locked.lockfile.read_bytes(), _receipts(locked), sorted(_blobs(locked))) == before
    # What is known is no reason not to make it: without the contents there is nothing to say.
    fresh = {"LAYERBUILD_STORE": str(locked.store) + "-fresh"}
    found = locked.run("build", "--check", "--json", env=fresh)
    assert set(_statuses(found).values()) == {"same"}
    made = {layer["key"]: layer["diff_id"] for layer in found.json["layers"]}
    assert made == {key: receipt["diff_id"] for key, receipt in locked.lock["receipts"].items()}


def test_every_difference_is_told_in_one_run(locked: Project) -> None:
    locked.run("build")
    weights, cache, files = (_key(locked, kind) for kind in ("weights/sd", "hash-cache", "files"))
    encoding = compress.encoding("zstd")

    def change(lock: Any) -> None:
        lock["receipts"][weights]["diff_id"] = _OTHER
        lock["receipts"][cache]["size"] += 512
        blobs = lock["receipts"][files]["blobs"]
        assert blobs[0]["encoding"] == encoding
        blobs[0]["digest"] = _OTHER

    locked.edit_lock(change)
    before = locked.lockfile.read_bytes()
    found = locked.run("build", "--check", "--json", check=False)
    found.failed(1, "3 of 5 layers", "weights sd", "hash-cache one", "files start", encoding, "the lock says", _OTHER)
    assert "this store says" not in found.err
    assert sorted(_statuses(found).values()) == ["different"] * 3 + ["same"] * 2
    told = {layer["layer"]: layer["problems"] for layer in found.json["layers"]}
    assert len(told["files start"]) == 1 and told["links one"] == []
    assert locked.lockfile.read_bytes() == before


def test_blob_of_another_compressor_cannot_be_held_to_bytes(locked: Project) -> None:
    locked.run("build")
    files = _key(locked, "files")

    def change(lock: Any) -> None:
        lock["receipts"][files]["blobs"] = [{"encoding": "zstd:9:0.0.1", "digest": _OTHER, "size": 7}]

    locked.edit_lock(change)
    assert set(_statuses(locked.run("build", "--check", "--json")).values()) == {"same"}


def test_the_stores_receipts_are_held_against_it_too(locked: Project) -> None:
    locked.run("build")
    store = Store(locked.store)
    store.put_receipt(Receipt(key=_key(locked, "weights/sd"), diff_id=_OTHER, size=1))
    store.close()
    found = locked.run("build", "--check", check=False).failed(1, "1 of 5 layers", "weights sd", "this store says")
    assert "the lock says" not in found.err
    assert found.out.count("  different") == 1 and found.out.count("  same") == 4
    assert next(r for r in _receipts(locked) if r.key == _key(locked, "weights/sd")).diff_id == _OTHER


def test_one_layer_that_cannot_be_made_hides_no_other(locked: Project) -> None:
    locked.run("build")
    shutil.move(locked.root / "sd.safetensors", locked.root / "gone")
    found = locked.run("build", "--check", "--json", check=False).failed(1, "1 of 5 layers could not be made", "sd")
    assert sorted(_statuses(found).values()) == ["not made"] + ["same"] * 4
    links = _key(locked, "links")
    locked.edit_lock(lambda lock: lock["receipts"][links].update(diff_id=_OTHER))
    found = locked.run("build", "--check", check=False).failed(1, "not reproducible: 1 of 5 layers", "links one", "sd")
    assert "not made" in found.out


def test_facts_that_are_pending_are_learnt_and_not_recorded(project: Project, web: Web) -> None:
    ink = safetensors(1000, {"ss_output_name": "ink"})
    source = f"source: {web.route('/ink.safetensors', ink)}, sha256: {sha256(ink)}, size: {len(ink)}"
    project.write({"layers/l.yaml": f"ink: {{kind: model, type: lora, {source}}}\n"})
    project.write({"recipes/r.yaml": "name: one\nwebui: {root: /webui}\nlayers: [ink]\n"})
    project.run("lock")
    before = project.lockfile.read_bytes()
    assert b"@pending" in before
    found = project.run("build", "--check", "--json")
    assert set(_statuses(found)) == {"weights ink", "links one", "hash-cache one"}
    assert project.lockfile.read_bytes() == before and _receipts(project) == []


def test_only_what_is_asked_for_is_made(locked: Project) -> None:
    locked.write({"recipes/s.yaml": "name: two\nwebui: {root: /webui}\nlayers: [start]\ntags: [v1]\n"})
    locked.run("lock")
    assert set(_statuses(locked.run("build", "--check", "two", "--json"))) == {"files start"}
    locked.run("build", "--check", "three", check=False).failed(2, "no image is called 'three'")
