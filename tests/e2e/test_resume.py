"""A push that ends in the middle of a large layer: the next one sends only what is missing of it."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from fixtures.project import Project, safetensors
from fixtures.specregistry import SpecRegistry

_MODEL = safetensors(40 << 20, {"a": "b"}, seed=1)
_HALF = 20 << 20


@pytest.fixture
def built(project: Project) -> Project:
    """A checkpoint whose layer's digest is known."""
    project.write(
        {
            "sd.safetensors": _MODEL,
            "layers/l.yaml": "sd: {kind: model, type: checkpoint, source: 'file:sd.safetensors'}\n",
            "recipes/r.yaml": "name: worker\nwebui: {root: /webui}\nlayers: [sd]\ntags: [v1]\n",
        }
    ).run("lock")
    project.run("build")
    return project


def _at(registry: SpecRegistry) -> str:
    return f"{registry.host}/{registry.prefix}"


def _kill(project: Project, registry: SpecRegistry) -> None:
    command = [sys.executable, "-m", "layerbuild", "push", _at(registry)]
    with subprocess.Popen(command, cwd=project.root, env=project.environ, stderr=subprocess.DEVNULL) as process:
        registry.wait_for(_HALF)
        os.kill(process.pid, signal.SIGKILL)


def _interrupt(project: Project, registry: SpecRegistry) -> None:
    assert project.interrupt("push", _at(registry), when=lambda: registry.received() >= _HALF).code == 130


@pytest.mark.parametrize("end", [_kill, _interrupt])
def test_the_next_run_sends_what_is_missing(
    built: Project, spec_registry: SpecRegistry, end: Callable[[Project, SpecRegistry], None]
) -> None:
    spec_registry.switches.stall = 0.002
    end(built, spec_registry)
    assert spec_registry.blobs == {}, "it was in the middle"
    (kept,) = (built.store / "uploads").iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600
    spec_registry.switches.stall = 0
    before = spec_registry.received()
    done = built.run("push", _at(spec_registry))
    assert _HALF <= before < len(_MODEL)
    # In all: the layer once, and a few small blobs.
    assert spec_registry.received() < len(_MODEL) + 64 * 1024
    assert spec_registry.statuses("PATCH") == [202]
    assert list((built.store / "uploads").iterdir()) == []
    _, manifest = spec_registry.manifests[f"{spec_registry.prefix}/worker", _digest(spec_registry)]
    assert hashlib.sha256(manifest).hexdigest() in done.out
    for (_, digest), data in spec_registry.blobs.items():
        assert f"sha256:{hashlib.sha256(data).hexdigest()}" == digest


def _digest(registry: SpecRegistry) -> str:
    return registry.tags[f"{registry.prefix}/worker", "v1"]


def test_no_address_is_shown(built: Project, spec_registry: SpecRegistry) -> None:
    spec_registry.switches.cuts = [_HALF, *[0] * 5]
    failed = built.run("push", _at(spec_registry), check=False).failed(1, "cannot be reached")
    (kept,) = (built.store / "uploads").iterdir()
    session = kept.read_text().strip().rpartition("/")[2]
    assert session in spec_registry.sessions
    assert session not in failed.err + failed.out
    assert session not in built.lockfile.read_text()


def test_two_runs_send_it_once(built: Project, spec_registry: SpecRegistry) -> None:
    spec_registry.switches.stall = 0.001
    results = []
    runs = [threading.Thread(target=lambda: results.append(built.run("push", _at(spec_registry)))) for _ in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert [result.code for result in results] == [0, 0]
    assert spec_registry.received() < len(_MODEL) + 64 * 1024
