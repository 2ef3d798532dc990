"""The first build of a checkpoint, which takes two digests, beside one sha256 of the same warm file.

`whole` is the command; `start` the same command on a file of next to nothing. The difference is the pass.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import harness
import weights
from ours import Project, local
from parts.bench import Bench, in_turn, run_step
from peers import Peer, Step, Steps
from results import Part, Run

_SCRIPT = Path(__file__).resolve().parents[1] / "onesha.py"
_SMALL = 64 * 1024

Files = Mapping[str, Path]
"""Step -> the file that is hashed in it."""


def run(bench: Bench) -> dict[str, Part]:
    """Who comes first changes from round to round."""
    with bench.room("hash") as root:
        files = {"whole": root / "models/model.safetensors", "start": root / "models/small.safetensors"}
        bench.say("writing the model")
        for title, size in (("whole", bench.size), ("start", _SMALL)):
            weights.model(files[title], size)
        projects = {t: Project.create(root / t, local(file), "one", root / "store") for t, file in files.items()}
        peers: list[Peer] = [OneSha(files), FirstBuild(files, projects)]

        def once(peer: Peer) -> dict[str, Run]:
            with bench.room("room") as room:
                return {step.title: run_step(step, room) for step in peer.steps("", room)}

        return {"hashing": in_turn(bench, peers, once)}


class OneSha:
    """hashlib, one thread, one buffer."""

    name = "one sha256"
    ours = True

    def __init__(self, files: Files) -> None:
        self._files = files

    def missing(self) -> str | None:
        """See `peers.Peer`."""
        return None

    def steps(self, host: str, room: Path) -> Steps:
        """One pass over each file."""
        del host, room
        for title, file in self._files.items():
            command = [sys.executable, "-I", "-S", str(_SCRIPT), str(file)]
            yield Step(title=title, commands=[command], environment=dict(os.environ), inputs=[file])


class FirstBuild:
    """`build` with the lock and an empty store: the file's own digest, held against the lock, and the tar's."""

    name = "layerbuild build"
    ours = True

    def __init__(self, files: Files, projects: Mapping[str, Project]) -> None:
        self._files = files
        self._projects = projects

    def missing(self) -> str | None:
        """See `peers.Peer`."""
        return None

    def steps(self, host: str, room: Path) -> Steps:
        """A build of each project."""
        del host
        for title, project in self._projects.items():
            project.reset()
            environment = harness.layerbuild_environment(room / title)
            command = project.command("build")
            yield Step(title=title, commands=[command], environment=environment, inputs=[self._files[title]])
