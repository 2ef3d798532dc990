"""Checking, planning and composing 1 to 1,000 images of 40 models each: CPU seconds and peak memory.

    python benchmarks/scale.py                            1, 10, 100 and 1,000 images
    python benchmarks/scale.py --images 1 1000 --rounds 1 --json scale.json

Every image has a checkpoint of its own and 39 models that all share, on a base that holds the webui. Each set of
images is locked and built once; then the models are deleted, and the commands run from the lock alone on an empty
store. So they end with an error if they read a byte of a model. Models are small: what is measured does not depend
on their sizes.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import harness

MIB = 1024 * 1024
SHARED = ("lora",) * 24 + ("controlnet",) * 6 + ("upscaler",) * 4 + ("embedding",) * 3 + ("vae", "vae-approx")
"""Types of the models that every image has, beside its own checkpoint."""

COMMANDS = {
    "lock --check": ("lock", "--check"),
    "plan": ("plan",),
    "build": ("build",),
}
"""What is measured: `build` has nothing to make, and puts together the manifest of each image."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[1, 10, 100, 1000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was measured there as well")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="layerbuild-bench-") as name:
        root = Path(name)
        projects = prepare(root, arguments.images)
        shutil.rmtree(root / "models")
        found = [row for count, project in projects.items() for row in measure(root, count, project, arguments.rounds)]
    if arguments.json:
        arguments.json.write_text(json.dumps({"models": 1 + len(SHARED), "rows": found}, indent=2) + "\n")
    print(f"Images of {1 + len(SHARED)} models from the lock, empty store, medians of {arguments.rounds} rounds\n")
    print(report(found))


def prepare(root: Path, counts: Sequence[int]) -> dict[int, Path]:
    """A locked and built project for each number of images; their models are in `root/models`."""
    models = root / "models"
    models.mkdir()
    names = [f"own-{i:04}" for i in range(max(counts))] + [f"shared-{i:02}" for i in range(len(SHARED))]
    for name in names:
        model(models / f"{name}.safetensors", name)
    environment = harness.layerbuild_environment(root / "store")
    base(root / "base", environment)
    projects = {count: project(root / f"images-{count}", count) for count in sorted(counts)}
    for directory in projects.values():
        for command in ("lock", "build"):
            harness.measure(harness.layerbuild(command), environment=environment, cwd=directory)
    return projects


def base(root: Path, environment: Mapping[str, str]) -> None:
    """The layout `oci:DIR:base:1`, made by layerbuild itself: an image with the webui's directories."""
    for directory in ("layers", "recipes"):
        (root / directory).mkdir(parents=True)
    files = "".join(f"    /srv/webui/{name}/.keep: {{content: ''}}\n" for name in ("models/Lora", "embeddings"))
    (root / "layers" / "webui.yaml").write_text(f"webui:\n  kind: files\n  files:\n{files}")
    (root / "recipes" / "base.yaml").write_text("layers: [webui]\ntags: ['1']\n")
    for command in (["lock"], ["push", "oci:layout"]):
        harness.measure(harness.layerbuild(*command), environment=environment, cwd=root)


def model(path: Path, title: str) -> None:
    """A small safetensors file that is like no other, with as much metadata as trainers write for people."""
    header = json.dumps(
        {
            "__metadata__": {"modelspec.title": title, "modelspec.description": title * 100},
            "model.weight": {"dtype": "U8", "shape": [4096], "data_offsets": [0, 4096]},
        }
    ).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + random.Random(title).randbytes(4096))


def project(root: Path, count: int) -> Path:
    """The declarations of `count` images."""
    for directory in ("layers", "recipes"):
        (root / directory).mkdir(parents=True)
    types = {f"own-{i:04}": "checkpoint" for i in range(count)}
    shared = {f"shared-{i:02}": kind for i, kind in enumerate(SHARED)}
    lines = [
        f"{name}: {{kind: model, type: {kind}, source: 'file:../models/{name}.safetensors'}}\n"
        for name, kind in {**types, **shared}.items()
    ]
    (root / "layers" / "models.yaml").write_text("".join(lines))
    recipe = (
        f"matrix: {{model: [{', '.join(types)}]}}\n"
        'name: "sd-{{ model }}"\nbase: oci:../base/layout:base:1\n'
        "webui: {root: /srv/webui, provided_by: base, version: 1.10.1}\n"
        f'layers: ["{{{{ model }}}}", {", ".join(shared)}]\n'
        'repository: sd\ntags: ["{{ model }}"]\n'
        'config: {cmd: [/start.sh], env: {MODEL: "{{ model }}"}, labels: {model: "{{ model }}"}}\n'
    )
    (root / "recipes" / "sd.yaml").write_text(recipe)
    return root


def measure(root: Path, count: int, project: Path, rounds: int) -> list[dict[str, Any]]:
    """Every command, each time with a store that has never seen anything."""
    found = []
    for title, command in COMMANDS.items():
        runs = []
        for _ in range(rounds):
            store = root / "empty"
            environment = harness.layerbuild_environment(store)
            runs.append(harness.measure(harness.layerbuild(*command), environment=environment, cwd=project))
            shutil.rmtree(store)
        found.append(
            {
                "images": count,
                "command": title,
                "seconds": statistics.median(run.seconds for run in runs),
                "cpu": statistics.median(run.cpu for run in runs),
                "peak": max(run.peak for run in runs),
            }
        )
    return found


def report(found: Sequence[dict[str, Any]]) -> str:
    """A row for each number of images, CPU seconds and peak memory of each command."""
    rows = []
    for count in dict.fromkeys(row["images"] for row in found):
        cells = {row["command"]: row for row in found if row["images"] == count}
        cpu = [f"{cells[title]['cpu']:.2f} s" for title in COMMANDS]
        peak = [f"{cells[title]['peak'] / MIB:.0f} MiB" for title in COMMANDS]
        rows.append([f"{count:,}", *(cell for pair in zip(cpu, peak, strict=True) for cell in pair)])
    return harness.table(["images", *(cell for title in COMMANDS for cell in (f"{title}: CPU", "memory"))], rows)


if __name__ == "__main__":
    main()
