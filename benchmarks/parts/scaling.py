"""Many images from one lock: benchmarks/scale.py and scalepush.py, as parts of the whole."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from harness import Failed
from parts.bench import Bench

_HERE = Path(__file__).resolve().parents[1]


def run(bench: Bench) -> dict[str, Any]:
    """What they write with --json.

    Raises:
        Failed: one ended with an error.
    """
    bench.say("composing up to 1,000 images")
    answer = _script(bench, "scale.py", "--rounds", str(bench.rounds))
    bench.say("pushing 1,000 images")
    pushed = _script(bench, "scalepush.py")
    count = pushed["images"]
    rows = [{"images": count, "command": f"push, {name}", **row} for name, row in pushed["rows"].items()]
    alone = {"images": count, "command": "the registry alone", "seconds": pushed["floor"], "cpu": None, "peak": None}
    return {**answer, "rows": [*answer["rows"], *rows, alone]}


def _script(bench: Bench, name: str, *arguments: str) -> dict[str, Any]:
    found = bench.root / f"{name}.json"
    command = [sys.executable, str(_HERE / name), *arguments, "--json", str(found)]
    if subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode != 0:
        raise Failed(name, "ended with an error")
    answer: dict[str, Any] = json.loads(found.read_text())
    return answer
