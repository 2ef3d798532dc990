"""Peak memory with a model of 10 GiB, whose file takes no room on the disk."""

from __future__ import annotations

import harness
import weights
from ours import Project, local
from parts.bench import Bench, run_step
from peers import Step
from results import Case, Part

SIZE = 10 * 1024**3


def run(bench: Bench) -> dict[str, Part]:
    """One build with an empty store. The peak does not vary, and so is not taken three times."""
    with bench.room("memory") as root:
        model = root / "models" / "model.safetensors"
        size = min(SIZE, 5 * bench.size)
        weights.sparse(model, size)
        bench.say(f"a model of {size / 1024**3:.1f} GiB")
        project = Project.create(root / "project", local(model), "one", root / "store-lock")
        environment = harness.layerbuild_environment(root / "store")
        step = Step(title="build", commands=[project.command("build")], environment=environment)
        case = Case(steps={step.title: [run_step(step, root)]}, facts={"size": size})
    return {"memory": {"layerbuild build": case}}
