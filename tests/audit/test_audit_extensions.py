"""Planted: extensions with install scripts, and with and without what the webui remembers of git."""

from __future__ import annotations

import json

import pytest

from audit.planting import ROOT, Image, Item
from layerbuild.model import MTIME

NAME = f"{ROOT}/extensions/controlnet"
INSTALL = f"{NAME}/install.py"
LAUNCH = {"Cmd": ["python3", "launch.py", "--api"]}
SCRIPT = 'import launch\nlaunch.run_pip("install mediapipe==0.10", "x")\nX = "https://u:secret@example.com/a?token=t"\n'


def every(image: Image) -> set[str]:
    """Kinds of all findings, information included."""
    return {finding.id for finding in image.findings()}


def with_launch(sound: Image) -> Image:
    checkout = f"{ROOT}/repositories/stable-diffusion-stability-ai/ldm/models/diffusion/ddpm.py"
    return sound.plant({checkout: "", f"{ROOT}/launch.py": ""}).configured(**LAUNCH, WorkingDir=f"/{ROOT}")


def test_an_install_script_that_launch_runs(sound: Image) -> None:
    finding = with_launch(sound.plant({INSTALL: SCRIPT})).found("extension-installs")
    assert finding.severity == "warning" and finding.cost.seconds > 0
    assert finding.paths == (f"/{INSTALL}",)
    assert "mediapipe==0.10" in finding.what and "example.com/a" in finding.what
    assert "secret" not in finding.what and "token=t" not in finding.what


def test_nobody_runs_it_from_webui_py(sound: Image) -> None:
    finding = sound.plant({INSTALL: SCRIPT}).found("extension-installs")
    assert finding.severity == "info" and finding.cost.seconds == 0


@pytest.mark.parametrize("flag", ["--skip-install", "--skip-prepare-environment"])
def test_nor_where_installing_is_skipped(sound: Image, flag: str) -> None:
    image = with_launch(sound.plant({INSTALL: SCRIPT}))
    image = image.configured(Cmd=["python3", "launch.py", flag], WorkingDir=f"/{ROOT}")
    assert image.found("extension-installs").severity == "info"


def test_a_script_that_does_nothing_is_no_finding(sound: Image) -> None:
    assert "extension-installs" not in every(sound.plant({INSTALL: "print('ready')\n"}))


def test_a_script_that_cannot_be_read_is_suspect(sound: Image) -> None:
    assert "cannot be read" in sound.plant({INSTALL: "def (:\n"}).found("extension-installs").what


def entry(mtime: float) -> str:
    return json.dumps({"extensions-git": {"controlnet": {"mtime": mtime, "value": {}}}})


def test_git_is_asked_of_an_extension_without_entry(sound: Image) -> None:
    image = sound.plant({f"{NAME}/.git": "", f"{NAME}/a.py": ""})
    assert image.found("extension-not-cached").paths == (f"/{NAME}",)
    assert "extension-not-cached" not in every(image.plant({f"{ROOT}/cache.json": entry(MTIME)}))
    assert "extension-not-cached" in every(image.plant({f"{ROOT}/cache.json": entry(MTIME - 1)}))


def test_nor_of_one_without_git(sound: Image) -> None:
    assert "extension-not-cached" not in every(sound.plant({f"{NAME}/a.py": ""}))


def test_a_release_without_that_cache_never_asks(sound: Image) -> None:
    image = sound.plant({f"{NAME}/.git": Item(), f"{ROOT}/CHANGELOG.md": "## 1.4.0\n"})
    assert "extension-not-cached" not in every(image)
