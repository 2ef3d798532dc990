"""How many bytes a registry gets that keeps what arrived of a body: over breaks and kills, few of them twice."""

from __future__ import annotations

import random
import signal
import subprocess
import sys

import pytest

from fixtures.project import Project
from fixtures.several import NAMES, declare, tagged
from fixtures.specregistry import SpecRegistry
from fixtures.wholeness import registry_images

_SIZE = 40 << 20


@pytest.fixture
def digests(project: Project) -> dict[str, str]:
    """Three images that share a layer of 40 MiB."""
    return declare(project, size=_SIZE)


@pytest.mark.parametrize("seed", range(3))
def test_breaks_and_kills(project: Project, digests: dict[str, str], spec_registry: SpecRegistry, seed: int) -> None:
    numbers, switches = random.Random(seed), spec_registry.switches
    switches.stall = 0.001
    command = [sys.executable, "-m", "layerbuild", "push", f"{spec_registry.host}/{spec_registry.prefix}"]
    for moment in sorted(numbers.randrange(_SIZE * 9 // 10) for _ in range(3)):
        switches.cuts = [numbers.choice([None, numbers.randrange(_SIZE)]) for _ in range(3)]
        with subprocess.Popen(command, cwd=project.root, env=project.environ, stderr=subprocess.DEVNULL) as process:
            spec_registry.wait_for(moment)
            process.send_signal(signal.SIGKILL)
        assert _images(spec_registry).items() <= tagged(f"{spec_registry.prefix}/", digests).items()
    switches.stall = 0
    switches.cuts = [numbers.randrange(_SIZE) for _ in range(2)]
    project.run("push", command[-1])
    assert _images(spec_registry) == tagged(f"{spec_registry.prefix}/", digests)
    needed = sum({digest: len(data) for (_, digest), data in spec_registry.blobs.items()}.values())
    assert needed > _SIZE
    assert spec_registry.received() <= 1.1 * needed


def _images(registry: SpecRegistry) -> dict[str, str]:
    return registry_images(registry.server_address[1], [f"{registry.prefix}/{name}" for name in NAMES])
