"""Puts the tests' own modules on the path and names the fixtures' modules."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

pytest_plugins = [
    "fixtures.web",
    "fixtures.hub",
    "fixtures.gitrepo",
    "fixtures.registry",
    "fixtures.project",
    "fixtures.container",
]
