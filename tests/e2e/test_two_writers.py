"""Two processes that push at once: into one layout, or the same images to one registry."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from e2e.readers import call
from fixtures.project import Project
from fixtures.registry import Front
from fixtures.several import NAMES, Several, declare, tagged
from fixtures.wholeness import layout_images, registry_images


def _at_once(*commands: tuple[Project, tuple[str, ...]]) -> None:
    """Runs commands in processes of their own, all of which must succeed."""
    running = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "layerbuild", *arguments],
            cwd=project.root,
            env=project.environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for project, arguments in commands
    ]
    for process in running:
        _, err = process.communicate(timeout=120)
        lines = [line for line in err.decode().splitlines() if not line.startswith("waiting for another layerbuild")]
        assert (process.returncode, lines) == (0, []), err.decode()


@pytest.fixture
def other(several: Several, tmp_path: Path) -> Project:
    """The same project with another store."""
    return several.project.copy(tmp_path / "other")


@pytest.mark.parametrize("round_", range(3))
def test_the_same_images_into_one_layout(several: Several, other: Project, tmp_path: Path, round_: int) -> None:
    push = ("push", f"oci:{tmp_path / 'out'}")
    _at_once(*[(project, push) for project in (several.project, other, several.project)])
    assert layout_images(tmp_path / "out") == tagged("", several.digests)
    assert not list((tmp_path / "out").rglob(".layerbuild-*"))


def test_different_images_into_one_layout(several: Several, other: Project, tmp_path: Path) -> None:
    out = tmp_path / "out"
    _at_once(*[(project, ("push", f"oci:{out}", name)) for project in (several.project, other) for name in NAMES])
    assert layout_images(out) == tagged("", several.digests)
    for name in NAMES:
        call("skopeo", "inspect", f"oci:{out}:{name}:latest")


def test_images_of_two_projects_into_one_layout(several: Several, project: Project, tmp_path: Path) -> None:
    """They share a name and a tag: the last one has it, and every other tag stays."""
    files = {"layers/l.yaml": "x: {kind: files, files: {/x: {content: x}}}\n"}
    project.write({**files, "recipes/r.yaml": "name: a\nlayers: [x]\ntags: [v1, mine]\n"}).run("lock")
    project.run("build")
    out = tmp_path / "out"
    _at_once(*[(writer, ("push", f"oci:{out}")) for writer in (several.project, project)])
    found, mine = layout_images(out), project.lock["images"]["a"]["manifest"]
    wanted = {**tagged("", several.digests), "a:mine": mine}
    assert found in ({**wanted, "a:v1": mine}, wanted)


def test_the_same_images_to_one_registry(several: Several, other: Project, registry: Front) -> None:
    push = ("push", f"{registry.host}/{registry.prefix}")
    _at_once(*[(project, push) for project in (several.project, other, several.project)])
    repositories = [f"{registry.prefix}/{name}" for name in NAMES]
    assert registry_images(registry.backend.port, repositories) == tagged(f"{registry.prefix}/", several.digests)


def test_a_large_layer_of_one_store_goes_once(project: Project, registry: Front) -> None:
    digests = declare(project, size=20 << 20)
    push = ("push", f"{registry.host}/{registry.prefix}")
    _at_once(*[(project, push)] * 2)
    repositories = [f"{registry.prefix}/{name}" for name in NAMES]
    assert registry_images(registry.backend.port, repositories) == tagged(f"{registry.prefix}/", digests)
    large = [record for record in registry.requests("PUT", "/uploads/") if record.received > 1 << 20]
    assert len(large) == 1
