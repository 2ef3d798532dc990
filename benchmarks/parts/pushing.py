"""Build and first push of one large model, and then a second image that shares it; time, memory and bytes."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

import harness
import weights
from fileserver import serving
from ours import all_ways
from parts.bench import Bench, in_turn, run_step
from peers import Buildah, Curl, Oras, Peer, Skopeo, Umoci, Work
from proxy import Counter, counting
from results import Part, Run

LEAST = 32 * 1024 * 1024
"""Bytes of a model that is surely in a layer of its own."""


def run(bench: Bench) -> dict[str, Part]:
    """Rounds that are timed; and one through a counting proxy, for which a smaller model does as well."""
    bench.say("push: rounds that are timed")
    timed = rounds(bench)
    bench.say("push: once more, to count what is sent")
    counting_bench = dataclasses.replace(bench, rounds=1, size=max(bench.size // 4, LEAST))
    counted = {
        name: dataclasses.replace(case, facts={"size": counting_bench.size})
        for name, case in rounds(counting_bench, count=True).items()
    }
    return {"push": timed, "bytes": counted}


def rounds(bench: Bench, *, count: bool = False) -> Part:
    """Everybody in turn, on a model of the bench's size."""
    with bench.room("push") as root:
        model = root / "models" / "model.safetensors"
        weights.model(model, bench.size)
        with serving(model) as url:
            return in_turn(bench, everybody(root, model, url), lambda peer: once(bench, peer, count=count))


def everybody(root: Path, model: Path, url: str) -> list[Peer]:
    """layerbuild and its peers. The floor comes first."""
    work = Work(model.parent, model)
    return [Curl(work), *all_ways(root, model, url), Skopeo(work), Oras(work), Umoci(work), Buildah(work)]


def once(bench: Bench, peer: Peer, *, count: bool = False) -> dict[str, Run]:
    """A peer's steps on an empty registry."""
    found: dict[str, Run] = {}
    with (
        bench.room("room") as room,
        harness.registry(bench.root) as host,
        counting(host) if count else contextlib.nullcontext(Counter(host=host)) as front,
        contextlib.closing(peer.steps(front.host, room)) as steps,
    ):
        for step in steps:
            before = front.sent
            taken = run_step(step, room)
            found[step.title] = dataclasses.replace(taken, sent=front.sent - before if count else None)
    return found
