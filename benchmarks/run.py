"""layerbuild beside the tools that a user would pick instead: time, memory and bytes, as a table with ratios.

    make bench                                     everything on 2 GiB, three rounds: about 20 minutes
    python benchmarks/run.py --size 256MiB --rounds 1 --only push

With --json FILE everything that was measured is kept; benchmarks/report.py makes docs/performance.md from it.
Peers that are not installed, or cannot run here, are named in the tables. Most need root.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import platform
import re
import shutil
import signal
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

import harness
import report
from parts import hashing, memory, pulling, pushing, scaling
from parts.bench import Bench
from results import Part, Results

PARTS = ("hashing", "push", "scale", "pull", "memory")
PROGRAMS = ("docker-registry", "curl", "skopeo", "umoci", "buildah", "podman")
UNITS = {"": 1024**2, "K": 1024, "M": 1024**2, "G": 1024**3}

_ROOM = 7
"""Times the model's size that must be free: the model, a tar of it, what a peer keeps, and the registry."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=size_of, default="2GiB", help="of the model: 512MiB, 2GiB")
    parser.add_argument("--rounds", type=int, default=3, help="of each thing that is timed")
    parser.add_argument("--only", choices=PARTS, action="append", metavar="PART", help=f"one of {', '.join(PARTS)}")
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="keep everything that was measured there, beside parts that are not measured now",
    )
    arguments = parser.parse_args()
    # Ended from outside, it still takes its processes and directories along.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with tempfile.TemporaryDirectory(prefix="layerbuild-bench-") as name:
        if shutil.disk_usage(name).free < _ROOM * arguments.size:
            sys.exit(f"{_ROOM * arguments.size / 1024**3:.0f} GiB must be free where TMPDIR says")
        bench = Bench(root=Path(name), size=arguments.size, rounds=arguments.rounds)
        before = kept(arguments.json, arguments.size) if arguments.json and arguments.only else None
        results = measure(bench, arguments.only or PARTS)
    if before is not None:
        parts = {**before.parts, **results.parts}
        results = dataclasses.replace(results, parts=parts, scale=results.scale or before.scale)
    if arguments.json:
        arguments.json.write_text(json.dumps(results.as_json(), indent=1) + "\n")
    print(report.for_terminal(results))


def kept(file: Path, size: int) -> Results | None:
    """What was measured before on the same machine and model; None where nothing was.

    Raises:
        SystemExit: it was another machine, or another model.
    """
    if not file.exists():
        return None
    before = Results.from_json(json.loads(file.read_text()))
    if (before.machine, before.size) != (machine(), size):
        sys.exit(f"{file} holds figures of another machine or size: name another file")
    return before


def size_of(text: str) -> int:
    """Bytes, from a number with KiB, MiB or GiB; MiB without a unit."""
    match = re.fullmatch(r"([1-9]\d*)\s*(?:([KMG])i?B?)?", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no size: write 512MiB or 2GiB")
    return int(match[1]) * UNITS[match[2] or ""]


def measure(bench: Bench, wanted: list[str] | tuple[str, ...]) -> Results:
    """The parts that are wanted. The one that fills the page cache comes last."""
    parts: dict[str, Part] = {}
    scale = scaling.run(bench) if "scale" in wanted else None
    for name, part in (("hashing", hashing), ("push", pushing), ("pull", pulling), ("memory", memory)):
        if name in wanted:
            parts.update(part.run(bench))
    return Results(
        date=datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        machine=machine(),
        versions=versions(),
        size=bench.size,
        rounds=bench.rounds,
        parts=parts,
        scale=scale,
    )


def machine() -> dict[str, Any]:
    """What the figures depend on, and nothing by which the machine could be found."""
    described = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = re.search(r"^model name\s*: (.+)$", described, re.MULTILINE)
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": model[1] if model else platform.machine(),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def versions() -> dict[str, str | None]:
    """Of everything that takes part, None for what is missing."""
    found = {name: harness.version(name) for name in PROGRAMS}
    return {"layerbuild": metadata.version("layerbuild"), **found, "oras (PyPI)": metadata.version("oras")}


if __name__ == "__main__":
    main()
