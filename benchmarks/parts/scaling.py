"""Many images from one lock: benchmarks/scale.py, as a part of the whole."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from harness import Failed
from parts.bench import Bench

_SCRIPT = Path(__file__).resolve().parents[1] / "scale.py"


def run(bench: Bench) -> dict[str, Any]:
    """What it writes with --json.

    Raises:
        Failed: it ended with an error.
    """
    bench.say("composing up to 1,000 images")
    found = bench.root / "scale.json"
    command = [sys.executable, str(_SCRIPT), "--rounds", str(bench.rounds), "--json", str(found)]
    if subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode != 0:
        raise Failed(_SCRIPT.name, "ended with an error")
    answer: dict[str, Any] = json.loads(found.read_text())
    return answer
