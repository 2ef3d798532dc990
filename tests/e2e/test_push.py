"""Images in a real registry: what is sent, what is not, and what other programs read there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from e2e.readers import call, fetch, layout_blob, layout_manifests, tags
from fixtures.project import BIG, Project, safetensors
from fixtures.registry import Front

_LAYERS = """
sd: {kind: model, type: checkpoint, source: file:sd.safetensors}
sd-twin: {kind: model, type: checkpoint, source: file:sd.safetensors, filename: model.safetensors}
ink: {kind: model, type: lora, source: file:ink.safetensors}
start: {kind: files, files: {/opt/worker/start.sh: {content: "#!/bin/sh\\n", mode: "0755"}}}
"""
_FIRST = "name: first\nwebui: {root: /webui}\nlayers: [sd, ink, start]\ntags: [one, two]\n"
_SECOND = "name: second\nwebui: {root: /srv/other}\nlayers: [sd-twin, start]\ntags: [one]\n"


@pytest.fixture
def pushed(project: Project, registry: Front) -> Project:
    """A project whose first image is in the registry."""
    project.write(
        {
            "layers/all.yaml": _LAYERS,
            "recipes/first.yaml": _FIRST,
            "sd.safetensors": safetensors(BIG, {"format": "pt"}),
            "ink.safetensors": safetensors(3000, {"ss_output_name": "ink"}),
        }
    )
    project.run("lock")
    project.run("push", _at(registry))
    return project


def _at(registry: Front, prefix: str = "") -> str:
    return f"{registry.host}/{registry.prefix}{prefix}"


def _sent(registry: Front) -> dict[str, int]:
    """Requests that may carry blobs, by method."""
    return {method: len(registry.requests(method, "/blobs/")) for method in ("POST", "PUT")}


def test_first_push_sends_every_blob_once_and_tags_last(pushed: Project, registry: Front) -> None:
    opened = registry.requests("POST", "/blobs/uploads/")
    # sd, ink, links, hash cache, files and the config
    assert len(opened) == 6
    manifests = registry.requests("PUT", "/manifests/")
    assert {r.path.rpartition("/")[2] for r in manifests} == {"one", "two"}
    first = registry.records.index(manifests[0])
    assert all("/manifests/" in r.path for r in registry.records[first:])
    assert tags(registry.root, f"{registry.prefix}/first") == ["one", "two"]


def test_second_push_sends_no_blob(pushed: Project, registry: Front) -> None:
    registry.records.clear()
    report = pushed.run("push", _at(registry), "--json").json
    assert _sent(registry) == {"POST": 0, "PUT": 0}
    assert (report["uploaded_bytes"], report["mounted_bytes"]) == (0, 0)
    # One question for each tag: a manifest that is there has all its blobs.
    assert [r.method for r in registry.records if r.path != "/v2/"] == ["GET", "GET"]
    assert len(registry.requests("GET", "/manifests/")) == 2


def test_second_image_that_shares_the_models_sends_little(pushed: Project, registry: Front) -> None:
    pushed.write({"recipes/second.yaml": _SECOND})
    pushed.run("lock")
    registry.records.clear()
    before = registry.uploaded()
    report = pushed.run("push", _at(registry), "second", "--json").json
    assert registry.uploaded() - before < 64 * 1024
    assert 0 < report["uploaded_bytes"] < 64 * 1024
    assert report["mounted_bytes"] > BIG
    mounts = [r for r in registry.requests("POST", "/blobs/uploads/") if "mount=" in r.query]
    # The model and the start script; every one was taken.
    assert len(mounts) == 2 and all(r.status == 201 for r in mounts)
    # The same through another door: the registry gives the model from the second repository.
    manifest = json.loads(fetch(f"{registry.url}/v2/{registry.prefix}/second/manifests/one"))
    sizes = {layer["digest"]: layer["size"] for layer in manifest["layers"]}
    model = max(sizes, key=lambda digest: sizes[digest])
    blob = fetch(f"{registry.url}/v2/{registry.prefix}/second/blobs/{model}")
    assert len(blob) == sizes[model] > BIG


def test_required_mount_that_is_refused(pushed: Project, registry: Front) -> None:
    release = _at(registry, "/release")
    uploads = "/release/first/blobs/uploads/"

    session = {"Location": f"{registry.url}/v2/{registry.prefix}{uploads}0-0-0"}
    sent = registry.uploaded()
    rule = registry.rule("POST", uploads, 202, headers=session, times=1000)
    found = pushed.run("push", release, "--mount", "required", check=False)
    found.failed(
        1, "is not mounted", f"{registry.prefix}/release/first", f"{registry.prefix}/first", "--mount required"
    )
    assert registry.uploaded() == sent
    assert tags(registry.root, f"{registry.prefix}/release/first") == []
    opened = [r for r in registry.requests("POST", uploads) if r.status == 202]
    assert opened and len(registry.requests("DELETE", uploads)) == len(opened), "sessions are given back"
    rule.times = 0
    report = pushed.run("push", release, "--mount", "required", "--json").json
    assert report["uploaded_bytes"] == 0 and report["mounted_bytes"] > BIG


def test_another_prefix_mounts_instead_of_uploading(pushed: Project, registry: Front) -> None:
    registry.records.clear()
    report = pushed.run("push", _at(registry, "/release"), "--json").json
    assert report["uploaded_bytes"] == 0 and report["mounted_bytes"] > BIG
    assert registry.uploaded() == sum(r.received for r in registry.requests("PUT", "/manifests/"))
    assert tags(registry.root, f"{registry.prefix}/release/first") == ["one", "two"]


def test_two_images_at_once_send_shared_blobs_once(project: Project, registry: Front) -> None:
    model = safetensors(BIG, {"format": "pt"})
    project.write({"layers/all.yaml": _LAYERS, "recipes/second.yaml": _SECOND, "sd.safetensors": model})
    project.write({"recipes/third.yaml": _SECOND.replace("second", "third").replace("/srv/other", "/third")})
    project.run("lock")
    project.run("push", _at(registry))
    assert BIG < registry.uploaded() < BIG + 128 * 1024
    assert (
        tags(registry.root, f"{registry.prefix}/second") == tags(registry.root, f"{registry.prefix}/third") == ["one"]
    )


def test_default_tag_is_the_manifest_digest(pushed: Project, registry: Front) -> None:
    pushed.write({"recipes/first.yaml": _FIRST.replace("tags: [one, two]\n", "")})
    report = pushed.run("push", _at(registry), "--json").json
    image = report["images"][0]
    tag = image["digest"].removeprefix("sha256:")[:12]
    assert image["references"] == [f"{_at(registry)}/first:{tag}"]
    assert tags(registry.root, f"{registry.prefix}/first") == sorted([tag, "one", "two"])


def test_skopeo_inspects_and_copies_the_image(pushed: Project, registry: Front, tmp_path: Path) -> None:
    reference = f"docker://{_at(registry)}/first:one"
    about = json.loads(call("skopeo", "inspect", "--tls-verify=false", reference))
    manifest = pushed.lock["images"]["first"]["manifest"]
    assert about["Digest"] == manifest
    assert (about["Os"], about["Architecture"]) == ("linux", "amd64")
    layout = tmp_path / "copied"
    call("skopeo", "copy", "--src-tls-verify=false", "--preserve-digests", reference, f"oci:{layout}:first")
    copied = layout_manifests(layout)["first"]
    # Every blob by the digest that the registry was told.
    for descriptor in [copied["config"], *copied["layers"]]:
        assert len(layout_blob(layout, descriptor["digest"])) == descriptor["size"]
    # The layout that layerbuild itself writes holds the same image.
    pushed.run("push", f"oci:{tmp_path / 'own'}")
    assert layout_manifests(tmp_path / "own")["first:one"] == copied


def test_skopeo_converts_the_layout(pushed: Project, tmp_path: Path) -> None:
    pushed.run("push", f"oci:{tmp_path / 'own'}")
    target = tmp_path / "directory"
    call("skopeo", "copy", f"oci:{tmp_path / 'own'}:first:two", f"dir:{target}")
    assert json.loads((target / "manifest.json").read_text())["layers"]


def test_plan_says_what_push_does(pushed: Project, registry: Front) -> None:
    pushed.write({"recipes/second.yaml": _SECOND})
    pushed.run("lock")
    # Receipts first: of a layer that was never packed, nobody knows how far it shrinks.
    pushed.run("build")
    here, there = _at(registry), _at(registry, "/elsewhere")

    plan, report = _plan_and_push(pushed, here)
    first, second = _config_sizes(registry)
    # A plan lists layers; a push also counts the configs.
    assert report == {**plan, "upload": plan["upload"] + second, "present": plan["present"] + first}
    assert 0 < plan["upload"] < 64 * 1024 < BIG < plan["mount"]

    plan, report = _plan_and_push(pushed, there)
    assert report == {**plan, "mount": plan["mount"] + first + second}
    assert plan["upload"] == plan["present"] == 0


def test_plan_before_the_first_push_says_all_of_it(project: Project, registry: Front) -> None:
    files = {"layers/all.yaml": _LAYERS, "recipes/first.yaml": _FIRST}
    models = {"sd.safetensors": safetensors(BIG, {"format": "pt"}), "ink.safetensors": safetensors(3000, {"a": "b"})}
    project.write(files).write(models).run("lock")
    plan = project.run("plan", "--to", _at(registry), "--json").json
    assert {layer["known"] for layer in plan["layers"]} == {False}
    assert plan["totals"]["pack_bytes"] > BIG
    assert registry.uploaded() == 0
    project.run("build")
    plan, report = _plan_and_push(project, _at(registry))
    config = json.loads(fetch(f"{registry.url}/v2/{registry.prefix}/first/manifests/one"))["config"]["size"]
    assert report == {**plan, "upload": plan["upload"] + config}
    assert registry.uploaded() == report["upload"] + sum(r.received for r in registry.requests("PUT", "/manifests/"))


def _plan_and_push(project: Project, destination: str) -> tuple[dict[str, int], dict[str, int]]:
    """Bytes by what was announced, and by what happened."""
    plan = project.run("plan", "--to", destination, "--json").json
    assert {layer["known"] for layer in plan["layers"]} == {True}
    totals = plan["totals"]
    assert totals["fetch_bytes"] == totals["pack_bytes"] == 0
    report = project.run("push", destination, "--json").json
    announced = {action: totals[f"{action}_bytes"] for action in ("present", "mount", "upload")}
    names = {"present": "present_bytes", "mount": "mounted_bytes", "upload": "uploaded_bytes"}
    return announced, {action: report[name] for action, name in names.items()}


def _config_sizes(registry: Front) -> list[int]:
    prefix = f"{registry.url}/v2/{registry.prefix}"
    manifests = [fetch(f"{prefix}/{name}/manifests/one") for name in ("first", "second")]
    return [json.loads(manifest)["config"]["size"] for manifest in manifests]
