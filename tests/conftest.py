"""Puts the tests' own modules and the benchmarks' on the path and names the fixtures' modules."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))
# Last: the benchmarks' modules have short names.
sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

# Commands that run within this process would take a CI's environment, or a developer's, for their user's.
for name in [name for name in os.environ if name == "CI" or name.startswith(("HF_", "CIVITAI_", "LAYERBUILD_STORE"))]:
    del os.environ[name]

# How fast a machine is, and what else it does, is nothing that a test may depend on.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

pytest_plugins = [
    "fixtures.web",
    "fixtures.hub",
    "fixtures.civitai",
    "fixtures.s3",
    "fixtures.gitrepo",
    "fixtures.registry",
    "fixtures.authority",
    "fixtures.specregistry",
    "fixtures.faultproxy",
    "fixtures.project",
    "fixtures.inprocess",
    "fixtures.several",
    "fixtures.warmprocess",
    "fixtures.scene",
    "fixtures.cluster",
    "fixtures.container",
    "fixtures.pythonbase",
    "fixtures.tidyproject",
    "fixtures.wheels",
    "fixtures.browser",
]
