"""kill -9 at any moment of a push: what is to be seen is whole, and the next run ends with the right images."""

from __future__ import annotations

import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from e2e.readers import call
from fixtures import faultproxy as faults
from fixtures.faultproxy import FaultProxy
from fixtures.project import Project
from fixtures.registry import Front
from fixtures.several import NAMES, Several, tagged
from fixtures.warmprocess import WarmProcesses
from fixtures.wholeness import archive_images, layout_images, registry_images

_KILLED = -9


def _moments(count: int, run: Callable[[], int], seed: int) -> list[float]:
    """Seconds after the start of a run, one in each of `count` equal parts of how long an undisturbed one takes."""
    took = []
    for _ in range(3):
        start = time.monotonic()
        assert run() == 0
        took.append(time.monotonic() - start)
    numbers = random.Random(seed)
    return [(part + numbers.random()) * statistics.median(took) / count for part in range(count)]


class _Fresh:
    """The project with the store as it was before its first push, each time."""

    def __init__(self, several: Several, directory: Path) -> None:
        self._several, self._directory, self._count = several, directory, 0

    def __call__(self) -> Project:
        self._count += 1
        return self._several.project.copy(self._directory / f"copy-{self._count}")


def test_of_a_push_to_a_registry(several: Several, registry: Front, warm: WarmProcesses, tmp_path: Path) -> None:
    fresh, count = _Fresh(several, tmp_path), 0

    def push(project: Project, kill_after: float | None = None) -> int:
        return warm.run(project, "push", f"{registry.host}/{prefix}", kill_after=kill_after)

    def undisturbed() -> int:
        nonlocal count, prefix
        count += 1
        prefix = f"{registry.prefix}/{count}"
        return push(fresh())

    prefix = ""
    killed = 0
    for moment in _moments(50, undisturbed, 1):
        count += 1
        prefix, project = f"{registry.prefix}/{count}", fresh()
        wanted = tagged(f"{prefix}/", several.digests)
        repositories = [f"{prefix}/{name}" for name in NAMES]
        killed += push(project, moment) == _KILLED
        found = registry_images(registry.backend.port, repositories)
        assert found.items() <= wanted.items()
        assert push(project) == 0
        assert registry_images(registry.backend.port, repositories) == wanted
    assert killed


@pytest.mark.parametrize("moment", ["before", "after"])
def test_at_every_tag(
    several: Several, registry: Front, proxied: FaultProxy, warm: WarmProcesses, tmp_path: Path, moment: str
) -> None:
    fresh = _Fresh(several, tmp_path)
    shown = []
    for number in range(6):
        prefix, project = f"{registry.prefix}/{number}", fresh()
        proxied.calm()
        fault = faults.both(warm.kill, faults.silence(asked=False)) if moment == "before" else faults.after(warm.kill)
        proxied.on("PUT", "/manifests/", fault, skip=number)
        assert warm.run(project, "push", f"{proxied.host}/{prefix}") == _KILLED
        wanted = tagged(f"{prefix}/", several.digests)
        repositories = [f"{prefix}/{name}" for name in NAMES]
        found = registry_images(registry.backend.port, repositories)
        assert found.items() <= wanted.items()
        shown.append(len(found))
        proxied.calm()
        assert warm.run(project, "push", f"{proxied.host}/{prefix}") == 0
        assert registry_images(registry.backend.port, repositories) == wanted
    assert len(set(shown)) > 1, "some were there, and some were not"


def test_of_a_real_process(several: Several, registry: Front, proxied: FaultProxy) -> None:
    """Without anything of the tests around it."""
    project, prefix = several.project, registry.prefix
    repositories = [f"{prefix}/{name}" for name in NAMES]
    wanted = tagged(f"{prefix}/", several.digests)
    for method, pattern in (("HEAD", "/blobs/"), ("PUT", "/uploads/"), ("PUT", "/manifests/")):
        proxied.calm()
        process: list[subprocess.Popen[bytes]] = []
        command = [sys.executable, "-m", "layerbuild", "push", f"{proxied.host}/{prefix}"]
        proxied.on(method, pattern, faults.after(lambda running=process: running[0].kill()), skip=2)
        process.append(subprocess.Popen(command, cwd=project.root, env=project.environ))
        assert process[0].wait(60) == _KILLED
        assert registry_images(registry.backend.port, repositories).items() <= wanted.items()
    proxied.calm()
    project.run("push", command[-1])
    assert registry_images(registry.backend.port, repositories) == wanted


def test_of_a_push_into_a_layout(several: Several, warm: WarmProcesses, tmp_path: Path) -> None:
    layouts = iter(tmp_path / f"out-{number}" for number in range(1000))
    wanted = tagged("", several.digests)

    def push(layout: Path, kill_after: float | None = None) -> int:
        return warm.run(several.project, "push", f"oci:{layout}", kill_after=kill_after)

    killed = 0
    for number, moment in enumerate(_moments(20, lambda: push(next(layouts)), 2)):
        layout = next(layouts)
        killed += push(layout, moment) == _KILLED
        found = layout_images(layout)
        assert found.items() <= wanted.items()
        for name in [name for name in found if number % 4 == 0]:
            call("skopeo", "inspect", f"oci:{layout}:{name}")
        assert push(layout) == 0
        assert layout_images(layout) == wanted
    assert killed


def test_of_a_push_into_an_archive(several: Several, warm: WarmProcesses, tmp_path: Path) -> None:
    file = tmp_path / "images.tar"
    wanted = tagged("", several.digests)

    def push(*names: str, kill_after: float | None = None) -> int:
        return warm.run(several.project, "push", f"archive:{file}", *names, kill_after=kill_after)

    older = tagged("", {"a": several.digests["a"]})
    killed = 0
    for moment in _moments(12, push, 3):
        assert push("a") == 0
        before = file.read_bytes()
        killed += push(kill_after=moment) == _KILLED
        assert file.read_bytes() == before or archive_images(file) == wanted
        assert archive_images(file) in (older, wanted)
    assert killed
    assert push() == 0
    assert archive_images(file) == wanted
    call("skopeo", "inspect", f"oci-archive:{file}:a:v1")
