"""Fetching one large model into an empty store, beside curl, which has one connection: seconds, CPU, memory.

    python benchmarks/downloading.py
    python benchmarks/downloading.py --size 1GiB --rates 0 20

The server is on this machine, and limits the rate of each connection as many do; 0 is no limit. What layerbuild does
besides is hashing the file twice, for the file and for its layer.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

import harness
import weights
from fileserver import serving
from run import size_of

MB, MIB = 10**6, 1024 * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=size_of, default="512MiB", help="of the model: 512MiB, 2GiB")
    parser.add_argument("--rates", type=float, nargs="+", default=[0, 100, 25], help="of a connection, in MB/s")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was measured there as well")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="layerbuild-bench-") as name:
        found = run(Path(name), arguments.size, arguments.rates, arguments.rounds)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")
    print(report(found))


def run(root: Path, size: int, rates: list[float], rounds: int) -> list[dict[str, Any]]:
    """A row for each rate and program: medians of the seconds, the most memory."""
    model = root / "model.safetensors"
    weights.model(model, size)
    digest = _sha256(model)
    rows = []
    for rate in rates:
        with serving(model, rate * MB or None) as url:
            for program in ("curl", "layerbuild build"):
                runs = []
                for _ in range(rounds):
                    harness.warm([model])
                    runs.append(_once(root, program, url, digest, model.stat().st_size))
                seconds, cpu = (statistics.median(getattr(r, name) for r in runs) for name in ("seconds", "cpu"))
                row = {"rate": rate, "program": program, "seconds": seconds, "cpu": cpu}
                rows.append({**row, "peak": max(r.peak for r in runs)})
    return rows


def _sha256(path: Path) -> str:
    whole = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(MIB):
            whole.update(block)
    return whole.hexdigest()


def _once(root: Path, program: str, url: str, digest: str, size: int) -> harness.Run:
    room = root / "room"
    for directory in ("layers", "recipes"):
        (room / directory).mkdir(parents=True)
    environment = {**harness.layerbuild_environment(room / "store"), "NO_PROXY": "127.0.0.1"}
    layer = f"{{kind: model, type: checkpoint, source: '{url}', sha256: {digest}, size: {size}}}"
    (room / "layers" / "l.yaml").write_text(f"sd: {layer}\n")
    (room / "recipes" / "r.yaml").write_text("name: w\nwebui: {root: /w}\nlayers: [sd]\n")
    try:
        if program == "curl":
            return harness.measure(["curl", "-sSfo", "model", url], environment=environment, cwd=room)
        harness.measure(harness.layerbuild("lock", "--no-inspect"), environment=environment, cwd=room)
        return harness.measure(harness.layerbuild("build"), environment=environment, cwd=room)
    finally:
        shutil.rmtree(room)


def report(found: list[dict[str, Any]]) -> str:
    """A row for each program and rate."""
    rows = [
        [
            f"{row['program']}, {row['rate']:g} MB/s" if row["rate"] else f"{row['program']}, no limit",
            *(f"{row['seconds']:.1f} s", f"{row['cpu']:.1f} s", f"{row['peak'] / MIB:.0f} MiB"),
        ]
        for row in found
    ]
    return harness.table(["", "time", "CPU", "memory"], rows)


if __name__ == "__main__":
    main()
