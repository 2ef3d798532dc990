"""Ctrl-C: one line, exit code 130, and the next run goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from e2e.readers import layout_manifests, sha256, tags
from fixtures.project import BIG, Project, Result, safetensors
from fixtures.registry import Front
from fixtures.web import Answer, Asked, Web

_RECIPE = "name: worker\nwebui: {root: /webui}\nlayers: [sd]\ntags: [v1]\n"
_MODEL = safetensors(BIG, {"a": "b"})


@pytest.fixture
def gate() -> threading.Event:
    """Set when a server may go on."""
    return threading.Event()


def _interrupted(result: Result) -> None:
    assert result.code == 130, result
    lines = [line for line in result.err.splitlines() if line.strip()]
    assert len(lines) == 1 and lines[0].startswith("interrupted"), result


def _declare(project: Project, source: str) -> None:
    declaration = f"sd: {{kind: model, type: checkpoint, source: '{source}'}}\n"
    project.write({"layers/l.yaml": declaration, "recipes/r.yaml": _RECIPE})


def _held(web: Web, gate: threading.Event, hold: Callable[[], bool]) -> None:
    """A server that, while `hold` says so, does not answer before the gate opens."""

    def answer(asked: Asked) -> Answer:
        if hold():
            gate.wait(60)
        return Answer(body=_MODEL)

    web.handle("/", answer)


def test_in_the_middle_of_lock(project: Project, web: Web, gate: threading.Event) -> None:
    _held(web, gate, lambda: not gate.is_set())
    _declare(project, f"{web.url}/sd.safetensors")
    try:
        _interrupted(project.interrupt("lock", when=lambda: bool(web.requests)))
    finally:
        gate.set()
    assert not project.lockfile.exists()
    project.run("lock")


def test_in_the_middle_of_a_download(project: Project, web: Web, gate: threading.Event) -> None:
    gate.set()
    _held(web, gate, lambda: not gate.is_set())
    _declare(project, f"{web.url}/sd.safetensors")
    layer = f"sd:\n  kind: model\n  type: checkpoint\n  source: {web.url}/sd.safetensors\n"
    project.write({"layers/l.yaml": f"{layer}  sha256: {sha256(_MODEL)}\n  size: {len(_MODEL)}\n"})
    project.run("lock")
    before = project.lockfile.read_bytes()
    asked = len(web.requests)
    gate.clear()
    try:
        _interrupted(project.interrupt("push", "oci:out", when=lambda: len(web.requests) > asked))
    finally:
        gate.set()
    assert project.lockfile.read_bytes() == before
    assert layout_manifests(project.root / "out") == {} and project.stored_files() == {}
    project.run("push", "oci:out")
    assert set(layout_manifests(project.root / "out")) == {"worker:v1"}


def test_in_the_middle_of_an_upload(project: Project, registry: Front, gate: threading.Event) -> None:
    project.write({"sd.safetensors": _MODEL})
    _declare(project, "file:sd.safetensors")
    project.run("lock")
    project.run("build")

    def hold(status: int, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        gate.wait(60)
        return status, headers, body

    registry.rule("PUT", "/blobs/uploads/", edit=hold, times=99)
    try:
        destination = f"{registry.host}/{registry.prefix}"
        result = project.interrupt("push", destination, when=lambda: bool(registry.requests("PUT")))
    finally:
        gate.set()
    _interrupted(result)
    assert tags(registry.root, f"{registry.prefix}/worker") == []
    registry.rules.clear()
    project.run("push", destination)
    assert tags(registry.root, f"{registry.prefix}/worker") == ["v1"]
    project.run("lock", "--check")
