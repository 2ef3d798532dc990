"""An image on a base, pulled from a registry by podman, started by runc."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest

from e2e.readers import MTIME, call, fetch, sha256, tags
from fixtures.container import Podman, tools_image, write_layout
from fixtures.project import BIG, Project, safetensors
from fixtures.registry import Front

pytestmark = pytest.mark.xdist_group("podman")

_MODEL = safetensors(BIG, {"format": "pt"}, seed=5)
_LAYERS = """
sd: {kind: model, type: checkpoint, source: file:sd.safetensors}
vocabulary:
  kind: huggingface
  source: file:vocabulary
  repository: openai/clip-vit-large-patch14
  revision: 32bd64288804d66eefd0ccbe215aa642df71cc41
note: {kind: files, files: {/srv/webui/extra/note.txt: {content: "from {{ image.name }}"}}}
"""
_RECIPE = """
name: worker
base: BASE
platform: PLATFORM
webui: {root: /srv/webui, provided_by: base, version: 1.10.1}
layers: [sd, vocabulary, note]
config: {env: {LANG: C.UTF-8}}
tags: [v1]
"""


def _write(project: Project, base: str, platform: str) -> None:
    recipe = _RECIPE.replace("BASE", base).replace("PLATFORM", platform)
    project.write({"layers/all.yaml": _LAYERS, "recipes/worker.yaml": recipe})
    project.write({"sd.safetensors": _MODEL, "vocabulary/vocab.json": b"{}"})


def test_container_sees_links_times_and_the_bases_directories(
    project: Project, registry: Front, podman: Podman
) -> None:
    platform = write_layout(tools_image(), project.root / "base")
    _write(project, "oci:base:base", platform)
    project.run("lock")
    destination = f"{registry.host}/{registry.prefix}"
    project.run("push", destination)
    image = f"{destination}/worker:v1"
    podman("pull", "--tls-verify=false", image)
    link = "/srv/webui/models/Stable-diffusion/sd.safetensors"
    snapshot = "hub/models--openai--clip-vit-large-patch14/snapshots/32bd64288804d66eefd0ccbe215aa642df71cc41"
    lines = podman.shell(
        image,
        f"readlink {link}; stat -L -c '%Y %s %a' {link}; sha256sum <{link}; cat $HF_HOME/{snapshot}/vocab.json; echo;"
        "echo $HF_HUB_OFFLINE $BASE $LANG; stat -c '%n %a %u:%g' /opt /srv /srv/webui /srv/webui/extra /root;"
        "cat /srv/webui/extra/note.txt; echo; cat /srv/webui/cache.json",
    )
    assert lines[:10] == [
        f"/opt/weights/sha256/{sha256(_MODEL)}",
        f"{MTIME} {len(_MODEL)} 644",
        f"{sha256(_MODEL)}  -",
        "{}",
        "1 yes C.UTF-8",
        # The base's own attributes, though layers pass through these directories.
        "/opt 755 0:0",
        "/srv 750 0:0",
        "/srv/webui 700 33:33",
        "/srv/webui/extra 755 0:0",
        "/root 700 0:0",
    ]
    assert lines[10] == "from worker"
    cache = json.loads("\n".join(lines[11:]))
    assert cache["hashes"]["checkpoint/sd.safetensors"] == {"mtime": float(MTIME), "sha256": sha256(_MODEL)}


def test_base_in_the_registry_is_mounted_and_pinned(project: Project, registry: Front) -> None:
    base = tools_image()
    layout = project.root / "base"
    platform = write_layout(base, layout)
    name = f"{registry.host}/{registry.prefix}/bases/tools"
    call("skopeo", "copy", "--preserve-digests", "--dest-tls-verify=false", f"oci:{layout}:base", f"docker://{name}:1")
    _write(project, f"{name}:1", platform)
    project.run("lock")
    locked = project.lock["images"]["worker"]["base"]
    assert locked["digest"] == base.digest
    # Looked up in the base's layers: what passes through them repeats their attributes.
    assert locked["directories"] == {
        "srv": "0750 0:0",
        "srv/webui": "0700 33:33",
        "srv/webui/extra": None,
        "srv/webui/models": None,
        "srv/webui/models/Stable-diffusion": None,
    }
    shutil.rmtree(layout)
    registry.records.clear()
    project.run("push", f"{registry.host}/{registry.prefix}/images")
    layer = base.blobs[1]
    mounts = [r for r in registry.requests("POST", "/blobs/uploads/") if layer.digest.split(":")[1] in r.query]
    assert [(r.status, f"from={registry.prefix}" in r.query.replace("%2F", "/")) for r in mounts] == [(201, True)]
    manifest = json.loads(fetch(f"{registry.url}/v2/{registry.prefix}/images/worker/manifests/v1"))
    assert manifest["layers"][0]["digest"] == layer.digest
    # A layout is self-contained: the base's layer comes out of the registry.
    report = project.run("push", f"oci:{project.root / 'out'}", "--json").json
    assert report["uploaded_bytes"] > layer.size + BIG
    assert (project.root / "out/blobs" / layer.digest.replace(":", "/")).stat().st_size == layer.size


def test_base_that_is_not_what_was_locked(project: Project, registry: Front) -> None:
    layout = project.root / "base"
    platform = write_layout(tools_image(), layout)
    _write(project, "oci:base:base", platform)
    project.run("lock")
    destination = f"{registry.host}/{registry.prefix}"

    def change(lock: Any) -> None:
        lock["images"]["worker"]["base"]["digest"] = f"sha256:{'f' * 64}"

    locked = project.lockfile.read_bytes()
    project.edit_lock(change)
    project.run("push", destination, check=False).failed(1, "f" * 64)
    project.lockfile.write_bytes(locked)
    # A layer of the base that was damaged since is never sent.
    largest = max((layout / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    content = largest.read_bytes()
    largest.write_bytes(content[:-1] + b"!")
    project.run("push", destination, check=False).failed(1, largest.name)
    assert tags(registry.root, f"{registry.prefix}/worker") == []
    largest.write_bytes(content)
    project.run("push", destination)
    assert tags(registry.root, f"{registry.prefix}/worker") == ["v1"]
