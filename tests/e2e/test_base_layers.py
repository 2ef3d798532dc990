"""Layers of a base image on their way from one registry to another: streams, checked, and kept nowhere here."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fixtures import faultproxy as faults
from fixtures.faultproxy import Fault, FaultProxy
from fixtures.inprocess import HASTY, Run
from fixtures.project import Project, Result
from fixtures.registry import Front, Image, make_image
from fixtures.scene import FOR_EVER
from fixtures.several import NAMES, declare, tagged
from fixtures.wholeness import registry_images
from layerbuild import http
from layerbuild.registry.client import RegistryClient

_TAR = "application/vnd.oci.image.layer.v1.tar"
_LARGE = random.Random(8).randbytes(3_000_000)


@dataclass(kw_only=True)
class Scene:
    """A base in one registry, behind a proxy; images above it; another registry that they go to."""

    base: Image
    project: Project
    digests: dict[str, str]
    proxy: FaultProxy
    source: Front
    target: Front
    run: Run

    def push(self, *arguments: str) -> Result:
        result = self.run(self.project, "push", f"{self.target.host}/{self.target.prefix}", *arguments, policy=HASTY)
        shown = self.shown()
        wanted = tagged(f"{self.target.prefix}/", self.digests)
        assert shown.items() <= wanted.items() and (shown == wanted or result.code == 1)
        return result

    def shown(self) -> dict[str, str]:
        return registry_images(self.target.backend.port, [f"{self.target.prefix}/{name}" for name in NAMES])

    def fails(self, *words: str) -> None:
        self.push().failed(1, *words)
        assert self.proxy.struck()
        self.proxy.calm()
        assert self.push().code == 0


@pytest.fixture
def scene(project: Project, registry: Front, other_registry: Front, proxied: FaultProxy, run: Run) -> Scene:
    base = make_image([(_TAR, _LARGE), (_TAR, _LARGE[:50_000])])
    repository = f"{registry.prefix}/base"
    client = RegistryClient(registry.host, client=http.Client(), environ={})
    for blob in base.blobs:
        client.upload_blob(repository, blob, advance=lambda amount: None)
    client.put_manifest(repository, "1", base.media_type, base.manifest)
    digests = declare(project, base=f"{proxied.host}/{repository}:1", run=run)
    proxied.calm()
    return Scene(
        base=base,
        project=project,
        digests=digests,
        proxy=proxied,
        source=registry,
        target=other_registry,
        run=run,
    )


def _files(*roots: Path) -> Iterator[bytes]:
    for root in roots:
        yield from (path.read_bytes() for path in root.rglob("*") if path.is_file())


def test_they_pass_through_and_stay_nowhere(scene: Scene) -> None:
    assert scene.push().code == 0
    assert len(scene.proxy.came("GET", "/blobs/")) == 2, "each layer is read once, for three images"
    for layer in scene.base.blobs[1:]:
        marks = [layer.data[start : start + 64] for start in (0, layer.size // 2, layer.size - 64)]
        for data in _files(scene.project.root, scene.project.store):
            assert not any(mark in data for mark in marks)


def test_on_the_same_registry_they_are_mounted(scene: Scene) -> None:
    found = scene.run(scene.project, "push", f"{scene.proxy.host}/{scene.source.prefix}")
    assert found.code == 0
    assert scene.proxy.came("GET", "/blobs/") == []
    mounts = scene.proxy.came("POST", "mount=.*from=.*base")
    assert len(mounts) == 6 and {mount.status for mount in mounts} == {201}
    images = registry_images(scene.source.backend.port, [f"{scene.source.prefix}/{name}" for name in NAMES])
    assert images == tagged(f"{scene.source.prefix}/", scene.digests)


@pytest.mark.parametrize("seed", range(3))
def test_a_download_that_breaks_off_goes_on(scene: Scene, seed: int) -> None:
    numbers = random.Random(seed)
    large = scene.base.blobs[1].digest
    for least, most in ((1_100_000, 1_900_000), (1, 900_000)):
        scene.proxy.on("GET", large, faults.cut_answer(numbers.randrange(least, most), reset=False))
    assert scene.push().code == 0
    first, *others = [request.headers.get("range", "bytes=0-") for request in scene.proxy.came("GET", large)]
    starts = [int(said.removeprefix("bytes=").removesuffix("-")) for said in others]
    assert first == "bytes=0-" and len(starts) == 2 and sorted(starts) == starts and starts[-1] > 0
    assert scene.target.uploaded() < len(_LARGE) + 1_000_000, "what had arrived was not sent again"


_TROUBLE: list[tuple[str, Fault]] = [
    ("silent", faults.silence(asked=True)),
    ("lost", faults.lost_answer()),
    ("503", faults.status(503)),
    ("429", faults.status(429, {"Retry-After": "0"})),
    ("slow", faults.dripping(block=100_000, pause=0.01)),
]


@pytest.mark.parametrize("fault", [fault for _, fault in _TROUBLE], ids=[name for name, _ in _TROUBLE])
def test_trouble_that_passes(scene: Scene, fault: Fault) -> None:
    scene.proxy.on("GET", "/blobs/", fault)
    assert scene.push().code == 0
    assert scene.proxy.struck() == 1


def test_a_download_that_breaks_off_again_and_again(scene: Scene) -> None:
    scene.proxy.on("GET", "/blobs/", faults.cut_answer(100), times=FOR_EVER)
    scene.fails("broke off")


@pytest.mark.parametrize("fault", [faults.flipped(1_500_000), faults.flipped(3_000_000), faults.shortened(40_000)])
def test_wrong_bytes_arrive_nowhere(scene: Scene, fault: Fault) -> None:
    scene.proxy.on("GET", "/blobs/", fault, times=FOR_EVER)
    scene.fails("is damaged", "digest")
    for blob in (scene.target.root / "docker/registry/v2/blobs/sha256").glob("*/*/data"):
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.parent.name
    assert len(scene.target.requests("DELETE", "/uploads/")) == 2, "both uploads were given up"


@pytest.mark.parametrize("place", ["/manifests/", "/blobs/"])
@pytest.mark.parametrize("name", ["flipped", "shortened"])
def test_documents_that_are_not_what_the_lock_says(scene: Scene, place: str, name: str, tmp_path: Path) -> None:
    """Read by their digests, on a machine that has not seen them."""
    scene.project.store = tmp_path / "empty"
    scene.project.environ["LAYERBUILD_STORE"] = str(scene.project.store)
    fault = faults.flipped(60) if name == "flipped" else faults.shortened(60)
    scene.proxy.on("GET", place, fault, times=FOR_EVER)
    scene.fails("damaged")
