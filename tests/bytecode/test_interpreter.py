"""Which Python compiles: one of the target's version, that was seen to run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from layerbuild.bytecode.interpreter import find, look_at, variable
from layerbuild.errors import InterpreterMissing
from layerbuild.pyc import MAGIC

OWN = f"{sys.version_info[0]}.{sys.version_info[1]}"
OTHER = "3.8" if OWN != "3.8" else "3.9"

_MINOR = int(OTHER.rpartition(".")[2])
TOLD: dict[int, Any] = {
    1: "cpython", 2: [3, _MINOR, 1], 3: "final", 4: f"cpython-3{_MINOR}",
    5: MAGIC[_MINOR].to_bytes(2, "little").hex() + "0d0a",
}  # fmt: skip
"""What such an interpreter would say of itself."""


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine where nothing is installed, but for what the test puts there."""
    for name in ("PYENV_ROOT", "PATH", "HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    return tmp_path


def wrapper(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def test_the_running_one_serves() -> None:
    found = find(OWN)
    assert found.version == tuple(sys.version_info[:3])
    assert found.tag == sys.implementation.cache_tag
    assert find(".".join(map(str, sys.version_info[:3]))) == found


def test_one_on_the_path_serves_through_a_wrapper(bare: Path) -> None:
    executable = sys.base_prefix + f"/bin/python{OWN}"
    wrapper(bare / f"python{OWN}", f'exec {executable} "$@"')
    assert find(OWN).version == tuple(sys.version_info[:3])


def test_nothing_serves_that_lies_about_its_version(bare: Path) -> None:
    executable = sys.base_prefix + f"/bin/python{OWN}"
    wrapper(bare / f"python{OTHER}", f'exec {executable} "$@"')
    with pytest.raises(InterpreterMissing) as caught:
        find(OTHER)
    assert variable(OTHER) in (caught.value.hint or "")


def test_another_patch_release_is_not_the_one_asked_for(bare: Path) -> None:
    with pytest.raises(InterpreterMissing):
        find(f"{OWN}.999")


@pytest.mark.parametrize("found", [TOLD, {**TOLD, 1: "pypy"}, {**TOLD, 3: "candidate"}, {**TOLD, 5: "00000d0a"}])
def test_only_a_released_cpython_serves(bare: Path, found: dict[int, Any]) -> None:
    place = bare / f"python{OTHER}"
    wrapper(place, f"echo '{json.dumps([str(place), *(found[i] for i in range(1, 6))])}'")
    if found is TOLD:
        assert find(OTHER).path == place
        return
    with pytest.raises(InterpreterMissing):
        find(OTHER)


def test_what_the_variable_names_is_the_only_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(variable(OWN), str(tmp_path / "python"))
    with pytest.raises(InterpreterMissing) as caught:
        find(OWN)
    assert str(tmp_path) in (caught.value.cause or "")
    monkeypatch.setenv(variable(OWN), sys.base_prefix + f"/bin/python{OWN}")
    assert find(OWN).tag == sys.implementation.cache_tag


@pytest.mark.parametrize("script", ["exit 1", "echo nonsense", "echo '[1, 2]'", "echo '[1,2,3,4,5,6]'", "echo null"])
def test_what_is_no_python_is_passed_over(bare: Path, script: str) -> None:
    assert look_at(str(wrapper(bare / "python", script))) is None
    assert look_at(str(bare / "none")) is None
