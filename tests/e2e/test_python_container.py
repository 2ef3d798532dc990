"""Real packages in an image, used by the Python of its base in a container."""

from __future__ import annotations

import json

import pytest

from fixtures.container import Podman, write_layout
from fixtures.project import Project
from fixtures.pythonbase import INTERPRETER, PYTHON, python_image
from fixtures.registry import Front

pytestmark = pytest.mark.xdist_group("podman")

_SCRIPT = """
import importlib.metadata as metadata, json, sys
import click, pydantic, yaml
print(json.dumps({
    "prefix": [sys.prefix, sys.base_prefix != sys.prefix],
    "files": {d.name: all(f.locate().exists() for f in d.files) for d in metadata.distributions()},
    "installer": metadata.distribution("click").read_text("INSTALLER"),
}))
"""


def test_packages_are_found_whole_and_compiled(packages: Project, registry: Front, podman: Podman) -> None:
    platform = write_layout(python_image(), packages.root / "base")
    packages.write(
        {
            "layers/all.yaml": f"""
packages: {{kind: python, requirements: [click, pydantic, pyyaml, pip], python: '{PYTHON}', interpreter: {INTERPRETER}}}
told: {{kind: files, files: {{/srv/told.py: {{template: told.py.j2}}}}}}
""",
            "layers/told.py.j2": _SCRIPT,
            "recipes/worker.yaml": f"base: oci:base:base\nplatform: {platform}\nlayers: [packages, told]\ntags: [v1]\n",
        }
    )
    packages.run("lock")
    destination = f"{registry.host}/{registry.prefix}"
    packages.run("push", destination)
    image = f"{destination}/worker:v1"
    podman("pull", "--tls-verify=false", image)
    # `python` is the environment's, by PATH. What Python compiles itself it would call a `code object from '....py'`.
    lines = podman.shell(
        image,
        "pip check 2>&1; python /srv/told.py 2>&1; python -v -c 'import yaml' 2>/tmp/loaded;"
        'while read -r line; do case $line in *"code object from"*yaml*) echo "$line";; esac; done </tmp/loaded',
        "--read-only",
    )
    assert not [line for line in lines if "Error" in line], lines
    assert lines[0] == "No broken requirements found."
    told = json.loads(lines[1])
    assert told["prefix"] == ["/opt/venv", True]
    assert told["installer"] == "layerbuild"
    assert {"click", "pydantic", "pydantic_core", "PyYAML", "pip"} <= set(told["files"])
    assert all(told["files"].values())
    assert lines[2:] and all(line.endswith(".pyc'") for line in lines[2:]), lines[2:]
