"""Locking 1,000 single-file sources from 20 repositories of a Hub: requests by sort, CPU seconds, peak memory.

    python benchmarks/locking.py
    python benchmarks/locking.py --repositories 5 --files 10 --json locking.json

The Hub is the one that the tests use, on two ports of this machine; it counts what it is asked. Its own CPU time is not
measured. Half of the repositories are named by a branch, the others by a commit. One model in ten has a long header,
which takes a second read.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

import harness
from fixtures.hub import Hub
from fixtures.web import Web

MIB = 1024 * 1024
PER_IMAGE = 50
LONG = 300 * 1024
"""Bytes of metadata in a header that takes two reads."""

STEPS: Mapping[str, tuple[str, ...]] = {
    "lock --no-inspect": ("--no-inspect",),
    "lock": (),
    "lock, unchanged": (),
    "lock --update-all": ("--update-all",),
}
"""What is measured, in this order and with one lock and one store; but the first has a store and a lock of its own."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repositories", type=int, default=20)
    parser.add_argument("--files", type=int, default=50, help="in each of them")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was measured there as well")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="layerbuild-bench-") as name, Web() as web, Web() as cdn:
        found = run(Path(name), Hub(web, cdn), arguments.repositories, arguments.files)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")
    print(f"{found['sources']:,} single-file sources from {found['repositories']} repositories\n")
    print(report(found))


def run(root: Path, hub: Hub, repositories: int, files: int) -> dict[str, Any]:
    """What each step takes: requests, CPU seconds, bytes of memory."""
    project = declare(root / "project", hub, repositories, files)
    rows = []
    for title, options in STEPS.items():
        hub.forget()
        environment = {
            **harness.layerbuild_environment(root / "store"),
            **{"HF_ENDPOINT": hub.endpoint, "NO_PROXY": "127.0.0.1", "HF_TOKEN": "", "HF_HOME": str(root)},
        }
        taken = harness.measure(harness.layerbuild("lock", *options), environment=environment, cwd=project)
        asked = dict(hub.counted())
        rows.append({"step": title, "asked": asked, "seconds": taken.seconds, "cpu": taken.cpu, "peak": taken.peak})
        if title == "lock --no-inspect":
            (project / "lockfile.yaml").unlink()
    return {"repositories": repositories, "sources": repositories * files, "rows": rows}


def declare(root: Path, hub: Hub, repositories: int, files: int) -> Path:
    """A project whose images need every file of every repository, which are on `hub` then."""
    for directory in ("layers", "recipes"):
        (root / directory).mkdir(parents=True)
    layers = {}
    for number in range(repositories):
        name = f"org/models-{number:02}"
        models = {f"{number:02}-{i:03}.safetensors": _model(number, i) for i in range(files)}
        revision = hub.add(name, files={"README.md": b"#"}, lfs=models)
        revision = "main" if number % 2 else revision
        layers |= {f"m{path[:6]}": f"hf://{name}@{revision}/{path}" for path in models}
    lines = [f"{name}: {{kind: model, type: lora, source: '{source}'}}\n" for name, source in layers.items()]
    (root / "layers" / "models.yaml").write_text("".join(lines))
    names = list(layers)
    for start in range(0, len(names), PER_IMAGE):
        used = ", ".join(names[start : start + PER_IMAGE])
        (root / "recipes" / f"r{start}.yaml").write_text(f"name: i{start}\nwebui: {{root: /w}}\nlayers: [{used}]\n")
    return root


def _model(repository: int, number: int) -> bytes:
    """A small safetensors file that is like no other."""
    note = "x" * (LONG if number % 10 == 9 else 1000)
    tensor = {"dtype": "U8", "shape": [256], "data_offsets": [0, 256]}
    header = json.dumps({"__metadata__": {"note": note}, "a": tensor}).encode()
    noise = random.Random(1000 * repository + number).randbytes(256)
    return len(header).to_bytes(8, "little") + header + noise


def report(found: dict[str, Any]) -> str:
    """A row for each step."""
    rows = []
    for row in found["rows"]:
        asked = [f"{row['asked'].get(sort, 0):,}" for sort in ("metadata", "addresses")]
        rows.append(
            [row["step"], *asked, f"{row['cpu']:.1f} s", f"{row['seconds']:.1f} s", f"{row['peak'] / MIB:.0f} MiB"]
        )
    return harness.table(["", "metadata requests", "range reads", "CPU", "time", "memory"], rows)


if __name__ == "__main__":
    main()
