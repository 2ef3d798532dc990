"""What install scripts name: read by parsing, whatever they hold."""

from __future__ import annotations

import pytest

from layerbuild.webui.installscript import MAX_SIZE, InstallScript, parse, words

CONTROLNET = '''
"""Installs https://example.org/in-a-docstring and requirements.txt."""
import launch
from pathlib import Path

req_file = Path(__file__).resolve().parent / "requirements.txt"

def install_requirements(file):
    "See https://example.org/too"
    for package in open(file):
        launch.run_pip(f"install -U {package}", "sd-webui-controlnet requirement: {package}")

def try_install_from_wheel(pkg_name, wheel_url):
    launch.run_pip(f"install {wheel_url}", pkg_name)

try_install_from_wheel("handrefinerportable", "https://github.com/huchenlei/HandRefinerPortable/x-py2.whl")
launch.run_pip('install insightface==0.7.3 --extra-index-url https://pypi.example.org -r more.txt', "x")
'''
ADETAILER = """
import subprocess, sys
def run(*args):
    return subprocess.run([sys.executable, "-m", "pip", "install", "ultralytics>=8.2", "-U", *args])
from huggingface_hub import hf_hub_download, snapshot_download
hf_hub_download("Bingsu/adetailer", "face_yolov8n.pt")
snapshot_download(repo_id=name)
"""


def test_packages_addresses_and_requirement_files() -> None:
    assert parse(CONTROLNET) == InstallScript(
        packages=("{...}", "insightface==0.7.3"),
        addresses=("https://github.com/huchenlei/HandRefinerPortable/x-py2.whl", "https://pypi.example.org"),
        requirements=("requirements.txt",),
    )


def test_pip_as_a_command_and_the_hub() -> None:
    assert parse(ADETAILER) == InstallScript(
        packages=("ultralytics>=8.2", "{...}"),
        addresses=("https://huggingface.co/Bingsu/adetailer", "https://huggingface.co/{...}"),
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "import launch\nif not launch.is_installed('x'):\n    pass\n",
        "print('pip', 'install')\nrun_pip()\n",
        "\ufeffx = 1",
    ],
)
def test_scripts_that_fetch_nothing(text: str) -> None:
    assert words(parse(text)) == ""


@pytest.mark.parametrize(
    "text",
    ["print 'old'", "x = (", "\0", "(" * 5000, "x = " + "-" * 100_000 + "1", "if 1:\n" * 1000, "#" * MAX_SIZE],
    ids=["python 2", "cut off", "nul", "brackets", "signs", "blocks", "huge"],
)
def test_scripts_that_cannot_be_parsed_may_fetch_anything(text: str) -> None:
    script = parse(text)
    assert script.unreadable
    assert words(script)


def test_invalid_escapes_are_no_warning_of_ours() -> None:
    assert parse("x = '\\d'\nrun_pip('install a')\n").packages == ("a",)


def test_nothing_that_a_terminal_would_obey_is_passed_on() -> None:
    script = parse("run_pip('install good \\x1b[31mbad')\nx = 'https://h/\\x1b]0;title\\x07 https://h/b'\n")
    assert script.packages == ("good",)
    assert script.addresses == ("https://h/", "https://h/b")
