"""Models out of what is in a registry already: images that layerbuild pushed, and images of other programs."""

from __future__ import annotations

from pathlib import Path

import pytest

from e2e.readers import call, sha256
from fixtures.project import BIG, Project, safetensors
from fixtures.registry import Front

_MODEL = safetensors(BIG, {"format": "pt"}, seed=11)
_RECIPE = "name: worker\nwebui: {root: /webui}\nlayers: [sd]\ntags: [v1]\n"


def declare(project: Project, source: str) -> Project:
    layer = f"sd: {{kind: model, type: checkpoint, source: '{source}', filename: sd.safetensors}}\n"
    return project.write({"layers/l.yaml": layer, "recipes/r.yaml": _RECIPE})


def weights(project: Project) -> dict[str, object]:
    """The receipt of the weights layer."""
    (line,) = [line for line in project.lock["images"]["worker"]["layers"] if line.startswith("weights/")]
    (receipt,) = [r for key, r in project.lock["receipts"].items() if key[:16] == line.rpartition("@")[2]]
    return dict(receipt)


def sent(front: Front) -> int:
    return sum(record.sent for record in front.requests("GET", "/blobs/"))


@pytest.fixture
def made(project: Project, registry: Front) -> Project:
    """A project whose image with a model is in the registry."""
    declare(project, "file:m.safetensors").write({"m.safetensors": _MODEL})
    project.run("lock")
    project.run("push", f"{registry.host}/{registry.prefix}")
    registry.records.clear()
    return project


def test_a_model_of_an_image_that_layerbuild_made(made: Project, registry: Front) -> None:
    image = f"oci://{registry.host}/{registry.prefix}/worker:v1"
    # What the webui lists is a symlink into a layer below.
    other = declare(made.sibling("other"), f"{image}/webui/models/Stable-diffusion/sd.safetensors")
    noted = other.run("lock").err
    assert "fetched once" in noted
    pin = other.lock["layers"]["sd"]["pins"]["model"]
    assert pin["files"][0]["sha256"] == sha256(_MODEL) and pin["ref"] == "v1" and pin["blob"].startswith("sha256:")
    assert pin["source"].startswith(f"oci://{registry.host}/{registry.prefix}/worker@sha256:")
    assert other.lock["files"][sha256(_MODEL)]["metadata"] == '{"format":"pt"}'
    before = other.lockfile.read_bytes()
    registry.records.clear()
    for command in (["lock"], ["lock", "--offline"], ["lock", "--check"]):
        other.run(*command)
    assert other.lockfile.read_bytes() == before and registry.records == []
    other.run("build")
    assert sent(registry) == 0, "what was fetched to be locked has stayed"
    other.lockfile.write_bytes(before)
    other.run("build", env={"LAYERBUILD_STORE": str(other.root / "empty")})
    assert len(_MODEL) <= sent(registry) < len(_MODEL) + 100_000
    # The same model is the same layer, wherever it came from.
    assert weights(other) == (made.run("build") and weights(made))


def test_a_declared_digest_needs_no_download_to_lock(made: Project, registry: Front) -> None:
    layer = made.lock["layers"]["sd"]["pins"]["model"]["files"][0]
    path = f"opt/weights/sha256/{layer['sha256']}"
    image = f"oci://{registry.host}/{registry.prefix}/worker:v1/{path}"
    other = declare(made.sibling("other"), f"{image}', sha256: '{sha256(_MODEL)}")
    other.run("lock")
    assert sent(registry) < 300_000, "a layer of links, and the beginning of the model"
    other.run("build")
    assert weights(other)["diff_id"] == other.lock["layers"]["sd"]["pins"]["model"]["blob"]


def test_a_model_of_an_image_that_umoci_made(project: Project, registry: Front, tmp_path: Path) -> None:
    layout, name = tmp_path / "layout", f"{registry.host}/{registry.prefix}/umoci"
    (tmp_path / "m.safetensors").write_bytes(_MODEL)
    (tmp_path / "old").write_bytes(b"old")
    call("umoci", "init", "--layout", str(layout))
    call("umoci", "new", "--image", f"{layout}:it")
    rootless = ["--rootless"]
    for file, place in (("old", "/models/sd.safetensors"), ("m.safetensors", "/models/sd.safetensors"), ("old", "/z")):
        call("umoci", "insert", *rootless, "--image", f"{layout}:it", str(tmp_path / file), place)
    call("skopeo", "copy", "--dest-tls-verify=false", f"oci:{layout}:it", f"docker://{name}:1")
    declare(project, f"oci://{name}:1/models/sd.safetensors")
    project.run("lock")
    project.run("build", env={"LAYERBUILD_STORE": str(tmp_path / "empty")})
    assert project.lock["layers"]["sd"]["pins"]["model"]["files"][0]["sha256"] == sha256(_MODEL)
    project.run("lock", "--update", "sd")
    declare(project, f"oci://{name}:1/models/other.safetensors")
    project.run("lock", check=False).failed(1, "no file models/other.safetensors")
    declare(project, f"oci://{name}:2/models/sd.safetensors")
    project.run("lock", check=False).failed(1, "sd cannot be locked")
    project.run("lock", "--keep-going")
    assert "umoci" in project.lock["unlocked"]["sd"]


def test_one_pass_from_one_repository_to_another(made: Project, registry: Front) -> None:
    """From the registry through this machine to another repository, and nothing kept."""
    image = f"oci://{registry.host}/{registry.prefix}/worker:v1/webui/models/Stable-diffusion/sd.safetensors"
    other = declare(made.sibling("other"), f"{image}', sha256: '{sha256(_MODEL)}")
    other.run("lock")
    other.run("push", "--no-store", f"{registry.host}/{registry.prefix}/copy")
    assert sha256(_MODEL) not in other.stored_files()
    assert weights(other) == weights(made)
