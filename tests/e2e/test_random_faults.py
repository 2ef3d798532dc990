"""Random scripts of faults over pushes of several images: what holds for one fault holds for all together."""

from __future__ import annotations

import random

import pytest

from fixtures import faultproxy as faults
from fixtures.faultproxy import Fault
from fixtures.scene import MANIFESTS, PLACES, Scene


def _fault(numbers: random.Random, sizes: dict[str, int]) -> Fault:
    return numbers.choice(
        [
            faults.cut_request(numbers.choice([0, 1, 100, 20_000, 200_000])),
            faults.cut_answer(numbers.randrange(400)),
            faults.lost_answer(),
            faults.status(numbers.choice([200, 202, 204, 400, 403, 404, 408, 416, 418, 500, 502, 503, 504])),
            faults.status(429, {"Retry-After": numbers.choice(["0", "soon", "-1", "86400"])}),
            faults.status(201, {"Docker-Content-Digest": f"sha256:{'0' * 64}"}),
            faults.flipped(numbers.randrange(400)),
            faults.shortened(numbers.randrange(400)),
            faults.dripping(block=100, pause=0.001),
            faults.refused_mount(),
            faults.lying_head(sizes),
            faults.redirected("http://127.0.0.1:9"),
        ]
    )


@pytest.mark.parametrize("seed", range(12))
def test_any_faults(scene: Scene, seed: int) -> None:
    numbers = random.Random(seed)
    for _ in range(2):
        for _ in range(numbers.randrange(1, 7)):
            method, pattern = numbers.choice(PLACES)
            skip, times = numbers.randrange(8), numbers.choice([1, 1, 2, 4, 1000])
            if (method, pattern) == ("PUT", MANIFESTS):
                skip %= 4
            scene.proxy.on(method, pattern, _fault(numbers, scene.sizes), skip=skip, times=times)
            if numbers.random() < 0.1:
                scene.proxy.on(method, pattern, faults.silence(asked=numbers.random() < 0.5), skip=skip)
        result = scene.push()
        assert "defect" not in result.err and "Traceback" not in result.err, result
    scene.recovers()
