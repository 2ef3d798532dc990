"""Several large layers to one docker-registry, whose own hashing is the limit: are its cores busy?

    python benchmarks/parallelpush.py
    python benchmarks/parallelpush.py --layers 8 --size 256MiB --rounds 3

One image of several models is pushed to an empty registry: with its layers known, as layerbuild does it and one
layer at a time, and in one pass, when nobody knows them yet. Shown are seconds, and how many cores the registry
and layerbuild used on the average. Then the image is pushed again as it is, and under a tag that is not there
yet: how many requests that takes, and how many bytes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import harness
import weights
from proxy import counting
from run import size_of

_RECIPE = "name: many\nbase: scratch\nwebui: {{root: /webui}}\nlayers: [{layers}]\ntags: [{tag}]\n"
_ONE_BY_ONE = "import layerbuild.execute.mover as m; m.PARALLEL = 1; from layerbuild.cli.main import main; main()"
_SMALL = 40
"""Layers of the image that is pushed again."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--size", type=size_of, default="256MiB", help="of each model")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was measured there as well")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="layerbuild-bench-") as name:
        found = run(Path(name), arguments.layers, arguments.size, arguments.rounds)
        found["again"] = again(Path(name) / "again")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")
    print(report(found))


def run(root: Path, layers: int, size: int, rounds: int) -> dict[str, Any]:
    """What each way of pushing takes, round by round: seconds, and CPU seconds of both sides."""
    project = root / "project"
    names = [f"m{number}" for number in range(layers)]
    models = [root / "models" / f"{name}.safetensors" for name in names]
    for number, model in enumerate(models):
        weights.model(model, size, seed=number)
    declared = {
        name: {"kind": "model", "type": "checkpoint", "source": f"file:{model}"}
        for name, model in zip(names, models, strict=True)
    }
    _write(project, declared, "v1")
    known = harness.layerbuild_environment(root / "store")
    harness.measure(harness.layerbuild("lock"), environment=known, cwd=project)
    lock = (project / "lockfile.yaml").read_text()
    harness.measure(harness.layerbuild("build"), environment=known, cwd=project)
    receipts = (project / "lockfile.yaml").read_text()
    usual = harness.layerbuild("push")
    ways = {
        "four at a time": (receipts, usual, "store"),
        "one at a time": (receipts, [sys.executable, "-c", _ONE_BY_ONE, "--quiet", "push"], "store"),
        "in one pass": (lock, usual, "empty-{}"),
    }
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for number in range(rounds):
        for name, (locked, command, store) in ways.items():
            (project / "lockfile.yaml").write_text(locked)
            harness.warm(models)
            environment = harness.layerbuild_environment(root / store.format(number))
            with harness.registry_process(root) as (host, process):
                before = _cpu(process)
                taken = harness.measure([*command, host], environment=environment, cwd=project)
                rows[name].append(
                    {"seconds": taken.seconds, "cpu": taken.cpu, "peak": taken.peak, "registry": _cpu(process) - before}
                )
    return {"layers": layers, "size": size, "cores": len(os.sched_getaffinity(0)), "rows": rows}


def again(root: Path) -> dict[str, Any]:
    """Requests and bytes of pushing an image of 40 layers that is there."""
    declared: dict[str, Any] = {
        f"f{number}": {"kind": "files", "files": {f"/opt/{number}": {"content": str(number)}}}
        for number in range(_SMALL)
    }
    _write(root, declared, "v1")
    environment = harness.layerbuild_environment(root / "store")
    found = {}
    with harness.registry(root) as host, counting(host) as counter:
        for name, tag in (("first", "v1"), ("unchanged", "v1"), ("another tag", "v2")):
            _write(root, declared, tag)
            harness.measure(harness.layerbuild("lock"), environment=environment, cwd=root)
            requests, sent = counter.requests, counter.sent
            harness.measure(harness.layerbuild("push", counter.host), environment=environment, cwd=root)
            found[name] = {"requests": counter.requests - requests, "sent": counter.sent - sent}
    return found


def _write(project: Path, declared: dict[str, Any], tag: str) -> None:
    for name, text in {
        "layers/many.yaml": json.dumps(declared),
        "recipes/many.yaml": _RECIPE.format(layers=", ".join(declared), tag=tag),
    }.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text)


def _cpu(process: int) -> float:
    """Seconds of processor that it has used, in all its threads (proc(5): utime and stime)."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def report(found: dict[str, Any]) -> str:
    """A row for each way, and one for each push of the image that is there."""
    rows = []
    alone = statistics.median(row["seconds"] for row in found["rows"]["one at a time"])
    for name, runs in found["rows"].items():
        seconds = statistics.median(run["seconds"] for run in runs)
        registry = statistics.median(run["registry"] / run["seconds"] for run in runs)
        both = statistics.median((run["registry"] + run["cpu"]) / run["seconds"] for run in runs)
        peak = max(run["peak"] for run in runs)
        ratio = f"{seconds / alone:.2f}"
        rows.append([name, f"{seconds:.1f} s", ratio, f"{registry:.2f}", f"{both:.2f}", f"{peak / 1024**2:.0f} MiB"])
    title = f"{found['layers']} layers of {found['size'] / 1024**2:.0f} MiB, {found['cores']} cores"
    pushes = harness.table([title, "time", "ratio", "registry", "with layerbuild", "memory"], rows)
    counted = [[name, str(row["requests"]), f"{row['sent'] / 1024:.1f} KiB"] for name, row in found["again"].items()]
    return f"{pushes}\n\n{harness.table(['40 layers', 'requests', 'sent'], counted)}"


if __name__ == "__main__":
    main()
