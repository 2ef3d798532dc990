"""What the parts share: a scratch directory, the size of things, and one step after the other."""

from __future__ import annotations

import contextlib
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import harness
from harness import Failed
from peers import Peer, Step
from results import Case, Run, together


@dataclass(frozen=True, kw_only=True)
class Bench:
    """How much is measured, and where. `size` is the model's, in bytes."""

    root: Path
    size: int
    rounds: int

    def say(self, text: str) -> None:
        """What is being done, to whoever waits."""
        print(text, file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def room(self, name: str) -> Iterator[Path]:
        """A directory that is empty, and gone afterwards."""
        path = self.root / name
        path.mkdir()
        try:
            yield path
        finally:
            shutil.rmtree(path)


def run_step(step: Step, cwd: Path) -> Run:
    """A step's commands one after the other.

    Raises:
        Failed: one ended with an error.
    """
    harness.warm(step.inputs)
    return together([harness.measure(c, environment=step.environment, cwd=cwd) for c in step.commands])


def in_turn(bench: Bench, peers: Sequence[Peer], once: Callable[[Peer], dict[str, Run]]) -> dict[str, Case]:
    """Every peer once in each round; who comes first changes. One that fails says why, and is not tried again."""
    runs: dict[str, dict[str, list[Run]]] = {peer.name: {} for peer in peers}
    missing = {peer.name: why for peer in peers if (why := peer.missing())}
    for number in range(bench.rounds):
        first = number % len(peers)
        for peer in (*peers[first:], *peers[:first]):
            if peer.name in missing:
                continue
            bench.say(f"round {number + 1} of {bench.rounds}: {peer.name}")
            try:
                found = once(peer)
            except Failed as error:
                if peer.ours:
                    raise
                missing[peer.name] = reason(error)
                bench.say(f"{peer.name} cannot be tried here: {error}")
                continue
            for title, run in found.items():
                runs[peer.name].setdefault(title, []).append(run)
    return {
        peer.name: Case(missing=missing[peer.name]) if peer.name in missing else Case(steps=runs[peer.name])
        for peer in peers
    }


def reason(error: Failed) -> str:
    """How a command ended and the last of what it said, on one line and without the paths of this machine."""
    text = ": ".join([f"it {error.how}", *error.output.strip().splitlines()[-1:]])
    return re.sub(r"(?<![\w.])/[\w./-]+", "PATH", text)[:200]
