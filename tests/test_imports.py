"""The benchmark of imports: that what it compares is what it says, and that it runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import imports
from layerbuild.bytecode.interpreter import find
from layerbuild.model import MTIME
from layerbuild.pyc import cached_path

PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
_ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    directory = tmp_path / "installed"
    directory.mkdir()
    (directory / "small.py").write_text("x = 1\n", encoding="utf-8")
    return directory


def test_bytecode_is_absent_void_and_unchecked(site: Path, tmp_path: Path) -> None:
    interpreter = find(PYTHON)
    found = imports.variants(site, tmp_path, interpreter, more=False)
    none, void, ours = (variant.site for variant in found.values())
    assert [path.name for path in none.iterdir()] == ["small.py"]
    name = cached_path("small.py", interpreter.tag)
    flags, time = ((void / name).read_bytes()[at : at + 4] for at in (4, 8))
    assert flags == bytes(4) and int.from_bytes(time, "little") != MTIME == (void / "small.py").stat().st_mtime
    assert (ours / name).read_bytes()[4:8] == b"\1\0\0\0"


def test_it_runs_in_containers(site: Path) -> None:
    script, options = _ROOT / "benchmarks" / "imports.py", ["--python", PYTHON, "--modules", "small", "--rounds", "1"]
    done = subprocess.run(
        [sys.executable, script, "--site", site, *options], capture_output=True, text=True, check=True, timeout=120
    )
    rows = [line.split("|")[1].strip() for line in done.stdout.splitlines() if line.startswith("| ")]
    assert rows[2:] == ["no bytecode", "pip's, mtimes normalised", "unchecked-hash"]
