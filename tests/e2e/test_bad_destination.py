"""Registries that are down, read-only, or want a login, and layouts that are none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from e2e.readers import layout_manifests, tags
from fixtures.project import BIG, Project, safetensors
from fixtures.registry import PASSWORD, Front, docker_config

_LAYERS = "sd: {kind: model, type: checkpoint, source: file:sd.safetensors}\n"
_RECIPE = "name: worker\nwebui: {root: /webui}\nlayers: [sd]\ntags: [v1]\n"


@pytest.fixture
def ready(project: Project) -> Project:
    """A project that only has to be pushed."""
    project.write({"layers/l.yaml": _LAYERS, "recipes/r.yaml": _RECIPE, "sd.safetensors": safetensors(BIG, {"a": "b"})})
    project.run("lock")
    project.run("build")
    return project


def _at(registry: Front) -> str:
    return f"{registry.host}/{registry.prefix}"


def _no_tag(registry: Front) -> bool:
    return tags(registry.root, f"{registry.prefix}/worker") == []


def test_registry_that_is_down(ready: Project) -> None:
    ready.run("push", "127.0.0.1:9/acme", check=False).failed(1, "127.0.0.1:9")


def test_read_only_registry(ready: Project, readonly_registry: Front) -> None:
    found = ready.run("push", _at(readonly_registry), check=False).failed(1, readonly_registry.host)
    assert "405" in found.err or "read" in found.err
    assert _no_tag(readonly_registry)


def test_registry_that_asks_for_a_login(ready: Project, login_registry: Front, tmp_path: Path) -> None:
    ready.run("push", _at(login_registry), check=False).failed(1, login_registry.host, "login")
    wrong = docker_config(tmp_path / "wrong", login_registry.host, password="a-wrong-secret")
    found = ready.run("push", _at(login_registry), check=False, env=wrong).failed(1, login_registry.host)
    assert "a-wrong-secret" not in found.err + found.out
    assert _no_tag(login_registry)
    right = docker_config(tmp_path / "right", login_registry.host)
    done = ready.run("push", _at(login_registry), env=right)
    assert tags(login_registry.root, f"{login_registry.prefix}/worker") == ["v1"]
    assert PASSWORD not in done.err + done.out


def test_registry_with_tokens(ready: Project, token_registry: Front, tmp_path: Path) -> None:
    ready.run("push", _at(token_registry), check=False).failed(1, token_registry.host)
    assert _no_tag(token_registry)
    ready.run("push", _at(token_registry), env=docker_config(tmp_path / "docker", token_registry.host))
    assert tags(token_registry.root, f"{token_registry.prefix}/worker") == ["v1"]


@pytest.mark.parametrize("status", [400, 403, 413])
def test_registry_that_refuses_a_blob(ready: Project, registry: Front, status: int) -> None:
    registry.rule("PUT", "/blobs/uploads/", status, times=99)
    ready.run("push", _at(registry), check=False).failed(1, registry.host)
    assert _no_tag(registry)
    registry.rules.clear()
    ready.run("push", _at(registry))
    assert tags(registry.root, f"{registry.prefix}/worker") == ["v1"]


def test_registry_that_refuses_the_manifest(ready: Project, registry: Front) -> None:
    registry.rule("PUT", "/manifests/", 403, times=99)
    ready.run("push", _at(registry), check=False).failed(1, registry.host)
    assert _no_tag(registry)


def test_upload_that_breaks_off_is_taken_up_again(ready: Project, registry: Front) -> None:
    cut = registry.rule("PUT", "/blobs/uploads/", cut=100)
    ready.run("push", _at(registry))
    assert cut.times == 0
    assert tags(registry.root, f"{registry.prefix}/worker") == ["v1"]


def test_directory_that_is_no_layout(ready: Project) -> None:
    ready.write({"precious/file": "mine"})
    ready.run("push", "oci:precious", check=False).failed(1, "precious", "not an OCI image layout")
    assert [path.name for path in (ready.root / "precious").iterdir()] == ["file"]
    ready.write({"plain": "a file"})
    ready.run("push", "oci:plain", check=False).failed(1, "plain")


def test_layout_keeps_what_it_had(ready: Project) -> None:
    ready.run("push", "oci:out")
    before = layout_manifests(ready.root / "out")
    index = json.loads((ready.root / "out/index.json").read_text())
    ready.write({"recipes/r.yaml": _RECIPE.replace("v1", "v2").replace("/webui", "/elsewhere")})
    ready.run("lock")
    (ready.root / "sd.safetensors").unlink()
    # The model is gone, and not needed: the layout has its layer.
    ready.run("push", "oci:out")
    after = layout_manifests(ready.root / "out")
    assert set(after) == {"worker:v1", "worker:v2"} and after["worker:v1"] == before["worker:v1"]
    kept = json.loads((ready.root / "out/index.json").read_text())["manifests"]
    assert index["manifests"][0] in kept
