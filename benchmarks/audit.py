"""Auditing an image of 20 GiB of uncompressed weights in a registry: time, requests, and bytes that are read.

    python benchmarks/audit.py                        40 checkpoints of 512 MiB, one in each layer
    python benchmarks/audit.py --files 64 --size 6600

The image is virtual: the registry on the loopback makes its bytes when they are asked for.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

import harness

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from fixtures.virtualregistry import big_image

MIB = 1024 * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=40)
    parser.add_argument("--size", type=int, default=512, help="MiB of each file")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    runs, sent, requests = [], 0, 0
    registry = big_image(files=arguments.files, size=arguments.size * MIB)
    try:
        with tempfile.TemporaryDirectory(prefix="layerbuild-bench-") as name:
            for _ in range(arguments.rounds):
                registry.sent = registry.requests = 0
                command = harness.layerbuild("audit", registry.reference)
                runs.append(
                    harness.measure(command, environment=harness.layerbuild_environment(Path(name)), cwd=Path(name))
                )
                sent, requests = registry.sent, registry.requests
    finally:
        registry.close()
    row = [
        f"{arguments.files} layers, {registry.size / 1024**3:.1f} GiB",
        f"{statistics.median(run.seconds for run in runs):.1f} s",
        f"{sent / MIB:.2f} MiB",
        str(requests),
        f"{max(run.peak for run in runs) / MIB:.0f} MiB",
    ]
    print(harness.table(["image", "time", "read", "requests", "peak memory"], [row]))


if __name__ == "__main__":
    main()
