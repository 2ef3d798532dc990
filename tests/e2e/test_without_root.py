"""A worker that is not root, on a file system that is read-only: in a container."""

from __future__ import annotations

import json
from typing import Any

import pytest

from e2e.readers import MTIME, sha256
from fixtures.container import Podman, tools_image, write_layout
from fixtures.gitrepo import GitRepo
from fixtures.project import BIG, Project, safetensors
from fixtures.registry import Front

pytestmark = pytest.mark.xdist_group("podman")

MODEL = safetensors(BIG, seed=9)
OWNED = [
    "/webui",
    "/webui/webui.py",
    "/webui/cache.json",
    "/webui/config.json",
    "/webui/models/Stable-diffusion",
    "/webui/extensions/x",
    "/webui/extensions/x/.git",
    "/opt/huggingface",
    "/opt/huggingface/hub/version.txt",
]


@pytest.fixture
def image(project: Project, registry: Front, podman: Podman) -> str:
    """The worker in podman's storage; its name."""
    platform = write_layout(tools_image(), project.root / "base")
    commits = {}
    for name, files in {"webui": {"webui.py": b"", "CHANGELOG.md": b"## 1.10.1\n"}, "x": {"install.py": b""}}.items():
        commits[name] = GitRepo(project.root / f"{name}.git").commit(dict(files))
    hub = {"source": "file:clip", "repository": "openai/clip-vit-large-patch14", "revision": "0" * 40}
    layers: dict[str, Any] = {
        "webui": {
            "kind": "webui",
            "source": f"git+file:webui.git@{commits['webui']}",
            "extensions": {"x": f"git+file:x.git@{commits['x']}"},
        },
        "sd": {"kind": "model", "type": "checkpoint", "source": "file:sd.safetensors"},
        "clip": {"kind": "huggingface", **hub},
    }
    recipe = {
        "name": "worker",
        "base": "oci:base:base",
        "platform": platform,
        "webui": {"root": "/webui", "cache_dir": "/tmp/webui/cache"},
        "owner": {"uid": 1000, "gid": 1000},
        "layers": [*layers, "worker-settings"],
        "config": {"user": "1000:1000"},
        "tags": ["v1"],
    }
    project.write({"layers/all.yaml": json.dumps(layers), "recipes/worker.yaml": json.dumps(recipe)})
    project.write({"sd.safetensors": MODEL, "clip/vocab.json": b"{}"})
    assert project.run("lock", "--json").json["advice"] == []
    destination = f"{registry.host}/{registry.prefix}"
    project.run("push", destination)
    podman("pull", "--tls-verify=false", f"{destination}/worker:v1")
    return f"{destination}/worker:v1"


def test_a_worker_without_root(podman: Podman, image: str) -> None:
    link = "/webui/models/Stable-diffusion/sd.safetensors"
    lines = podman.shell(
        image,
        f"id -u; id -g; stat -c '%u:%g' {' '.join(OWNED)}; sha256sum <{link}; stat -L -c '%Y %u %a' {link};"
        "cat $HF_HOME/hub/models--openai--clip-vit-large-patch14/snapshots/$(printf '%040d' 0)/vocab.json; echo;"
        # The webui converts cache.json only where this directory is not there, and must be able to make it.
        "cd /tmp; stat $SD_WEBUI_CACHE_DIR 2>/dev/null;"
        "mkdir -p webui/cache/hashes && echo x >webui/cache/hashes/cache.db;"
        "echo $? $SD_WEBUI_CACHE_DIR; (echo x >/webui/params.txt) 2>/dev/null; echo $?",
        "--read-only",
        "--tmpfs=/tmp",
    )
    assert lines[:2] == ["1000", "1000"]
    assert lines[2 : 2 + len(OWNED)] == ["1000:1000"] * len(OWNED)
    assert lines[2 + len(OWNED) :] == [
        f"{sha256(MODEL)}  -",
        # Weights are shared by all images, and nobody's who runs them.
        f"{MTIME} 0 644",
        "{}",
        "0 /tmp/webui/cache",
        "2",
    ]


def test_its_directories_can_be_written_to_where_the_file_system_can(podman: Podman, image: str) -> None:
    lines = podman.shell(
        image,
        "cd /webui; mkdir -p outputs models/Stable-diffusion/more extensions/x/__pycache__ $HF_HOME/hub/.locks;"
        "echo $?; echo '{}' >config.json; echo $?; (echo x >>models/Stable-diffusion/sd.safetensors)"
        " 2>/dev/null; echo $?",
    )
    assert lines == ["0", "0", "2"]
