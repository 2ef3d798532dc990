"""Pushes to registries with other habits than docker-registry's."""

from __future__ import annotations

import re

import pytest

from fixtures.habits import HABITS, absolute
from fixtures.inprocess import Run
from fixtures.project import Result
from fixtures.several import NAMES, Several, tagged
from fixtures.specregistry import SpecRegistry
from fixtures.wholeness import registry_images
from layerbuild.http import Policy

_QUICK = Policy(retries=2, backoff=0.001)


class Scene:
    """A project, and a registry with habits."""

    def __init__(self, several: Several, registry: SpecRegistry, run: Run) -> None:
        self.project, self.digests, self.registry, self._run = several.project, several.digests, registry, run

    def push(self) -> Result:
        destination = f"{self.registry.host}/{self.registry.prefix}"
        result = self._run(self.project, "push", destination, "--json", policy=_QUICK)
        assert result.code == 0, result
        port = self.registry.server_address[1]
        images = registry_images(port, [f"{self.registry.prefix}/{name}" for name in NAMES])
        assert images == tagged(f"{self.registry.prefix}/", self.digests)
        return result


@pytest.fixture
def scene(several: Several, spec_registry: SpecRegistry, run: Run) -> Scene:
    return Scene(several, spec_registry, run)


@pytest.mark.parametrize("name", HABITS)
def test_images_arrive(scene: Scene, name: str) -> None:
    registry = scene.registry
    registry.switches.habits = [HABITS[name]]
    scene.push()
    received = registry.received()
    assert scene.push().json["uploaded_bytes"] == 0
    assert registry.received() == received
    # Another image that shares nothing by its manifest asks for each blob.
    registry.tags.clear()
    assert scene.push().json["uploaded_bytes"] < 4096, "configs, and no layer"
    assert not [seen for seen in registry.seen if "cookie" in seen.headers]


def test_an_absolute_address(scene: Scene) -> None:
    scene.registry.switches.habits = [absolute(scene.registry.url)]
    scene.push()


def test_all_at_once(scene: Scene) -> None:
    registry = scene.registry
    apart = {"an address relative to the request", "204 for a manifest"}
    registry.switches.habits = [habit for name, habit in HABITS.items() if name not in apart]
    scene.push()


@pytest.mark.parametrize("name", [name for name in HABITS if re.search("session|Range|address|chunks|HTTP", name)])
def test_uploads_that_break(scene: Scene, name: str) -> None:
    registry = scene.registry
    registry.switches.habits = [HABITS[name]]
    registry.switches.cuts = [None, 20_000, 5, None, 30_000]
    scene.push()
    assert registry.switches.cuts == []


def test_a_registry_that_hides_what_does_not_exist(scene: Scene) -> None:
    """Before the first push there is no repository, and a token to pull from it is refused."""
    scene.registry.switches.secret = scene.registry.switches.hides = True
    destination = f"{scene.registry.host}/{scene.registry.prefix}"
    result = scene._run(scene.project, "push", destination, policy=_QUICK)
    assert result.code == 0, result
    assert len(scene.registry.tags) == 6
