"""Build and first push of one large model, and then a second image that shares it; time, memory and bytes."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import harness
import weights
from fileserver import serving
from ours import all_ways
from parts.bench import Bench, in_turn, run_step
from peers import Buildah, Curl, Oras, Peer, Skopeo, Umoci, Work
from proxy import Counter, counting
from results import Part, Run


def run(bench: Bench) -> dict[str, Part]:
    """Rounds that are timed, and one through a counting proxy."""
    with bench.room("push") as root:
        model = root / "models" / "model.safetensors"
        bench.say("writing the model")
        weights.model(model, bench.size)
        with serving(model) as url:
            return everything(bench, everybody(root, model, url))


def everything(bench: Bench, peers: Sequence[Peer]) -> dict[str, Part]:
    """The timed rounds, and the one that counts."""
    timed = in_turn(bench, peers, lambda peer: once(bench, peer))
    bench.say("once more, counting what is sent")
    able = [peer for peer in peers if timed[peer.name].missing is None]
    counted = in_turn(dataclasses.replace(bench, rounds=1), able, lambda peer: once(bench, peer, count=True))
    return {"push": timed, "bytes": {**timed, **counted}}


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
