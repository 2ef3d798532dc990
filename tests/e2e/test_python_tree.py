"""Real packages, laid out file for file as uv installs them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import uv
import yaml

from e2e.readers import layout_manifests, members
from fixtures.project import Project
from fixtures.pythonbase import PYTHON

pytestmark = pytest.mark.xdist_group("packages")

_PACKAGES = ["click", "pydantic", "pyyaml", "pip", "pygments", "setuptools<81"]


def _by_uv(packages: Project) -> dict[str, tuple[int, bytes]]:
    """What uv installs of the wheels that the lock pins: path -> mode and bytes, of its own interpreter nothing."""
    locked = packages.lock["layers"]["packages"]["pins"]
    venv = packages.root / "venv"
    lines = [f"{role.removeprefix('wheel ')} @ {pin['source']}" for role, pin in locked.items()]
    (packages.root / "all.txt").write_text("\n".join(lines))
    environ = {"UV_SYSTEM_CERTS": "1", **packages.environ, "UV_LINK_MODE": "copy"}
    for arguments in (
        ("venv", "--quiet", "--python", sys.executable, str(venv)),
        ("pip", "install", "--quiet", "--no-deps", "--python", str(venv), "-r", "all.txt"),
    ):
        subprocess.run([uv.find_uv_bin(), *arguments, "--no-config"], cwd=packages.root, env=environ, check=True)
    found = {}
    for directory, _, names in os.walk(venv):
        for path in (Path(directory, name) for name in names):
            inside = path.relative_to(venv).parts
            if inside[0] in ("bin", "lib", "share", "include") and not path.is_symlink():
                data = path.read_bytes().replace(str(venv).encode(), b"/opt/venv")
                found["/".join(inside)] = path.stat().st_mode & 0o777, data
    return found


def _own_line(line: str) -> bool:
    """Whether a line of RECORD is of a file that is another one in each of the two."""
    path = line.split(",", maxsplit=1)[0]
    own = ("/INSTALLER", "/REQUESTED", "/direct_url.json", "/uv_cache.json")
    return path.endswith(own) or path.startswith("../../../bin/")


def test_the_tree_is_the_one_that_uv_installs(packages: Project) -> None:
    declared = {"kind": "python", "requirements": _PACKAGES, "python": PYTHON, "bytecode": "none"}
    packages.write({"layers/all.yaml": yaml.safe_dump({"packages": declared})})
    packages.write({"recipes/worker.yaml": "base: scratch\nlayers: [packages]\ntags: [v1]\ncompression: gzip\n"})
    packages.run("lock")
    layout = packages.root / "out"
    packages.run("push", f"oci:{layout}")
    inside = members(layout, layout_manifests(layout)["worker:v1"])
    ours = {
        path.removeprefix("opt/venv/"): (member.mode, data)
        for path, (member, data) in inside.items()
        if member.isfile()
    }
    theirs = _by_uv(packages)
    # What only uv leaves: how to activate its environment, and what it knows of this machine and of who asked.
    only = {path.rpartition("/")[2] for path in theirs.keys() - ours.keys()}
    activation = {name for name in only if name.startswith(("activate", "deactivate", "pydoc"))}
    assert only - activation == {"REQUESTED", "direct_url.json", "uv_cache.json"} & only | {"REQUESTED"}
    assert ours.keys() - theirs.keys() == {"pyvenv.cfg"}
    different = {path for path in ours.keys() & theirs.keys() if ours[path] != theirs[path]}
    assert {path.rpartition("/")[2] for path in different} == {"INSTALLER", "RECORD"}
    for path in (path for path in different if path.endswith("/RECORD")):
        lines = [
            [line for line in data.decode().splitlines() if not _own_line(line)]
            for data in (ours[path][1], theirs[path][1])
        ]
        assert lines[0] == lines[1], path
    assert len(ours) > 1500
