"""Pushes of several images through a proxy that does harm, to the real docker-registry.

Whatever happens, a tag never shows an image that is not whole, and the next run ends with the right ones.
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from fixtures import faultproxy as faults
from fixtures.faultproxy import Fault, FaultProxy
from fixtures.registry import PASSWORD, TokenFront
from fixtures.scene import FOR_EVER, HEADS, MANIFESTS, PLACES, UPLOADS, Scene
from fixtures.several import declare

_TROUBLE: list[tuple[str, Fault]] = [
    ("lost", faults.lost_answer()),
    ("cut", faults.cut_request(7)),
    ("silent", faults.silence(asked=False)),
    ("silent-later", faults.silence(asked=True)),
    ("503", faults.status(503)),
    ("429", faults.status(429, {"Retry-After": "0"})),
    ("half-an-answer", faults.cut_answer(20)),
    ("slow", faults.dripping(block=200, pause=0.02)),
]


@pytest.mark.parametrize("fault", [fault for _, fault in _TROUBLE], ids=[name for name, _ in _TROUBLE])
def test_trouble_that_passes(scene: Scene, fault: Fault) -> None:
    for method, pattern in PLACES:
        scene.proxy.on(method, pattern, fault, skip=1)
    scene.survives()
    assert scene.proxy.struck() == len(PLACES)


def test_every_status_that_passes(scene: Scene) -> None:
    for number, (method, pattern) in enumerate(PLACES):
        for skip in (1, 4):
            code = (408, 429, 500, 502, 503, 504)[(number + skip) % 6]
            scene.proxy.on(method, pattern, faults.status(code, {"Retry-After": "0"}), skip=skip)
    scene.survives()


_STAYS = [
    *(("cut", *place) for place in PLACES),
    *(("503", *place) for place in PLACES if place[0] != "POST"),
    ("lost", "PUT", UPLOADS),
]
_SURVIVED = {
    ("lost", "PUT", UPLOADS),  # the blob is found there
    ("503", "HEAD", HEADS),  # what is not known to be there is sent
    ("503", "GET", MANIFESTS),
}
"""What stays, and is no reason to fail."""


@pytest.mark.parametrize(("name", "method", "pattern"), _STAYS, ids=lambda text: text.strip("/"))
def test_trouble_that_stays(scene: Scene, name: str, method: str, pattern: str) -> None:
    scene.proxy.on(method, pattern, dict(_TROUBLE)[name], skip=1, times=FOR_EVER)
    if (name, method, pattern) in _SURVIVED:
        scene.survives()
        scene.recovers()
    else:
        scene.fails()


def test_one_image_that_is_refused_does_not_stop_the_others(scene: Scene) -> None:
    scene.proxy.on("PUT", "/b/manifests/", faults.status(500), times=FOR_EVER)
    scene.fails("1 of 3 images failed", "b: ")


@pytest.mark.parametrize("seed", range(3))
def test_bodies_that_break_off_anywhere(scene: Scene, seed: int) -> None:
    numbers = random.Random(seed)
    for skip in range(6):
        scene.proxy.on("PUT", UPLOADS, faults.cut_request(numbers.randrange(300_000)), skip=skip)
    scene.push()
    assert scene.proxy.struck()
    scene.recovers()


def test_a_registry_that_takes_no_more_of_a_body(scene: Scene) -> None:
    """It is given up in the middle of a block, and the blob goes again."""
    scene.digests = declare(scene.project, size=12 << 20, run=scene.run)
    scene.proxy.on("PUT", UPLOADS, faults.stuck(100_000))
    scene.survives()
    assert scene.proxy.came("PUT", UPLOADS)[0].received < 12 << 20, "the largest goes first"


@pytest.fixture
def fresh(scene: Scene, tmp_path: Path) -> Scene:
    """A project with a large model of which nothing is known but its digest: hashed while it is sent."""
    scene.digests = declare(scene.project, size=17 << 20, run=scene.run)
    shutil.rmtree(scene.project.store)
    scene.project.edit_lock(lambda lock: lock.pop("receipts"))
    scene.project.run("lock", "--check")
    return scene


@pytest.mark.parametrize("name", ["lost", "cut", "silent", "503", "half-an-answer"])
def test_trouble_in_one_pass(fresh: Scene, name: str) -> None:
    fault = dict(_TROUBLE)[name]
    fresh.proxy.on("PATCH", UPLOADS, fault)
    fresh.proxy.on("PUT", "digest=", fault)
    fresh.survives()
    assert fresh.proxy.struck() == 2


def test_bodies_that_break_off_in_one_pass(fresh: Scene) -> None:
    fresh.proxy.on("PATCH", UPLOADS, faults.cut_request(9_000_000), times=FOR_EVER)
    fresh.fails("cannot be reached")


# --- mounts and what is there --------------------------------------------------------------------


def test_mounts_that_are_refused(scene: Scene) -> None:
    scene.proxy.on("POST", "mount=", faults.refused_mount(), times=FOR_EVER)
    scene.survives()
    opened = len(scene.proxy.came("POST", UPLOADS))
    assert opened == len(scene.proxy.came("PUT", UPLOADS)) + len(scene.proxy.came("DELETE", UPLOADS))


def test_a_refused_mount_that_leaves_no_session(scene: Scene) -> None:
    scene.proxy.on("POST", "mount=", faults.status(202), times=FOR_EVER)
    scene.survives()


def test_a_mount_that_lies(scene: Scene) -> None:
    """It says 201, and the blob is not there: the registry refuses the manifest, and is asked for every blob."""
    scene.proxy.on("POST", "mount=", faults.status(201), times=FOR_EVER)
    scene.survives()


def test_a_head_that_lies(scene: Scene) -> None:
    rule = scene.proxy.on("HEAD", HEADS, faults.lying_head(scene.sizes), times=FOR_EVER)
    scene.fails("refuses to store the manifest", "BLOB_UNKNOWN")
    scene.prefix += "/again"
    # Once, and then the truth: as if blobs had been removed meanwhile.
    scene.proxy.rules = [rule]
    rule.times = 12
    scene.survives()


@pytest.mark.parametrize("fault", [faults.shortened(100), faults.flipped(50), faults.cut_answer(100)])
def test_a_manifest_that_comes_back_damaged(scene: Scene, fault: Fault) -> None:
    """What a tag shows is looked at first, to save questions: without it, they are asked."""
    assert scene.push().code == 0
    scene.proxy.calm()
    scene.proxy.on("GET", MANIFESTS, fault, times=FOR_EVER)
    scene.survives()
    assert sum(passed.received for passed in scene.proxy.came("PUT", UPLOADS)) < 4096, "configs, and no layer"


# --- logins and other hosts ----------------------------------------------------------------------


@pytest.mark.parametrize("place", [("HEAD", HEADS), ("PUT", UPLOADS), ("PUT", MANIFESTS)], ids="-".join)
def test_tokens_that_end_in_the_middle(guarded: Scene, token_registry: TokenFront, place: tuple[str, str]) -> None:
    ended = faults.both(token_registry.forget, faults.asked)
    guarded.proxy.on(*place, ended, skip=1, times=2)
    result = guarded.survives()
    assert PASSWORD not in result.out + result.err


def test_redirects_take_no_token_along(guarded: Scene) -> None:
    assert guarded.push().code == 0
    with FaultProxy(guarded.port) as elsewhere:
        guarded.proxy.on("GET|HEAD", "sha256|/manifests/", faults.redirected(elsewhere.url), times=FOR_EVER)
        guarded.survives()
        guarded.prefix += "/again"
        guarded.survives()
        came = [passed for passed in elsewhere.passed if passed.method in ("GET", "HEAD")]
        assert {passed.method for passed in came} == {"GET", "HEAD"}
        assert not [passed for passed in elsewhere.passed if "authorization" in passed.headers]


@pytest.mark.parametrize("place", [("POST", UPLOADS), ("PUT", UPLOADS), ("PUT", MANIFESTS)], ids="-".join)
def test_what_is_sent_is_not_redirected(guarded: Scene, place: tuple[str, str]) -> None:
    with FaultProxy(guarded.port) as elsewhere:
        guarded.proxy.on(*place, faults.redirected(elsewhere.url), times=FOR_EVER)
        guarded.fails("307")
        assert elsewhere.passed == []
