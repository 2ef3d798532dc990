"""Local models and this machine's store may change, move or vanish between any two commands."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from e2e.readers import layout_manifests, no_image, tags
from fixtures.hub import Hub
from fixtures.project import BIG, Project, safetensors
from fixtures.registry import Front

_LAYERS = """
sd: {kind: model, type: checkpoint, source: file:sd.safetensors}
ink: {kind: model, type: lora, source: hf://acme/ink@main/ink.safetensors}
note: {kind: files, files: {/opt/note: {content: hello}, /opt/license: file:LICENSE}}
"""
_RECIPE = "name: worker\nwebui: {root: /webui}\nlayers: [sd, ink, note]\ntags: [v1]\n"
_MODEL = safetensors(BIG, {"a": "b"}, seed=1)


@pytest.fixture
def locked(project: Project, hub: Hub) -> Project:
    """A locked project with a local model and one from a Hub."""
    hub.add("acme/ink", lfs={"ink.safetensors": safetensors(BIG, {"c": "d"}, seed=2)})
    project.environ["HF_ENDPOINT"] = hub.endpoint
    project.write({"layers/l.yaml": _LAYERS, "recipes/r.yaml": _RECIPE, "sd.safetensors": _MODEL, "LICENSE": "free"})
    project.run("lock")
    return project


def _change(project: Project, *, keep_time: bool) -> None:
    """One byte in the middle, in place: the size stays."""
    path = project.root / "sd.safetensors"
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(BIG // 2)
        byte = file.read(1)
        file.seek(BIG // 2)
        file.write(bytes([byte[0] ^ 1]))
    if keep_time:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("keep_time", [False, True])
def test_file_that_changed_after_lock_is_not_built(locked: Project, keep_time: bool) -> None:
    _change(locked, keep_time=keep_time)
    before = locked.lockfile.read_bytes()
    found = locked.run("push", "oci:out", check=False)
    found.failed(1, "sd", "file:sd.safetensors", "has changed since it was locked", "layerbuild lock --update sd")
    assert locked.lockfile.read_bytes() == before
    assert no_image(locked.root / "out")
    locked.run("lock", "--update", "sd")
    locked.run("push", "oci:out")


@pytest.mark.parametrize("keep_time", [False, True])
def test_file_that_changed_after_build_is_not_pushed(locked: Project, registry: Front, keep_time: bool) -> None:
    locked.run("build")
    _change(locked, keep_time=keep_time)
    found = locked.run("push", f"{registry.host}/{registry.prefix}", check=False)
    found.failed(1, "sd", "changed")
    assert tags(registry.root, f"{registry.prefix}/worker") == []


def test_file_that_vanished_after_lock(locked: Project) -> None:
    (locked.root / "sd.safetensors").unlink()
    locked.run("push", "oci:out", check=False).failed(1, "sd.safetensors")
    assert no_image(locked.root / "out")


def test_file_that_moved_is_found_by_its_new_declaration(locked: Project) -> None:
    locked.run("build")
    receipts = locked.lock["receipts"]
    (locked.root / "models").mkdir()
    (locked.root / "sd.safetensors").rename(locked.root / "models/sd.safetensors")
    locked.write({"layers/l.yaml": _LAYERS.replace("file:sd", "file:models/sd")})
    locked.run("lock")
    locked.run("push", "oci:out")
    assert locked.lock["receipts"] == receipts


def test_store_may_be_deleted_between_any_two_commands(locked: Project, hub: Hub) -> None:
    shutil.rmtree(locked.store)
    locked.run("build")
    lock = locked.lockfile.read_bytes()
    shutil.rmtree(locked.store)
    locked.run("push", "oci:one")
    shutil.rmtree(locked.store)
    locked.run("push", "oci:two")
    assert layout_manifests(locked.root / "one") == layout_manifests(locked.root / "two")
    shutil.rmtree(locked.store)
    locked.run("lock", "--check")
    locked.run("lock")
    assert locked.lockfile.read_bytes() == lock


def test_damaged_files_in_the_store_are_noticed_and_made_anew(locked: Project) -> None:
    locked.run("build")
    large = max((locked.store / "files").glob("*/*"), key=lambda path: path.stat().st_size)
    with large.open("r+b") as file:
        file.seek(BIG // 2)
        file.write(b"damage")
    blob = max((locked.store / "blobs").glob("*/*"), key=lambda path: path.stat().st_size)
    blob.write_bytes(bytes(blob.stat().st_size))
    found = locked.run("push", "oci:out")
    assert found.err.count("making it anew") == 2
    locked.run("push", "oci:again", env={"LAYERBUILD_STORE": str(locked.store.with_name("fresh"))})
    assert layout_manifests(locked.root / "out") == layout_manifests(locked.root / "again") != {}


def test_receipts_need_no_model(locked: Project, registry: Front, hub: Hub, tmp_path: Path) -> None:
    destination = f"{registry.host}/{registry.prefix}"
    locked.run("push", destination)
    (locked.root / "sd.safetensors").unlink()
    (locked.root / "LICENSE").unlink()
    asked = len(hub.requests)
    registry.records.clear()
    fresh = {"LAYERBUILD_STORE": str(tmp_path / "fresh")}
    for command in (["lock", "--check"], ["lock"], ["build"], ["plan", "--to", destination], ["push", destination]):
        locked.run(*command, env=fresh)
    assert len(hub.requests) == asked
    assert registry.requests("POST") == []
    plan = locked.run("plan", "--to", destination, "--json", env=fresh).json
    assert {layer["action"] for layer in plan["layers"]} == {"present"}
    assert plan["totals"]["fetch_bytes"] == plan["totals"]["pack_bytes"] == plan["totals"]["upload_bytes"] == 0
    # A second image of the same model, in another place: links and hash cache come from the lock.
    second = _RECIPE.replace("worker", "second").replace("/webui", "/srv/elsewhere")
    locked.write({"recipes/second.yaml": second.replace("layers: [sd, ink, note]", "layers: [sd, ink]")})
    locked.run("lock", env=fresh)
    report = locked.run("push", destination, "second", "--json", env=fresh).json
    # The fresh store does not remember the first push: the lock says which other image has the model.
    assert report["uploaded_bytes"] < 64 * 1024


def test_two_pushes_at_once_from_one_store(locked: Project) -> None:
    with ThreadPoolExecutor() as pool:
        runs = list(pool.map(lambda name: locked.run("push", f"oci:{name}"), ["one", "two", "one"]))
    assert [run.code for run in runs] == [0, 0, 0]
    assert layout_manifests(locked.root / "one") == layout_manifests(locked.root / "two")
    assert len(locked.lock["receipts"]) == 5
    assert locked.leftovers() == []
    assert [path.name for path in (locked.root / "one").iterdir() if path.name.startswith(".")] == []
    locked.run("lock", "--check")
