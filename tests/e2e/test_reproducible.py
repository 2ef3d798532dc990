"""Digests are a function of what was declared, and of nothing else."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import yaml

from e2e.readers import layout_blob, layout_manifests
from fixtures.gitrepo import GitRepo
from fixtures.hub import Hub
from fixtures.project import BIG, Project, safetensors

_LAYERS = """
webui: {kind: webui, source: git+file:webui.git@main, version: 1.9.4}
sd: {kind: model, type: checkpoint, source: file:models/sd.safetensors}
ink: {kind: model, type: lora, source: file:models/ink.safetensors}
clip:
  kind: huggingface
  source: file:clip
  repository: openai/clip-vit-large-patch14
  revision: 32bd64288804d66eefd0ccbe215aa642df71cc41
worker: {kind: files, files: {/opt/w/start.sh: {template: start.sh.j2, mode: "0755"}, /opt/w/data: file:clip/b.json}}
"""
_RECIPE = """
matrix: {port: [3000, 3001]}
name: "worker-{{ port }}"
webui: {root: /webui}
layers: [webui, sd, ink, clip, worker]
config: {env: {B: "1", A: "2"}, labels: {z: "1", a: "2"}}
annotations: {z: "1", a: "2"}
tags: [v1]
"""


def _fill(project: Project, *, backwards: bool, moment: int) -> None:
    """The same project, its files written in another order and at another time."""
    files = {
        "layers/all.yaml": _LAYERS,
        "layers/start.sh.j2": "#!/bin/sh\necho {{ port }} {{ webui.root }}\n",
        "recipes/all.yaml": _RECIPE,
        "models/sd.safetensors": safetensors(BIG, {"modelspec.title": "\u00dc"}),
        "models/ink.safetensors": safetensors(5000, {"b": "1", "a": "2"}),
        **{f"clip/{name}.json": json.dumps({name: 1}) * 500 for name in "cab"},
    }
    project.write(dict(sorted(files.items(), reverse=backwards)))
    names = [f"scripts/{letter}.py" for letter in "cabd"]
    tree: dict[str, bytes | tuple[str, bytes]] = {name: name.encode() * 99 for name in names}
    GitRepo(project.root / "webui.git").commit({**tree, "run.sh": ("100755", b"#!/bin/sh\n")})
    for path in project.root.rglob("*"):
        os.utime(path, (moment, moment))


def test_two_places_two_environments_one_image(project: Project, tmp_path: Path) -> None:
    other = Project(tmp_path / "another/place" / ("x" * 60), tmp_path / "elsewhere")
    _fill(project, backwards=False, moment=1_000_000_000)
    _fill(other, backwards=True, moment=1_700_000_000)
    here = {"TZ": "UTC", "LC_ALL": "C", "PYTHONHASHSEED": "1"}
    there = {"TZ": "Asia/Kathmandu", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "4242", "USER": "somebody", "LANG": "de_DE"}
    for place, environ, umask in ((project, here, 0o022), (other, there, 0o077)):
        place.run("lock", env=environ, umask=umask)
        place.run("build", env=environ, umask=umask)
        place.run("push", "oci:out", env=environ, umask=umask)
    assert _documents(project) == _documents(other)
    assert project.lockfile.read_bytes() == other.lockfile.read_bytes()
    assert _blobs(project) == _blobs(other)


def _documents(project: Project) -> dict[str, tuple[Any, Any]]:
    """Manifest and config of every image."""
    layout = project.root / "out"
    manifests = layout_manifests(layout)
    return {name: (m, json.loads(layout_blob(layout, m["config"]["digest"]))) for name, m in manifests.items()}


def _blobs(project: Project) -> set[str]:
    return {path.name for path in (project.root / "out/blobs/sha256").iterdir()}


def test_order_of_building_does_not_matter(project: Project, tmp_path: Path) -> None:
    other = Project(tmp_path / "other", tmp_path / "other-store")
    for place in (project, other):
        _fill(place, backwards=False, moment=1_000_000_000)
        place.run("lock")
    project.run("push", "oci:out")
    other.run("push", "oci:out", "worker-3001")
    other.run("push", "oci:out", "worker-3000")
    assert _documents(project) == _documents(other)
    assert project.lockfile.read_bytes() == other.lockfile.read_bytes()


def test_layers_from_files_in_another_order_are_the_same(project: Project, tmp_path: Path) -> None:
    other = Project(tmp_path / "other", tmp_path / "other-store")
    for place in (project, other):
        _fill(place, backwards=False, moment=1_000_000_000)
    declared = yaml.safe_load(_LAYERS)
    (other.root / "layers/all.yaml").unlink()
    for number, name in enumerate(reversed(declared)):
        turned = dict(reversed(declared[name].items()))
        other.write({f"layers/{number}.yaml": "# a comment\n" + yaml.safe_dump({name: turned}, sort_keys=False)})
    for place in (project, other):
        place.run("lock")
        place.run("push", "oci:out")
    assert _documents(project) == _documents(other)


def test_one_model_has_one_weights_digest_everywhere(project: Project, hub: Hub, tmp_path: Path) -> None:
    model = safetensors(BIG, {"format": "pt"}, seed=9)
    hub.add(
        "acme/sd", files={"model_index.json": b"{}"}, lfs={"sd.safetensors": model, "unet/diffusion.safetensors": model}
    )
    layers = """
one: {kind: model, type: checkpoint, source: hf://acme/sd@main/sd.safetensors}
two: {kind: model, type: checkpoint, source: file:local.safetensors, filename: sub/renamed.safetensors}
snapshot: {kind: huggingface, source: hf://acme/sd@main, files: [model_index.json, unet/*]}
"""
    first = "name: first\nwebui: {root: /stable-diffusion-webui}\nlayers: [one]\ntags: [v]\n"
    second = "name: second\nwebui: {root: /srv/x, data_dir: /data}\nowner: {uid: 1000}\nlayers: [two]\ntags: [v]\n"
    third = "name: third\nhf_home: /srv/hf\nlayers: [snapshot]\ncompression: gzip\ntags: [v]\n"
    project.environ["HF_ENDPOINT"] = hub.endpoint
    recipes = {"recipes/1.yaml": first, "recipes/2.yaml": second, "recipes/3.yaml": third}
    project.write({"layers/all.yaml": layers, "local.safetensors": model, **recipes})
    project.run("lock")
    project.run("push", f"oci:{tmp_path / 'out'}")
    manifests = layout_manifests(tmp_path / "out")
    large = [
        {layer["digest"] for layer in manifest["layers"] if layer["size"] > BIG} for manifest in manifests.values()
    ]
    assert len(large) == 3 and large[0] == large[1] == large[2] and len(large[0]) == 1
    blobs = [path.stat().st_size for path in (tmp_path / "out/blobs/sha256").iterdir()]
    assert sum(size > BIG for size in blobs) == 1
    # And another project, with another store, agrees.
    other = project.sibling("other")
    other.write({"layers/l.yaml": layers, "recipes/r.yaml": second.replace("two", "one"), "local.safetensors": model})
    other.run("lock")
    receipts = {receipt["diff_id"] for receipt in project.lock["receipts"].values()}
    built = other.run("build", "--json").json["images"][0]["layers"]
    assert large[0] == {layer["digest"] for layer in built if layer["size"] > BIG}
    assert large[0] <= receipts


def test_number_of_cores_changes_no_byte(project: Project, tmp_path: Path) -> None:
    single = Project(tmp_path / "single", tmp_path / "single-store")
    for place in (project, single):
        _fill(place, backwards=False, moment=1_000_000_000)
        place.run("lock")
    project.run("push", "oci:out")
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        single.run("push", "oci:out")
    finally:
        os.sched_setaffinity(0, before)
    assert _documents(project) == _documents(single)
