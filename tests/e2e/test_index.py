"""Several platforms under one name: one index, shared layers sent once, and what other programs make of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from e2e.readers import call, layout_blob, sha256, tags
from fixtures.container import Podman, tools_image, write_layout
from fixtures.project import BIG, Project, safetensors
from fixtures.registry import Front, Image, MemoryBlob, digest_of
from layerbuild import load
from layerbuild.registry.manifests import INDEX_TYPE, MANIFEST_TYPE

_MODEL = safetensors(BIG, {"format": "pt"}, seed=5)
_LAYERS = """
sd: {kind: model, type: checkpoint, source: file:sd.safetensors}
tool-amd64: {kind: files, files: {/opt/tool/name: file:tools/amd64}}
tool-arm64: {kind: files, files: {/opt/tool/name: file:tools/arm64}}
note: {kind: files, files: {/opt/note: {content: "for all"}}}
"""
_RECIPE = """
name: both
platforms: [linux/arm64, linux/amd64]
webui: {root: /webui}
layers: [sd, "tool-{{ architecture }}", note]
vars: {commit: abc123}
annotations:
  org.opencontainers.image.source: https://example.com/acme/both
  org.opencontainers.image.revision: "{{ commit }}"
  org.opencontainers.image.title: "both for {{ platform }}"
tags: [v1, v2]
"""
_NAMES = ("both@linux/arm64", "both@linux/amd64")


def _fill(project: Project, recipe: str = _RECIPE) -> Project:
    files = {"layers/l.yaml": _LAYERS, "recipes/both.yaml": recipe, "tools/amd64": "amd64\n", "tools/arm64": "arm64\n"}
    return project.write({**files, "sd.safetensors": _MODEL})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose index lies in the layout `out`; nobody touches it."""
    directory = tmp_path_factory.mktemp("made")
    project = _fill(Project(directory / "project", directory / "store"))
    project.run("lock")
    project.run("push", "oci:out")
    return project


@pytest.fixture
def pushed(made: Project, tmp_path: Path) -> Project:
    """A copy of it."""
    return made.copy(tmp_path / "pushed")


def _at(registry: Front) -> str:
    return f"{registry.host}/{registry.prefix}"


def _raw(reference: str) -> bytes:
    return call("skopeo", "inspect", "--raw", "--tls-verify=false", reference).encode()


def _manifests(project: Project) -> list[str]:
    return [project.lock["images"][name]["manifest"] for name in _NAMES]


def test_index_in_a_registry_and_in_a_layout(made: Project, registry: Front, tmp_path: Path) -> None:
    project = made.copy(tmp_path / "project")
    registry.records.clear()
    report = project.run("push", _at(registry), "--json", "--digest-file", "digests").json
    # What does not depend on the platform went over the line once.
    assert BIG < registry.uploaded() < BIG + 64 * 1024
    assert len(registry.requests("POST", "/blobs/uploads/")) == 8  # six layers and two configs
    index = _raw(f"docker://{_at(registry)}/both:v1")
    digest, manifests = digest_of(index), _manifests(project)
    puts = [r.path.rpartition("/")[2] for r in registry.requests("PUT", "/manifests/")]
    assert (sorted(puts[:2]), puts[2:]) == (sorted(manifests), ["v1", "v2"])
    assert tags(registry.root, f"{registry.prefix}/both") == ["v1", "v2"]
    value = json.loads(index)
    assert list(value) == ["schemaVersion", "mediaType", "manifests", "annotations"]
    assert (value["schemaVersion"], value["mediaType"]) == (2, INDEX_TYPE)
    assert [entry.pop("size") > 0 for entry in value["manifests"]] == [True, True]
    assert value["manifests"] == [
        {"mediaType": MANIFEST_TYPE, "digest": d, "platform": {"architecture": a, "os": "linux"}}
        for d, a in zip(manifests, ("arm64", "amd64"), strict=True)
    ]
    source = {
        "org.opencontainers.image.source": "https://example.com/acme/both",
        "org.opencontainers.image.revision": "abc123",
    }
    assert value["annotations"] == source
    assert project.lock["indexes"] == {"both": {"platforms": ["linux/arm64", "linux/amd64"], "digest": digest}}
    assert project.lockfile.read_bytes() == made.lockfile.read_bytes()

    # The same in a layout, by the same names.
    assert _raw(f"oci:{project.root}/out:both:v2") == index
    amd64 = json.loads(layout_blob(project.root / "out", manifests[1]))
    assert amd64["annotations"] == {**source, "org.opencontainers.image.title": "both for linux/amd64"}
    arm64 = json.loads(layout_blob(project.root / "out", manifests[0]))
    shared = {layer["digest"] for layer in amd64["layers"]} & {layer["digest"] for layer in arm64["layers"]}
    assert len(shared) == len(amd64["layers"]) - 1 == 4

    names = [f"{_at(registry)}/both:{tag}" for tag in ("v1", "v2")]
    platforms = [{"platform": f"linux/{a}", "digest": d} for a, d in zip(("arm64", "amd64"), manifests, strict=True)]
    assert report["images"] == [{"name": "both", "digest": digest, "references": names, "platforms": platforms}]
    assert (project.root / "digests").read_text().split() == [f"{name}@{digest}" for name in names]

    # One question for each tag, and nothing else.
    registry.records.clear()
    lines = project.run("push", _at(registry)).out.splitlines()
    assert sorted((r.method, r.path.rpartition("/")[2]) for r in registry.records if r.path != "/v2/") == [
        ("GET", "v1"),
        ("GET", "v2"),
    ]
    assert lines[:2] == [f"{name}  {digest}" for name in names]
    assert [line.split() for line in lines[2:4]] == [list(platform.values()) for platform in platforms]


@pytest.mark.parametrize("place", ["registry", "layout"])
def test_skopeo_copies_one_platform_and_all(made: Project, registry: Front, tmp_path: Path, place: str) -> None:
    source = f"oci:{made.root}/out:both:v1"
    if place == "registry":
        made.copy(tmp_path / "project").run("push", _at(registry))
        source = f"docker://{_at(registry)}/both:v1"
    digests = dict(zip(("arm64", "amd64"), _manifests(made), strict=True))
    insecure = ["--src-tls-verify=false", "--dest-tls-verify=false"]
    for architecture, digest in digests.items():
        one = tmp_path / architecture
        call("skopeo", "--override-arch", architecture, "copy", *insecure, "--preserve-digests", source, f"dir:{one}")
        assert digest_of((one / "manifest.json").read_bytes()) == digest
    target = f"{_at(registry)}/mirror:1"
    call("skopeo", "copy", "--all", "--preserve-digests", *insecure, source, f"docker://{target}")
    assert _raw(f"docker://{target}") == _raw(source)
    # Named by what it is, wherever it was copied to.
    found = made.run("verify", target, "--deep", "--json").json
    assert found["ok"] and [one["digest"] for one in found["platforms"]] == list(digests.values())
    blobs = sum({row["digest"]: row["size"] for one in found["platforms"] for row in one["layers"]}.values())
    assert blobs < found["read_bytes"] < blobs + 8192, "what platforms share is read once"


def test_archive_of_an_index(pushed: Project, podman: Podman, tmp_path: Path) -> None:
    pushed.run("push", "archive:out.tar")
    archive = pushed.root / "out.tar"
    assert _raw(f"oci-archive:{archive}:both:v1") == _raw(f"oci:{pushed.root}/out:both:v1")
    assert archive.stat().st_size < BIG + 200_000
    # docker's half holds one image for each name: the first of the recipe's platforms.
    config = json.loads(call("skopeo", "inspect", "--config", f"docker-archive:{archive}:both:v2"))
    assert config["architecture"] == "arm64"
    podman("load", "--input", str(archive))
    name = "localhost/both:v1"
    assert podman("image", "inspect", "--format", "{{.Architecture}}", name).strip() == "arm64"
    pushed.write({"recipes/both.yaml": _RECIPE.replace("linux/arm64, linux/amd64", "linux/amd64, linux/arm64")})
    pushed.run("lock", "--check", check=False).failed(3, "was locked for linux/arm64, linux/amd64")
    pushed.run("push", "archive:out.tar", check=False).failed(3, "was locked for")
    pushed.run("lock")
    assert "digest" not in pushed.lock["indexes"]["both"]
    pushed.run("push", "archive:turned.tar")
    config = json.loads(call("skopeo", "inspect", "--config", f"docker-archive:{pushed.root}/turned.tar:both:v2"))
    assert config["architecture"] == "amd64"


def test_part_of_an_index(pushed: Project) -> None:
    pushed.edit_lock(lambda lock: [lock["images"][name].pop("manifest") for name in _NAMES])
    pushed.edit_lock(lambda lock: lock["indexes"]["both"].pop("digest"))
    found = pushed.run("build", "both@linux/amd64", "--json").json
    assert [image["name"] for image in found["images"]] == ["both@linux/amd64"] and "indexes" not in found
    assert found["images"][0]["platform"] == "linux/amd64"
    assert "digest" not in pushed.lock["indexes"]["both"] and "manifest" not in pushed.lock["images"][_NAMES[0]]
    plan = pushed.run("plan", "both@linux/amd64", "--json").json
    assert plan["images"] == ["both@linux/amd64"]
    before = pushed.lockfile.read_bytes()
    failed = pushed.run("push", "oci:new", "both@linux/amd64", check=False)
    failed.failed(2, "every platform is pushed, or none", "linux/arm64", "push both")
    assert not (pushed.root / "new").exists() and pushed.lockfile.read_bytes() == before
    (index,) = pushed.run("build", "both", "--json").json["indexes"]
    assert index["digest"] == pushed.lock["indexes"]["both"]["digest"] and index["images"] == list(_NAMES)
    # What an index became is believed no more than what an image did.
    pushed.edit_lock(lambda lock: lock["indexes"]["both"].update(digest=f"sha256:{'0' * 64}"))
    pushed.run("push", "oci:new", check=False).failed(1, "not reproducible: the index of both", "--repack both")
    pushed.run("lock", "--repack", "both")
    assert "digest" not in pushed.lock["indexes"]["both"]
    pushed.run("push", "oci:new", "bo*")
    assert pushed.lock["indexes"]["both"]["digest"] == index["digest"]


def test_two_runs_record_their_indexes(pushed: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    pushed.write({"recipes/second.yaml": _RECIPE.replace("name: both", "name: second")})
    pushed.run("lock", "--repack", "both")
    for name, value in pushed.environ.items():
        monkeypatch.setenv(name, value)
    workspace = load(pushed.root).workspace
    # Both have read the lock before either writes it.
    builders = {name: workspace.builder(workspace.lock()) for name in ("both", "second")}
    for name, builder in builders.items():
        workspace.record(builder, builder.run(workspace.select([name])).all(), frozen=False)
    workspace.store.close()
    indexes = pushed.lock["indexes"]
    assert sorted(name for name, index in indexes.items() if "digest" in index) == ["both", "second"]


def test_without_tags_it_is_the_digest_of_the_index(pushed: Project) -> None:
    pushed.write({"recipes/both.yaml": _RECIPE.replace("tags: [v1, v2]\n", "")})
    (image,) = pushed.run("push", "oci:out", "--json").json["images"]
    assert image["digest"] == pushed.lock["indexes"]["both"]["digest"]
    assert image["references"] == [f"oci:out:both:{image['digest'][7:19]}"]


def test_platform_that_cannot_be_built_leaves_the_tag(pushed: Project, registry: Front) -> None:
    where = _at(registry)
    pushed.run("push", where)
    before = _raw(f"docker://{where}/both:v1")
    pushed.write({"tools/arm64": "another\n"})
    pushed.run("lock", "--update", "tool-arm64")
    pushed.write({"tools/arm64": "and again another\n"})
    failed = pushed.run("push", where, check=False)
    failed.failed(1, "tools/arm64")
    assert "both" not in failed.out and _raw(f"docker://{where}/both:v1") == before
    pushed.write({"tools/arm64": "another\n"})
    registry.records.clear()
    pushed.run("push", where)
    assert _raw(f"docker://{where}/both:v1") != before
    # One layer, its image's config and manifest, and the index: no more is new.
    assert len(registry.requests("POST", "/blobs/uploads/")) == 2
    assert len(registry.requests("PUT", "/manifests/")) == 3
    assert registry.uploaded() < 16 * 1024


def _verify(project: Project, reference: str, *options: str) -> Any:
    return project.run("verify", reference, *options, "--json", check=False).failed(1, "is not what the lock").json


def test_verify_tells_how_an_index_differs(pushed: Project) -> None:
    sound = pushed.run("verify", "oci:out:both:v1").out
    assert [line.split()[0] for line in sound.splitlines() if line.startswith("linux/")] == [
        "linux/arm64",
        "linux/amd64",
    ]
    assert "is what the lock makes of image both " in sound
    arm64, amd64 = _manifests(pushed)
    for reference in (f"oci:out@{arm64}", "oci:out:both:v1"):
        one = pushed.run("verify", reference, "--image", "both@linux/arm64", "--json").json
        assert one["digest"] == arm64 and one["image"] == "both@linux/arm64"
    assert pushed.run("verify", f"oci:out@{amd64}", "--json").json["image"] == "both@linux/amd64"

    layout = pushed.root / "out"
    top = json.loads((layout / "index.json").read_text())
    index = json.loads(layout_blob(layout, top["manifests"][0]["digest"]))

    def forge(media_type: str, data: bytes) -> None:
        (layout / "blobs/sha256" / sha256(data)).write_bytes(data)
        described = {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}
        top["manifests"][0].update(described)
        (layout / "index.json").write_text(json.dumps(top))

    entries = index["manifests"]
    other = {**entries[0], "platform": {"os": "linux", "architecture": "s390x"}}
    cases: dict[str, dict[str, Any]] = {
        "it has no image for linux/amd64": {"manifests": entries[:1]},
        "it has an image for 'linux/s390x'": {"manifests": [*entries, other]},
        "its images are in another order than the recipe's platforms": {"manifests": entries[::-1]},
        "its annotations are not the recipe's": {"annotations": {}},
    }
    name = next(n for n in (top["manifests"][0]["annotations"].values()))
    for finding, change in cases.items():
        forge(INDEX_TYPE, json.dumps({**index, **change}).encode())
        found = _verify(pushed, f"oci:out:{name}")
        assert found["findings"] == [f"its index is {found['digest']}, {_said(pushed)}", finding]
    # One platform's manifest for another's.
    swapped = [
        {**one, **{k: two[k] for k in ("digest", "size")}} for one, two in zip(entries, entries[::-1], strict=True)
    ]
    forge(INDEX_TYPE, json.dumps({**index, "manifests": swapped}).encode())
    found = _verify(pushed, f"oci:out:{name}")
    assert f"linux/arm64: its manifest is {amd64}, the lock says {arm64}" in found["findings"]
    # One image, where an index should be.
    forge(MANIFEST_TYPE, layout_blob(layout, arm64))
    found = _verify(pushed, f"oci:out:{name}", "--image", "both")
    assert "it is one image, and no index of linux/arm64, linux/amd64" in found["findings"]


def _said(project: Project) -> str:
    return f"the lock says {project.lock['indexes']['both']['digest']}"


def test_audit_of_each_platform(made: Project) -> None:
    reports = made.run("audit", "both", "--json", check=False).json["images"]
    assert [(r["reference"], r["platform"]) for r in reports] == [("both", "linux/arm64"), ("both", "linux/amd64")]
    assert [r["digest"] for r in reports] == _manifests(made)
    (one,) = made.run("audit", "both@linux/amd64", "--json", check=False).json["images"]
    assert one == reports[1]
    there = made.run("audit", "oci:out:both:v1", "--json", check=False).json["images"]
    assert [(r["platform"], r["digest"]) for r in there] == [(r["platform"], r["digest"]) for r in reports]


def test_layers_are_taken_over_from_an_index(pushed: Project) -> None:
    other = _fill(pushed.sibling("other"))
    other.lockfile.write_bytes(pushed.lockfile.read_bytes())
    other.edit_lock(lambda lock: lock.update(receipts={}))
    for name in ("tools/arm64", "tools/amd64", "sd.safetensors"):
        (other.root / name).unlink()
    found = other.run("build", "--cache-from", f"oci:{pushed.root}/out:both:v1", "--json").json
    assert sorted(layer["layer"] for layer in found["cache"]["adopted"]) == sorted(
        ["weights sd", "links both", "hash-cache both", "files tool-arm64", "files tool-amd64", "files note"]
    )
    assert found["indexes"][0]["digest"] == pushed.lock["indexes"]["both"]["digest"]


# --- on a base of several platforms -------------------------------------------------------------------


def _for(base: Image, architecture: str) -> Image:
    """The same base, said to be for another platform."""
    config = MemoryBlob(json.dumps({**json.loads(base.blobs[0].data), "architecture": architecture}).encode())
    manifest = json.loads(base.manifest)
    manifest["config"].update(digest=config.digest, size=config.size)
    return Image(blobs=[config, *base.blobs[1:]], manifest=json.dumps(manifest).encode())


def _base(layout: Path) -> tuple[str, list[Image]]:
    """Writes a base of two platforms, this machine's among them, as an OCI layout. Gives the other one."""
    here = tools_image()
    platform = write_layout(here, layout)
    other = "arm64" if platform == "linux/amd64" else "amd64"
    images = [here, _for(here, other)]
    for data in (images[1].manifest, images[1].blobs[0].data):
        (layout / "blobs/sha256" / sha256(data)).write_bytes(data)
    entries = [
        {
            "mediaType": image.media_type,
            "digest": image.digest,
            "size": len(image.manifest),
            "platform": {"os": "linux", "architecture": json.loads(image.blobs[0].data)["architecture"]},
        }
        for image in images
    ]
    data = json.dumps({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": entries}).encode()
    (layout / "blobs/sha256" / sha256(data)).write_bytes(data)
    name = {"org.opencontainers.image.ref.name": "base"}
    top = {"mediaType": INDEX_TYPE, "digest": digest_of(data), "size": len(data), "annotations": name}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [top]}))
    return other, images


@pytest.mark.xdist_group("podman")
def test_each_platform_has_its_base_and_podman_runs_its_own(project: Project, registry: Front, podman: Podman) -> None:
    other, images = _base(project.root / "base")
    recipe = _RECIPE.replace("webui: {root: /webui}", "base: oci:base:base\nwebui: {root: /srv/webui}")
    _fill(project, recipe.replace("linux/arm64, linux/amd64", "linux/amd64, linux/amd64/v3"))
    project.run("lock", check=False).failed(1, "is not there for linux/amd64/v3", "linux/arm64")
    _fill(project, recipe)
    project.run("lock")
    locked = {name: entry["base"]["digest"] for name, entry in project.lock["images"].items()}
    here = json.loads(images[0].blobs[0].data)["architecture"]
    assert locked == {f"both@linux/{here}": images[0].digest, f"both@linux/{other}": images[1].digest}
    project.run("push", _at(registry))
    base = images[0].blobs[1]
    sent = [r for r in registry.requests("PUT", "/blobs/uploads/") if base.digest.split(":")[1] in r.query]
    assert len(sent) == 1, "a layer of both bases goes once"

    reference = f"{_at(registry)}/both:v1"
    manifests = dict(zip(("arm64", "amd64"), _manifests(project), strict=True))
    podman("manifest", "create", "copy")
    podman("manifest", "add", "--all", "--tls-verify=false", "copy", f"docker://{reference}")
    listed = json.loads(podman("manifest", "inspect", "copy"))["manifests"]
    assert {entry["platform"]["architecture"]: entry["digest"] for entry in listed} == manifests
    podman("pull", "--tls-verify=false", reference)
    assert podman("image", "inspect", "--format", "{{.Digest}}", reference).strip() in (
        manifests[here],
        digest_of(_raw(f"docker://{reference}")),
    )
    link = "/srv/webui/models/Stable-diffusion/sd.safetensors"
    lines = podman.shell(reference, f"cat /opt/tool/name /opt/note; echo; sha256sum <{link}")
    assert lines == [here, "for all", f"{sha256(_MODEL)}  -"]
    annotations = json.loads(_raw(f"docker://{_at(registry)}/both@{manifests[other]}"))["annotations"]
    assert annotations["org.opencontainers.image.base.digest"] == images[1].digest
