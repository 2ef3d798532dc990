"""`layerbuild attach` and `layerbuild referrers`, and what skopeo reads of it."""

from __future__ import annotations

import json
import os

import pytest

from e2e.readers import call
from fixtures.project import Project
from fixtures.registry import Front, MemoryBlob, digest_of, make_image
from fixtures.specregistry import SpecRegistry
from layerbuild import http
from layerbuild.registry.client import RegistryClient
from layerbuild.registry.manifests import INDEX_TYPE

SBOM = "application/spdx+json"


@pytest.fixture(params=["registry", "spec_registry"])
def server(request: pytest.FixtureRequest) -> Front | SpecRegistry:
    found: Front | SpecRegistry = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def outside(project: Project) -> Project:
    """A place without a project: none is needed."""
    (project.root / "recipes").rmdir()
    return project.write({"sbom.json": b'{"spdxVersion": "SPDX-2.3"}', "NOTICE": b"all of it\n"})


def _pushed(server: Front | SpecRegistry) -> tuple[str, str, str]:
    """A repository with an image under a tag, and an index of it under another: its name, and their digests."""
    client, image = RegistryClient(server.host, client=http.Client(), environ={}), make_image()
    repository = f"{server.prefix}/a"
    for blob in image.blobs:
        client.upload_blob(repository, MemoryBlob(blob.data), advance=lambda _: None)
    client.put_manifest(repository, "v1", image.media_type, image.manifest)
    entry = {"mediaType": image.media_type, "digest": image.digest, "size": len(image.manifest)}
    entry |= {"platform": {"os": "linux", "architecture": "amd64"}}
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [entry]}).encode()
    client.put_manifest(repository, "all", INDEX_TYPE, index)
    return f"{server.host}/{repository}", image.digest, digest_of(index)


def test_attach_and_list(outside: Project, server: Front | SpecRegistry) -> None:
    name, image, index = _pushed(server)
    first = outside.run("attach", f"{name}:v1", "sbom.json", "--type", SBOM, "--annotation", "by=me", "--json").json
    assert first["subject"]["digest"] == image and first["reference"].startswith(f"{name}@sha256:")
    again = outside.run("attach", f"{name}@{image}", "sbom.json", "--type", SBOM, "--annotation", "by=me")
    assert again.out == f"{first['reference']}\nattached to {image}\n"
    outside.run("attach", f"{name}:v1", "NOTICE", "sbom.json", "--type", "text/x-licence")
    outside.run("attach", f"{name}:all", "NOTICE", "--type", "text/x-licence")
    listed = outside.run("referrers", f"{name}:v1", "--json").json
    assert listed["subject"] == f"{name}@{image}"
    assert {r["artifactType"] for r in listed["referrers"]} == {SBOM, "text/x-licence"}
    (only,) = outside.run("referrers", f"{name}@{image}", "--type", SBOM, "--json").json["referrers"]
    assert (only["digest"], only["annotations"]) == (first["digest"], {"by": "me"})
    of_index = outside.run("referrers", f"{name}:all").out
    assert of_index.startswith(f"1 attached to {name}@{index}\n") and "text/x-licence" in of_index
    assert outside.run("referrers", f"{name}:v1", "--type", "x/none").out == f"0 attached to {name}@{image}\n"


def test_skopeo_reads_it(outside: Project, registry: Front) -> None:
    name, image, _ = _pushed(registry)
    found = outside.run("attach", f"{name}:v1", "sbom.json", "NOTICE", "--type", SBOM, "--json").json
    skopeo = ("skopeo", "inspect", "--raw", "--tls-verify=false")
    listed = json.loads(call(*skopeo, f"docker://{name}:{image.replace(':', '-')}"))
    assert [entry["digest"] for entry in listed["manifests"]] == [found["digest"]]
    manifest = json.loads(call(*skopeo, f"docker://{found['reference']}"))
    assert (manifest["artifactType"], manifest["subject"]["digest"]) == (SBOM, image)
    assert [layer["annotations"]["org.opencontainers.image.title"] for layer in manifest["layers"]] == [
        "sbom.json",
        "NOTICE",
    ]
    copied = outside.root / "copied"
    call("skopeo", "copy", "--src-tls-verify=false", f"docker://{found['reference']}", f"dir:{copied}")
    blob = copied / manifest["layers"][0]["digest"].removeprefix("sha256:")
    assert blob.read_bytes() == (outside.root / "sbom.json").read_bytes()


def test_what_cannot_be_attached(outside: Project, registry: Front) -> None:
    name, _, _ = _pushed(registry)
    outside.write({"elsewhere/NOTICE": b"x"})
    typed = ("--type", SBOM)
    for arguments, code, words in (
        ((f"{name}:v2", "NOTICE", *typed), 1, "does not exist"),
        ((f"{name}:v1", "gone", *typed), 1, "gone cannot be read"),
        ((f"{name}:v1", "NOTICE", "elsewhere/NOTICE", *typed), 2, "two files are called 'NOTICE'"),
        ((f"{name}:v1", "NOTICE", "--type", "sbom"), 2, "'sbom' is not a media type"),
        ((f"{name}:v1", "NOTICE", *typed, "--annotation", "x"), 2, "'x' is not an annotation"),
        (("oci:images:a:v1", "NOTICE", *typed), 2, "is not in a registry"),
    ):
        outside.run("attach", *arguments, check=False).failed(code, words)
    outside.run("referrers", f"{name}:v2", check=False).failed(1, "does not exist")
    assert registry.requests("PUT", "/manifests/sha256") == []


def test_names_that_are_no_text(project: Project, registry: Front) -> None:
    for arguments in (["a.txt", "--annotation", b"a=\xff"], [b"\xff.txt"]):
        command = ["attach", f"{registry.host}/x:1", *map(os.fsdecode, arguments), "--type", "text/plain"]
        project.write({"a.txt": "x"})
        (project.root / os.fsdecode(b"\xff.txt")).write_bytes(b"x")
        project.run(*command, check=False).failed(2, "is not UTF-8")
    assert not registry.requests("POST")
