"""Puts the tests' own modules and the benchmarks' on the path and names the fixtures' modules."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
# Last: the benchmarks' modules have short names.
sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

pytest_plugins = [
    "fixtures.web",
    "fixtures.hub",
    "fixtures.gitrepo",
    "fixtures.registry",
    "fixtures.project",
    "fixtures.container",
]
