"""A lock that somebody edited by hand, damaged or lost: nothing is built from it, and it is left as it is."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.readers import no_image
from fixtures.gitrepo import GitRepo
from fixtures.hub import Hub
from fixtures.project import BIG, Project, safetensors
from fixtures.web import Web

pytestmark = pytest.mark.xdist_group("locks")

_LAYERS = """
webui: {kind: webui, source: git+file:webui.git@main, version: 1.10.1}
sd: {kind: model, type: checkpoint, source: hf://acme/sd@main/sd.safetensors}
ink: {kind: model, type: lora, source: file:ink.safetensors}
"""
_RECIPE = "name: worker\nwebui: {root: /webui}\nlayers: [webui, sd, ink]\ntags: [v1]\n"
_OTHER = "f" * 64


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    directory = tmp_path_factory.mktemp("locks")
    with Web() as web, Web() as cdn:
        hub = Hub(web, cdn)
        hub.add("acme/sd", lfs={"sd.safetensors": safetensors(BIG, {"format": "pt"}, seed=1)})
        project = Project(directory / "project", directory / "store", {"HF_ENDPOINT": hub.endpoint})
        project.write({"layers/l.yaml": _LAYERS, "recipes/r.yaml": _RECIPE})
        project.write({"ink.safetensors": safetensors(BIG, {"a": "b"}, seed=2)})
        GitRepo(project.root / "webui.git").commit({"webui.py": b"x"})
        project.run("lock")
        project.run("build")
        yield project


@pytest.fixture
def built(shared: Project) -> Iterator[Project]:
    """A project with a full lock, and a store that has everything. Its lock is put back afterwards."""
    before = shared.lockfile.read_bytes()
    yield shared
    shared.lockfile.write_bytes(before)
    shutil.rmtree(shared.root / "out", ignore_errors=True)


def _declaration(lock: Any) -> None:
    lock["layers"]["sd"]["declaration"] = _OTHER


def _key_in_image(lock: Any) -> None:
    lines = lock["images"]["worker"]["layers"]
    lines[2] = lines[2].rpartition("@")[0] + "@" + "f" * 16


def _layer_taken_out(lock: Any) -> None:
    del lock["images"]["worker"]["layers"][1]


def _order(lock: Any) -> None:
    lock["images"]["worker"]["layers"].reverse()


def _platform(lock: Any) -> None:
    lock["images"]["worker"]["platform"] = "linux/arm64"


def _base(lock: Any) -> None:
    lock["images"]["worker"]["base"] = {"reference": "docker.io/library/debian:12", "digest": f"sha256:{_OTHER}"}


def _pinned_sha256(lock: Any) -> None:
    lock["layers"]["sd"]["pins"]["model"]["files"][0]["sha256"] = _OTHER


def _tree(lock: Any) -> None:
    lock["layers"]["webui"]["pins"]["webui"]["tree"] = "f" * 40


def _fact(lock: Any) -> None:
    next(iter(lock["files"].values()))["metadata"] = '{"format":"other"}'


def _receipt_key(lock: Any) -> None:
    _, receipt = lock["receipts"].popitem()
    lock["receipts"][_OTHER] = receipt


def _pins_role(lock: Any) -> None:
    pins = lock["layers"]["sd"]["pins"]
    pins["other"] = pins.pop("model")


_DRIFTED: list[Callable[[Any], None]] = [
    _declaration,
    _key_in_image,
    _layer_taken_out,
    _order,
    _platform,
    _base,
    _pinned_sha256,
    _tree,
    _fact,
    _receipt_key,
    _pins_role,
]


@pytest.mark.parametrize("change", _DRIFTED, ids=lambda f: f.__name__.strip("_"))
def test_lock_that_does_not_recompute_is_drift(built: Project, change: Callable[[Any], None]) -> None:
    built.edit_lock(change)
    before = built.lockfile.read_bytes()
    built.run("lock", "--check", check=False).failed(3, "layerbuild lock")
    built.run("push", "oci:out", check=False).failed(3, "layerbuild lock")
    assert built.lockfile.read_bytes() == before
    assert not (built.root / "out").exists()


def _sd_key(lock: Any) -> str:
    line = next(line for line in lock["images"]["worker"]["layers"] if line.startswith("weights/sd@"))
    return next(key for key in lock["receipts"] if key.startswith(line.rpartition("@")[2]))


def test_receipt_with_another_diff_id(built: Project, tmp_path: Path) -> None:
    def change(lock: Any) -> None:
        lock["receipts"][_sd_key(lock)]["diff_id"] = f"sha256:{_OTHER}"

    built.edit_lock(change)
    before = built.lock
    # This machine has made the layer, and knows better.
    built.run("lock", "--check", check=False).failed(3, _OTHER)
    built.run("push", "oci:out", check=False).failed(1, _OTHER)
    # One that has not sees that the image would be another one.
    fresh = {"LAYERBUILD_STORE": str(tmp_path / "fresh")}
    built.run("push", "oci:out", env=fresh, check=False).failed(1, "not reproducible", "worker")
    # And where that is not recorded either, that the layer is: as soon as it reads it.
    built.edit_lock(lambda lock: lock["images"]["worker"].pop("manifest"))
    built.run("push", "oci:out", env=fresh, check=False).failed(1, "weights sd", "receipt")
    after = built.lock
    assert (after["layers"], after["receipts"]) == (before["layers"], before["receipts"])
    assert no_image(built.root / "out")


def test_receipt_with_another_blob(built: Project, tmp_path: Path) -> None:
    def change(lock: Any) -> None:
        receipt = next(r for r in lock["receipts"].values() if "blobs" in r)
        receipt["blobs"][0]["digest"] = f"sha256:{_OTHER}"
        del lock["images"]["worker"]["manifest"]

    built.edit_lock(change)
    built.run("push", "oci:out", env={"LAYERBUILD_STORE": str(tmp_path / "fresh")}, check=False).failed(1, _OTHER)
    assert no_image(built.root / "out")


def test_no_lock(built: Project) -> None:
    built.lockfile.unlink()
    for command in (["plan"], ["build"], ["push", "oci:out"], ["lock", "--check"]):
        built.run(*command, check=False).failed(2, "lockfile.yaml", "layerbuild lock")
    assert not built.lockfile.exists() and not (built.root / "out").exists()


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("version: 1\nlayers: [\n", "not valid YAML"),
        ("version: 99\n", "99"),
        ("", "lockfile.yaml"),
        ("- a\n", "lockfile.yaml"),
        ("version: 1\nlayers: {a: {declaration: 3}}\n", "lockfile.yaml"),
        ("<<<<<<< ours\nversion: 1\n=======\nversion: 2\n", "lockfile.yaml"),
        ("version: 1\nversion: 1\n", "lockfile.yaml"),
    ],
    ids=["syntax", "version", "empty", "list", "shape", "conflict", "twice"],
)
def test_lock_that_is_no_lock(built: Project, text: str, word: str) -> None:
    built.write({"lockfile.yaml": text})
    for command in (["lock"], ["push", "oci:out"]):
        built.run(*command, check=False).failed(2, word)
    assert built.lockfile.read_text() == text


def test_lock_with_a_path_that_leads_outside(built: Project) -> None:
    def change(lock: Any) -> None:
        lock["layers"]["ink"]["pins"]["model"]["files"][0]["path"] = "../../ink.safetensors"

    built.edit_lock(change)
    found = built.run("push", "oci:out", check=False)
    assert found.code in (2, 3)
    found.failed(found.code, "lock")
    assert not (built.root / "out").exists()
