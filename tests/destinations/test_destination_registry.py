from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from fixtures.registry import Front, MemoryBlob, digest_of, make_image
from layerbuild import http
from layerbuild.destinations import Destination, open_destination
from layerbuild.errors import BlobUnknown, DestinationError, DigestFirst, UsageError
from layerbuild.registry.clients import Clients
from layerbuild.registry.manifests import INDEX_TYPE, MANIFEST_LIMIT

TAR = "application/vnd.oci.image.layer.v1.tar"


def ignore(amount: int) -> None:
    pass


def clients() -> Clients:
    return Clients(http.Client(http.Policy(retries=1, backoff=0.001)), {})


def open_at(text: str, directory: Path | None = None) -> Destination:
    return open_destination(text, client_for=clients(), directory=directory)


def test_an_image_lands_below_the_prefix_and_skopeo_reads_it(registry: Front, tmp_path: Path) -> None:
    text = f"{registry.host}/{registry.prefix}/team"
    destination = open_at(text)
    image = make_image([(TAR, bytes(10240))])
    for blob in image.blobs:
        destination.put("a1111", blob, advance=ignore)
        assert destination.has("a1111", blob.digest)
    destination.put_manifest("a1111", "1.0", image.media_type, image.manifest)
    destination.put_manifest("a1111", None, image.media_type, image.manifest)
    assert destination.name == text
    assert destination.host == registry.host
    done = subprocess.run(
        ["skopeo", "inspect", "--tls-verify=false", f"docker://{text}/a1111:1.0"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert json.loads(done.stdout)["Digest"] == image.digest
    subprocess.run(
        [
            "skopeo",
            "copy",
            "--preserve-digests",
            "--src-tls-verify=false",
            f"docker://{text}/a1111:1.0",
            f"oci:{tmp_path}/copy:x",
        ],
        check=True,
        capture_output=True,
    )
    assert (tmp_path / "copy" / "blobs" / "sha256" / image.digest.removeprefix("sha256:")).is_file()


def test_mounts_come_from_siblings_and_from_bases(registry: Front) -> None:
    destination = open_at(f"{registry.host}/{registry.prefix}/team")
    shared, base = MemoryBlob(b"shared"), MemoryBlob(b"of the base")
    destination.put("one", shared, advance=ignore)
    open_at(f"{registry.host}/{registry.prefix}").put("base", base, advance=ignore)
    before = registry.uploaded()
    assert not destination.has("two", shared.digest)
    assert destination.mount("two", shared.digest, ["two", "missing", "one"])
    assert destination.mount("two", base.digest, ["one", f"/{registry.prefix}/base"])
    assert destination.has("two", shared.digest)
    assert destination.has("two", base.digest)
    assert registry.uploaded() == before
    assert len(registry.requests("DELETE")) == 2, "the sessions of refused mounts are given back"


def test_the_session_of_a_refused_mount_is_used(registry: Front) -> None:
    destination = open_at(f"{registry.host}/{registry.prefix}")
    blob = MemoryBlob(b"new")
    assert not destination.mount("a", blob.digest, ["none", "neither"])
    destination.put("a", blob, advance=ignore)
    assert destination.has("a", blob.digest)
    assert len(registry.requests("POST")) == 2
    assert len(registry.requests("DELETE")) == 1


def test_no_candidates_no_requests(registry: Front) -> None:
    assert not open_at(f"{registry.host}/{registry.prefix}").mount("a", digest_of(b"x"), ["a"])
    assert not registry.records


def test_without_a_prefix(registry: Front) -> None:
    for text in (registry.host, f"{registry.host}/"):
        destination = open_at(text)
        destination.put(registry.prefix, MemoryBlob(b"x"), advance=ignore)
        assert destination.has(registry.prefix, digest_of(b"x"))
    assert registry.requests("HEAD", f"^/v2/{registry.prefix}/blobs/")


def test_names_and_tags_are_checked_before_anything_is_asked(registry: Front) -> None:
    destination = open_at(f"{registry.host}/{registry.prefix}")
    with pytest.raises(UsageError):
        destination.has("Not A Name", digest_of(b"x"))
    with pytest.raises(UsageError):
        destination.put_manifest("a", "not a tag", "x", b"{}")
    assert not registry.records


def test_a_blob_without_a_name_lands_below_the_prefix(registry: Front) -> None:
    destination = open_at(f"{registry.host}/{registry.prefix}/team")
    data = bytes(range(256)) * 20_000
    told: list[int] = []
    digest = destination.put_unnamed(
        "one", len(data), lambda: iter([data[:7], data[7:]]), title="layer x", advance=told.append
    )
    assert digest == digest_of(data)
    assert destination.has("one", digest, len(data))
    assert destination.mount("two", digest, ["one"])
    assert sum(told) == len(data)
    with pytest.raises(UsageError):
        destination.put_unnamed("Not A Name", 1, lambda: iter([b"x"]), title="x", advance=ignore)


def test_a_destination_that_wants_the_digest_first_says_so() -> None:
    with pytest.raises(DigestFirst):
        open_at("gcr.io/acme").put_unnamed("a", 1, lambda: iter([b"x"]), title="x", advance=ignore)


def test_the_manifest_of_a_tag(registry: Front) -> None:
    destination = open_at(f"{registry.host}/{registry.prefix}")
    assert destination.manifest("a", "1") is None
    image, other = make_image([(TAR, bytes(10240))]), make_image(author="x")
    for blob in image.blobs + other.blobs:
        destination.put("a", blob, advance=ignore)
    destination.put_manifest("a", "1", image.media_type, image.manifest)
    asked = len(registry.records)
    assert destination.manifest("a", "1") == image.manifest
    assert len(registry.records) == asked + 1
    assert destination.manifest("a", "2") is None
    destination.put_manifest("a", "1", other.media_type, other.manifest)
    assert destination.manifest("a", "1") == other.manifest
    with pytest.raises(UsageError):
        destination.manifest("a", "not a tag")


def test_a_tag_of_an_index(registry: Front) -> None:
    destination = open_at(f"{registry.host}/{registry.prefix}")
    image = make_image()
    for blob in image.blobs:
        destination.put("a", blob, advance=ignore)
    entry = {"mediaType": image.media_type, "digest": image.digest, "size": len(image.manifest)}
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [entry]}).encode()
    with pytest.raises(BlobUnknown):
        destination.put_manifest("a", "1", INDEX_TYPE, index)
    destination.put_manifest("a", None, image.media_type, image.manifest)
    destination.put_manifest("a", "1", INDEX_TYPE, index)
    assert destination.manifest("a", "1") == index
    assert destination.manifest("a", image.digest) == image.manifest
    assert destination.manifest("a", digest_of(b"nothing")) is None
    # some registries give what they have, whatever was asked for
    registry.rule("GET", "/manifests/", 200, headers={"Content-Type": "application/json"}, body=index)
    assert destination.manifest("a", "1") is None


def test_a_manifest_of_no_end_is_cut_off(registry: Front) -> None:
    headers = {"Content-Type": make_image().media_type}
    registry.rule("GET", "/manifests/", 200, headers=headers, body=b" " * (MANIFEST_LIMIT + 1))
    with pytest.raises(DestinationError, match=f"more than {MANIFEST_LIMIT} bytes"):
        open_at(f"{registry.host}/{registry.prefix}").manifest("a", "1")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "acme",
        "acme/images",
        "https://ghcr.io/acme",
        "ghcr.io/Acme",
        "ghcr.io/acme:latest",
        "ghcr.io//acme",
        "ghcr.io/acme/",
        "user:hunter2@ghcr.io/acme",
        "ghcr.io:x/acme",
        "/acme",
        "oci:",
        "oci:dir:name",
    ],
)
def test_what_is_no_destination(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_at(text)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("localhost", "localhost"),
        ("localhost/a/b", "localhost"),
        ("registry:5000", "registry:5000"),
        ("docker.io/acme", "docker.io"),
        ("[::1]:5000/a", "[::1]:5000"),
        ("GHCR.io/acme", "ghcr.io"),
    ],
)
def test_hosts(text: str, host: str) -> None:
    destination = open_at(text)
    assert (destination.name, destination.host) == (text, host)


def test_a_layout_is_relative_to_a_directory(tmp_path: Path) -> None:
    destination = open_at("oci:out", tmp_path)
    assert (destination.name, destination.host) == ("oci:out", None)
    destination.put("a", MemoryBlob(b"x"), advance=ignore)
    assert (tmp_path / "out" / "oci-layout").is_file()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "x").write_text("x")
    with pytest.raises(DestinationError):
        open_at("oci:mine", tmp_path)


def test_a_session_of_a_refused_mount_that_is_old_is_given_back(
    registry: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large body must not go to one that has expired meanwhile."""
    there = open_at(f"{registry.host}/{registry.prefix}")
    blob = MemoryBlob(b"data")
    assert not there.mount("a", blob.digest, ["b"])
    monkeypatch.setattr("layerbuild.destinations.registry._FRESH", -1.0)
    there.put("a", blob, advance=lambda amount: None)
    assert there.has("a", blob.digest, blob.size)
    assert len(registry.requests("POST")) == 2 and len(registry.requests("DELETE")) == 1


def test_sessions_are_given_back_after_an_error_too(registry: Front) -> None:
    there = open_at(f"{registry.host}/{registry.prefix}")
    with pytest.raises(KeyboardInterrupt), there.whole():
        there.check_push("a", soon=True)
        raise KeyboardInterrupt
    assert len(registry.requests("DELETE")) == 1
