"""Images in one file: the same bytes from any machine, and never half of one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from e2e.readers import call, sha256
from fixtures.project import BIG, Project, safetensors
from fixtures.registry import Front

_LAYERS = """
sd: {kind: model, type: checkpoint, source: file:sd.safetensors}
ink: {kind: model, type: lora, source: file:ink.safetensors}
start: {kind: files, files: {/opt/worker/start.sh: {content: "#!/bin/sh\\n", mode: "0755"}}}
"""
_FIRST = "name: first\nwebui: {root: /webui}\nlayers: [sd, ink, start]\ntags: [one, two]\n"
_SECOND = "name: second\nwebui: {root: /srv/other}\nlayers: [sd, start]\ntags: [one]\n"


@pytest.fixture
def locked(project: Project) -> Project:
    """A project with two images."""
    models = {"sd.safetensors": safetensors(BIG, seed=1), "ink.safetensors": safetensors(BIG + 1, seed=2)}
    project.write({"layers/all.yaml": _LAYERS, "recipes/first.yaml": _FIRST, "recipes/second.yaml": _SECOND, **models})
    project.run("lock")
    return project


def test_archive_is_the_same_wherever_it_is_made(locked: Project, registry: Front, tmp_path: Path) -> None:
    other = locked.copy(tmp_path / "other")
    plan = locked.run("plan", "--to", "archive:images.tar", "--json").json
    pushed = locked.run("push", "archive:images.tar", "--json").json
    assert not plan["totals"]["present_bytes"]
    assert pushed["images"][0]["references"] == ["archive:images.tar:first:one", "archive:images.tar:first:two"]
    # Receipts are there now, in the lock and in the store: that changes nothing but the work.
    data = (locked.root / "images.tar").read_bytes()
    locked.run("push", "archive:images.tar")
    assert sha256((locked.root / "images.tar").read_bytes()) == sha256(data)
    other.run("push", f"{registry.host}/{registry.prefix}", "first")
    other.run("push", "--no-store", "archive:images.tar")
    assert sha256((other.root / "images.tar").read_bytes()) == sha256(data)
    assert len(data) < 2 * BIG + 200_000, "weights are in it once"
    found = json.loads(call("skopeo", "inspect", f"oci-archive:{locked.root}/images.tar:second:one"))
    assert found["Digest"] == pushed["images"][1]["digest"]


def test_image_that_fails_is_not_in_the_archive(locked: Project) -> None:
    (locked.root / "ink.safetensors").write_bytes(b"something else")
    locked.run("push", "archive:images.tar", check=False).failed(1, "first", "ink")
    call("skopeo", "inspect", f"docker-archive:{locked.root}/images.tar:second:one")
    assert b"first:one" not in (locked.root / "images.tar").read_bytes()
    locked.run("push", "archive:none.tar", "first", check=False).failed(1, "ink")
    assert not list(locked.root.glob("*none*"))


def test_file_that_is_no_archive_is_left_alone(locked: Project) -> None:
    before = locked.lockfile.read_bytes()
    locked.run("push", "archive:lockfile.yaml", check=False).failed(1, "is not an archive")
    assert locked.lockfile.read_bytes() == before
