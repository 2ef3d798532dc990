from __future__ import annotations

import hashlib
import json
import socket
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures import faultproxy as faults
from fixtures.faultproxy import FaultProxy
from fixtures.registry import Front, Image, MemoryBlob, digest_of, docker_config, make_image
from layerbuild import http
from layerbuild.errors import (
    ContentMismatch,
    DestinationError,
    LoginRequired,
    NotFound,
    SourceError,
)
from layerbuild.registry import answers
from layerbuild.registry.client import RegistryClient
from layerbuild.registry.clients import Clients
from layerbuild.registry.manifests import INDEX_TYPE, MANIFEST_LIMIT, MANIFEST_TYPE, MANIFESTS

QUICK = http.Policy(retries=2, backoff=0.001)
TAR = "application/vnd.oci.image.layer.v1.tar"


def client(front: Front, environ: dict[str, str] | None = None) -> RegistryClient:
    return RegistryClient(front.host, client=http.Client(QUICK), environ=environ or {})


def ignore(amount: int) -> None:
    pass


def push(registry: RegistryClient, repository: str, image: Image, tag: str) -> None:
    for blob in image.blobs:
        registry.upload_blob(repository, blob, advance=ignore)
    registry.put_manifest(repository, tag, image.media_type, image.manifest)


# --- blobs ---------------------------------------------------------------------------------------


def test_a_blob_goes_up_in_one_post_and_one_put_and_comes_back(registry: Front) -> None:
    name = f"{registry.prefix}/a"
    blob = MemoryBlob(bytes(range(256)) * 20_000)
    told: list[int] = []
    here = client(registry)
    assert here.head_blob(name, blob.digest) is None
    here.upload_blob(name, blob, advance=told.append)
    assert here.head_blob(name, blob.digest) == blob.size
    assert b"".join(here.open_blob(name, blob.digest)) == blob.data
    assert sum(told) == blob.size
    assert len(told) > 1, "progress is told while the bytes go"
    assert [len(registry.requests(m)) for m in ("POST", "PUT", "PATCH")] == [1, 1, 0]
    assert registry.uploaded() == blob.size
    assert blob.opened == 1


@pytest.mark.parametrize(("offset", "length"), [(0, 5), (3, None), (1_500_000, 700_000), (2_999_999, None), (7, 0)])
def test_parts_of_a_blob_are_asked_for_as_ranges(registry: Front, offset: int, length: int | None) -> None:
    name = f"{registry.prefix}/a"
    data = hashlib.sha256(b"x").digest() * 93_750
    here = client(registry)
    here.upload_blob(name, MemoryBlob(data), advance=ignore)
    end = None if length is None else offset + length
    assert b"".join(here.open_blob(name, digest_of(data), offset=offset, length=length)) == data[offset:end]
    assert sum(r.sent for r in registry.requests("GET")) == len(data[offset:end])


def test_a_registry_without_ranges_is_read_from_the_start(registry: Front) -> None:
    name = f"{registry.prefix}/a"
    blob = MemoryBlob(b"0123456789" * 300_000)
    here = client(registry)
    here.upload_blob(name, blob, advance=ignore)
    registry.rule("GET", "/blobs/", 200, body=blob.data, times=1)
    assert b"".join(here.open_blob(name, blob.digest, offset=1_999_999, length=3)) == b"901"


def test_another_range_than_was_asked_for_is_refused(registry: Front) -> None:
    registry.rule("GET", "/blobs/", 206, headers={"Content-Range": "bytes 0-3/9"}, body=b"abcd")
    with pytest.raises(DestinationError, match="another part"):
        list(client(registry).open_blob(f"{registry.prefix}/a", digest_of(b"x"), offset=5))


def test_a_damaged_blob_is_noticed(registry: Front) -> None:
    registry.rule("GET", "/blobs/", 200, body=b"something else")
    with pytest.raises(ContentMismatch, match="is damaged"):
        list(client(registry).open_blob(f"{registry.prefix}/a", digest_of(b"x")))


def test_a_blob_that_is_not_there(registry: Front) -> None:
    with pytest.raises(NotFound):
        list(client(registry).open_blob(f"{registry.prefix}/a", digest_of(b"x")))


def test_an_empty_blob(registry: Front) -> None:
    name = f"{registry.prefix}/a"
    here = client(registry)
    here.upload_blob(name, MemoryBlob(b""), advance=ignore)
    assert here.head_blob(name, digest_of(b"")) == 0


def test_a_head_without_a_size_is_followed_by_a_question(registry: Front) -> None:
    name, here = f"{registry.prefix}/a", client(registry)
    for data in (b"", b"x", b"0123456789" * 100_000):
        here.upload_blob(name, MemoryBlob(data), advance=ignore)
        registry.rule("HEAD", "", 200, headers={"Content-Length": "many"})
        assert here.head_blob(name, digest_of(data)) == len(data)
    registry.rule("HEAD", "", 200, headers={"Content-Length": "many"})
    assert here.head_blob(name, digest_of(b"not there")) is None


def test_a_size_that_nobody_tells(registry: Front) -> None:
    for method, status in (("HEAD", 200), ("GET", 206)):
        registry.rule(method, "", status, headers={"Content-Length": "many"})
    with pytest.raises(DestinationError, match="does not tell the size"):
        client(registry).head_blob(f"{registry.prefix}/a", digest_of(b"x"))


# --- uploads that go wrong -----------------------------------------------------------------------


def test_bytes_that_are_not_what_they_should_be_stop_before_the_end(registry: Front) -> None:
    name = f"{registry.prefix}/a"
    data = b"x" * 3_000_000
    for blob in (
        MemoryBlob(data, digest=digest_of(b"other")),
        MemoryBlob(data, size=len(data) + 1),
        MemoryBlob(data, size=len(data) - 1),
    ):
        with pytest.raises(ContentMismatch, match="not what they should be"):
            client(registry).upload_blob(name, blob, advance=ignore)
        assert blob.opened == 1, "trying again would not help"
        assert client(registry).head_blob(name, digest_of(data)) is None
    assert all(r.received < len(data) for r in registry.ended("PUT"))


def test_a_source_that_fails_is_not_taken_for_the_registry(registry: Front) -> None:
    class Failing(MemoryBlob):
        def open(self, offset: int = 0) -> Iterator[bytes]:
            yield self.data[:2_000_000]
            yield self.data[2_000_000:2_500_000]
            raise self.error

        error: Exception = SourceError("the disk is on fire")

    blob = Failing(b"x" * 3_000_000)
    told: list[int] = []
    with pytest.raises(SourceError, match="on fire"):
        client(registry).upload_blob(f"{registry.prefix}/a", blob, advance=told.append)
    assert sum(told) == 0, "what was given up does not count"
    blob.error = OSError(5, "Input/output error")
    with pytest.raises(SourceError, match="Input/output error"):
        client(registry).upload_blob(f"{registry.prefix}/a", blob, advance=ignore)
    assert len(registry.requests("POST")) == 2


def test_a_connection_that_breaks_is_followed_by_a_new_session(registry: Front) -> None:
    name = f"{registry.prefix}/a"
    blob = MemoryBlob(b"y" * 5_000_000)
    registry.rule("PUT", "/uploads/", cut=1_000_000)
    told: list[int] = []
    client(registry).upload_blob(name, blob, advance=told.append)
    assert client(registry).head_blob(name, blob.digest) == blob.size
    assert blob.opened == 2
    assert sum(told) == blob.size
    assert min(told) < 0
    puts = [r.path for r in registry.requests("PUT")]
    assert len(set(puts)) == 2, "a broken session is lost"


@pytest.mark.parametrize("status", [500, 502, 503, 429])
def test_trouble_that_may_pass_is_waited_out(registry: Front, status: int) -> None:
    name = f"{registry.prefix}/a"
    registry.rule("PUT", "/uploads/", status)
    registry.rule("POST", "/uploads/", status)
    client(registry).upload_blob(name, MemoryBlob(b"z"), advance=ignore)
    assert client(registry).head_blob(name, digest_of(b"z")) == 1


def test_an_answer_that_was_lost_costs_no_second_upload(registry: Front) -> None:
    name = f"{registry.prefix}/a"
    blob = MemoryBlob(b"w" * 1000)
    registry.rule("PUT", "/uploads/", edit=lambda status, headers, body: (504, {}, b""))
    told: list[int] = []
    client(registry).upload_blob(name, blob, advance=told.append)
    assert len(registry.requests("PUT")) == 1
    assert sum(told) == blob.size


def test_a_session_that_has_gone_is_replaced(registry: Front) -> None:
    name = f"{registry.prefix}/a"
    here = client(registry)
    session = here.mount_blob(name, digest_of(b"q"), f"{registry.prefix}/none").session
    assert session is not None
    here.cancel_upload(name, session)
    here.upload_blob(name, MemoryBlob(b"q"), advance=ignore, session=session)
    assert here.head_blob(name, digest_of(b"q")) == 1
    assert [r.status for r in registry.requests("PUT")] == [404, 201]


def test_a_blob_that_arrives_damaged_is_told(registry: Front) -> None:
    def spoil(status: int, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        return 400, {}, json.dumps({"errors": [{"code": "DIGEST_INVALID", "message": "no match"}]}).encode()

    registry.rule("PUT", "/uploads/", edit=spoil)
    with pytest.raises(DestinationError) as caught:
        client(registry).upload_blob(f"{registry.prefix}/a", MemoryBlob(b"x"), advance=ignore)
    assert "the bytes changed while they were sent" in str(caught.value)
    assert "DIGEST_INVALID: no match" in str(caught.value)


@pytest.mark.parametrize(
    "location", [None, "", "ftp://example.com/x", "http://[", "file:///etc/passwd", "//[::x"], ids=str
)
def test_a_session_at_no_usable_place(registry: Front, location: str | None) -> None:
    headers = {} if location is None else {"Location": location}
    registry.rule("POST", "/uploads/", 202, headers=headers)
    with pytest.raises(DestinationError, match="no usable place to upload to"):
        client(registry).upload_blob(f"{registry.prefix}/a", MemoryBlob(b"x"), advance=ignore)


def test_a_relative_session_with_a_query(registry: Front) -> None:
    name = f"{registry.prefix}/a"

    def relative(status: int, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        return status, {**headers, "Location": headers["Location"].removeprefix(registry.url)}, body

    registry.rule("POST", "/uploads/", edit=relative)
    client(registry).upload_blob(name, MemoryBlob(b"x"), advance=ignore)
    (put,) = registry.requests("PUT")
    assert put.query.startswith("_state=")
    assert put.query.endswith(f"&digest={digest_of(b'x').replace(':', '%3A')}")


def test_a_session_elsewhere_gets_the_bytes_and_no_password(
    login_registry: Front, registry: Front, tmp_path: Path
) -> None:
    login_registry.rule("POST", "/uploads/", 202, headers={"Location": f"{registry.url}/store?sig=hunter2"})
    registry.rule("PUT", "^/store", 201)
    here = client(login_registry, docker_config(tmp_path, login_registry.host))
    here.head_blob(f"{login_registry.prefix}/a", digest_of(b"x"))
    here.upload_blob(f"{login_registry.prefix}/a", MemoryBlob(b"x" * 2_000_000), advance=ignore)
    (put,) = registry.requests("PUT")
    assert put.received == 2_000_000
    assert "Authorization" not in put.headers
    assert not login_registry.requests("PUT")


def test_a_session_elsewhere_that_refuses_is_told_without_its_address(login_registry: Front, registry: Front) -> None:
    login_registry.rule("POST", "/uploads/", 202, headers={"Location": f"{registry.url}/store?sig=hunter2"})
    registry.rule("PUT", "^/store", 403)
    with pytest.raises(LoginRequired) as caught:
        client(login_registry).upload_blob(f"{login_registry.prefix}/a", MemoryBlob(b"x"), advance=ignore)
    assert "hunter2" not in str(caught.value)


def test_a_blob_elsewhere_is_fetched_without_the_password(
    login_registry: Front, registry: Front, tmp_path: Path
) -> None:
    blob = MemoryBlob(b"0123456789")
    client(registry).upload_blob(f"{registry.prefix}/a", blob, advance=ignore)
    there = f"{registry.url}/v2/{registry.prefix}/a/blobs/{blob.digest}?sig=hunter2"
    login_registry.rule("GET", "/blobs/", 307, headers={"Location": there}, times=2)
    here = client(login_registry, docker_config(tmp_path, login_registry.host))
    here.head_blob(f"{login_registry.prefix}/a", blob.digest)
    assert b"".join(here.open_blob(f"{login_registry.prefix}/a", blob.digest)) == blob.data
    assert b"".join(here.open_blob(f"{login_registry.prefix}/a", blob.digest, offset=4, length=2)) == b"45"
    first, second = registry.requests("GET")
    assert "Authorization" not in first.headers
    assert second.headers["Range"] == "bytes=4-5"
    assert all("Authorization" in r.headers for r in login_registry.requests("GET"))


# --- mounts --------------------------------------------------------------------------------------


def test_a_mount_moves_no_bytes(registry: Front) -> None:
    here = client(registry)
    blob = MemoryBlob(b"m" * 100_000)
    here.upload_blob(f"{registry.prefix}/a", blob, advance=ignore)
    before = registry.uploaded()
    mount = here.mount_blob(f"{registry.prefix}/b", blob.digest, f"{registry.prefix}/a")
    assert mount
    assert mount.session is None
    assert here.head_blob(f"{registry.prefix}/b", blob.digest) == blob.size
    assert registry.uploaded() == before


def test_a_refused_mount_leaves_a_session_that_an_upload_uses(registry: Front) -> None:
    here = client(registry)
    mount = here.mount_blob(f"{registry.prefix}/b", digest_of(b"n"), f"{registry.prefix}/none")
    assert not mount
    here.upload_blob(f"{registry.prefix}/b", MemoryBlob(b"n"), advance=ignore, session=mount.session)
    assert len(registry.requests("POST")) == 1
    assert here.head_blob(f"{registry.prefix}/b", digest_of(b"n")) == 1


@pytest.mark.parametrize("status", [400, 403, 404, 405])
def test_a_mount_that_fails_is_a_mount_that_was_refused(registry: Front, status: int) -> None:
    registry.rule("POST", "/uploads/", status)
    mount = client(registry).mount_blob(f"{registry.prefix}/b", digest_of(b"n"), f"{registry.prefix}/a")
    assert not mount
    assert mount.session is None


# --- manifests -----------------------------------------------------------------------------------


def test_manifests_keep_their_bytes(registry: Front) -> None:
    name = f"{registry.prefix}/a"
    here = client(registry)
    image = make_image([(TAR, b"layer")])
    odd = json.dumps(json.loads(image.manifest), indent=7).encode() + b"\n\n"
    image = Image(blobs=image.blobs, manifest=odd)
    push(here, name, image, "v1")
    for reference in ("v1", image.digest):
        assert here.get_manifest(name, reference, accept=MANIFESTS) == (MANIFEST_TYPE, odd, image.digest)


def test_an_index_by_digest_only(registry: Front) -> None:
    name = f"{registry.prefix}/a"
    here = client(registry)
    image = make_image()
    push(here, name, image, image.digest)
    entry = {"mediaType": image.media_type, "digest": image.digest, "size": len(image.manifest)}
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [entry]}).encode()
    here.put_manifest(name, digest_of(index), INDEX_TYPE, index)
    assert here.get_manifest(name, digest_of(index), accept=[INDEX_TYPE])[1] == index


def test_a_manifest_that_is_not_there(registry: Front) -> None:
    with pytest.raises(NotFound, match="a:none does not exist"):
        client(registry).get_manifest(f"{registry.prefix}/a", "none", accept=MANIFESTS)


def test_a_manifest_with_another_digest_is_refused(registry: Front) -> None:
    registry.rule("GET", "/manifests/", 200, headers={"Content-Type": MANIFEST_TYPE}, body=b"{}")
    with pytest.raises(ContentMismatch):
        client(registry).get_manifest(f"{registry.prefix}/a", digest_of(b"x"), accept=MANIFESTS)


def test_a_digest_header_is_not_believed(registry: Front) -> None:
    headers = {"Content-Type": f"{MANIFEST_TYPE}; charset=utf-8", "Docker-Content-Digest": digest_of(b"lie")}
    registry.rule("GET", "/manifests/", 200, headers=headers, body=b"{}")
    found = client(registry).get_manifest(f"{registry.prefix}/a", "v1", accept=MANIFESTS)
    assert found == (MANIFEST_TYPE, b"{}", digest_of(b"{}"))


def test_a_manifest_of_no_end_is_cut_off(registry: Front) -> None:
    registry.rule("GET", "/manifests/", 200, body=b" " * (MANIFEST_LIMIT + 1))
    with pytest.raises(DestinationError, match=f"more than {MANIFEST_LIMIT} bytes"):
        client(registry).get_manifest(f"{registry.prefix}/a", "v1", accept=MANIFESTS)


def test_a_manifest_whose_blobs_are_missing(registry: Front) -> None:
    image = make_image([(TAR, b"never pushed")])
    with pytest.raises(DestinationError) as caught:
        client(registry).put_manifest(f"{registry.prefix}/a", "v1", image.media_type, image.manifest)
    assert "MANIFEST_BLOB_UNKNOWN" in str(caught.value)
    assert "run the command again" in str(caught.value)


def test_a_registry_that_rewrites_manifests(registry: Front) -> None:
    registry.rule("PUT", "/manifests/", 201, headers={"Docker-Content-Digest": digest_of(b"other")})
    with pytest.raises(DestinationError, match="as given"):
        client(registry).put_manifest(f"{registry.prefix}/a", "v1", MANIFEST_TYPE, b"{}")


@pytest.mark.parametrize("status", [200, 204])
def test_a_manifest_that_somebody_else_says_to_have_stored(registry: Front, status: int) -> None:
    """A proxy may answer so to anything. A registry is asked what it has."""
    name, image = f"{registry.prefix}/a", make_image([(TAR, b"layer")])
    registry.rule("PUT", "/manifests/", status)
    with pytest.raises(DestinationError, match="did not store") as caught:
        push(client(registry), name, image, "v1")
    assert "has none of that name" in (caught.value.cause or "")
    registry.rule("PUT", "/manifests/", edit=lambda _status, _headers, _body: (status, {}, b""))
    push(client(registry), name, image, "v1")
    assert client(registry).get_manifest(name, "v1", accept=MANIFESTS)[1] == image.manifest


@pytest.mark.parametrize("headers", [{}, {"Location": "ftp://127.0.0.1/x"}])
def test_a_refused_mount_without_a_session(registry: Front, headers: dict[str, str]) -> None:
    registry.rule("POST", "/uploads/", 202, headers=headers)
    answer = client(registry).mount_blob(f"{registry.prefix}/b", digest_of(b"x"), f"{registry.prefix}/a")
    assert not answer and answer.session is None


# --- registries that say no ----------------------------------------------------------------------


def test_a_registry_that_is_down() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{taken.getsockname()[1]}"
        here = RegistryClient(host, client=http.Client(QUICK), environ={})
        for work in (
            lambda: here.head_blob("a", digest_of(b"x")),
            lambda: here.upload_blob("a", MemoryBlob(b"x"), advance=ignore),
            lambda: here.put_manifest("a", "v1", MANIFEST_TYPE, b"{}"),
        ):
            with pytest.raises(DestinationError, match="cannot be reached") as caught:
                work()
            assert host in str(caught.value)
            assert caught.value.hint


def test_a_registry_that_dies_while_it_takes_a_blob(registry: Front) -> None:
    registry.rule("PUT", "/uploads/", cut=10, times=9)
    with pytest.raises(DestinationError, match="cannot be reached"):
        client(registry).upload_blob(f"{registry.prefix}/a", MemoryBlob(b"x" * 100_000), advance=ignore)
    assert len(registry.requests("PUT")) == QUICK.retries + 1


def test_a_registry_in_maintenance(readonly_registry: Front) -> None:
    here = client(readonly_registry)
    for work in (
        lambda: here.upload_blob(f"{readonly_registry.prefix}/a", MemoryBlob(b"x"), advance=ignore),
        lambda: here.put_manifest(f"{readonly_registry.prefix}/a", "v1", MANIFEST_TYPE, b"{}"),
    ):
        with pytest.raises(DestinationError) as caught:
            work()
        assert "read-only" in str(caught.value)
        assert not isinstance(caught.value, LoginRequired)


@pytest.mark.parametrize(
    ("status", "code", "message", "kind", "expected"),
    [
        (400, "NAME_INVALID", "bad name", DestinationError, "change the image's name"),
        (404, "NAME_UNKNOWN", "no repository", DestinationError, "created before the first push"),
        (413, "", "", DestinationError, "limits the size"),
        (403, "DENIED", "adding 5 GB of storage would exceed the quota", DestinationError, "no room"),
        (403, "DENIED", "requested access is denied", LoginRequired, "docker login"),
        (507, "", "", DestinationError, "no room"),
        (429, "TOOMANYREQUESTS", "slow down", DestinationError, "rate"),
        (503, "UNSUPPORTED", "maintenance", DestinationError, "read-only"),
        (500, "UNKNOWN", "oops", DestinationError, "in trouble"),
        (418, "", "", DestinationError, "ask whoever runs"),
    ],
)
def test_refusals_say_what_to_do(
    registry: Front, status: int, code: str, message: str, kind: type[DestinationError], expected: str
) -> None:
    body = json.dumps({"errors": [{"code": code, "message": message}]}).encode() if code else b""
    registry.rule("POST", "/uploads/", status, body=body, times=9)
    with pytest.raises(DestinationError) as caught:
        client(registry).upload_blob(f"{registry.prefix}/a", MemoryBlob(b"x"), advance=ignore)
    assert type(caught.value) is kind
    assert expected in str(caught.value)
    assert message in str(caught.value)
    assert str(status) in str(caught.value)


def test_words_from_outside_are_cleaned(registry: Front) -> None:
    words = "see https://user:hunter2@cdn.example.com/x?sig=hunter2 \x1b[31mnow\r\n" + "a" * 5000
    body = json.dumps({"errors": [{"code": "DENIED", "message": words}]}).encode()
    registry.rule("POST", "/uploads/", 400, body=body)
    with pytest.raises(DestinationError) as caught:
        client(registry).upload_blob(f"{registry.prefix}/a", MemoryBlob(b"x"), advance=ignore)
    cause = caught.value.cause or ""
    assert "hunter2" not in cause
    assert "\x1b" not in cause
    assert "\n" not in cause
    assert "https://cdn.example.com/x" in cause
    assert len(cause) < 400


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b'{"errors": 7}', b'{"errors": [7, {"code": []}]}', b"[" * 60_000, b"x" * 300_000], ids=len
)
def test_refusals_of_any_shape_are_survived(registry: Front, body: bytes) -> None:
    registry.rule("POST", "/uploads/", 400, body=body)
    with pytest.raises(DestinationError, match="refuses to take an upload"):
        client(registry).upload_blob(f"{registry.prefix}/a", MemoryBlob(b"x"), advance=ignore)


# --- the client itself ---------------------------------------------------------------------------


def test_tls_but_for_this_machine_and_for_hosts_that_were_named() -> None:
    clients = Clients(http.Client(QUICK), {}, insecure=["Registry.lan:5000"])
    assert clients("ghcr.io").prefix == "https"
    assert clients("registry.lan:5000").prefix == "http"
    assert clients("registry.lan").prefix == "https"
    assert clients("localhost:5000").prefix == "http"
    assert clients("docker.io").hostname == "registry-1.docker.io"
    assert clients("index.docker.io") is clients("docker.io")


def test_what_oras_brings_still_works(registry: Front) -> None:
    here = client(registry)
    push(here, f"{registry.prefix}/a", make_image(), "v1")
    assert here.get_tags(f"{registry.host}/{registry.prefix}/a") == ["v1"]


def test_one_thread_needs_one_connection(registry: Front) -> None:
    """Answers of every kind are read to their end: none of 200 requests and more costs a connection."""
    here = client(registry)
    name = f"{registry.prefix}/a"
    image = make_image([(TAR, b"layer")])
    push(here, name, image, "v1")
    for number in range(20):
        absent = digest_of(str(number).encode())
        assert here.head_blob(name, absent) is None
        assert here.head_blob(name, image.blobs[0].digest) is not None
        assert here.mount_blob(f"{name}{number}", image.blobs[0].digest, name)
        mount = here.mount_blob(f"{name}{number}", absent, name)
        assert mount.session is not None
        here.cancel_upload(f"{name}{number}", mount.session)
        assert here.get_manifest(name, "v1", accept=MANIFESTS)[1] == image.manifest
        with pytest.raises(NotFound):
            here.get_manifest(name, "none", accept=MANIFESTS)
        here.put_manifest(name, f"v{number}", image.media_type, image.manifest)
        with pytest.raises(DestinationError):
            here.put_manifest(f"{name}-other", "v1", image.media_type, image.manifest)
        here.upload_blob(name, MemoryBlob(bytes([number])), advance=ignore)
        list(here.open_blob(name, image.blobs[0].digest))
    assert len(registry.records) > 200
    assert registry.connections == 1


def test_trouble_and_redirects_cost_no_connection(registry: Front) -> None:
    here = client(registry)
    name = f"{registry.prefix}/a"
    image = make_image()
    push(here, name, image, "v1")
    registry.rule("GET", "/manifests/", 503, body=b"x" * 50_000)
    registry.rule("GET", "/manifests/v1", 307, headers={"Location": f"/v2/{name}/manifests/{image.digest}"}, body=b"x")
    assert here.get_manifest(name, "v1", accept=MANIFESTS)[1] == image.manifest
    assert registry.connections == 1


def test_a_long_answer_that_is_of_no_use_is_not_read(registry: Front) -> None:
    here = client(registry)
    registry.rule("HEAD", "", 404)
    here.head_blob(f"{registry.prefix}/a", digest_of(b"x"))
    rule = registry.rule("GET", "/manifests/", 503, body=bytes(64 << 20), times=2)
    registry.rule("GET", "/manifests/", 404)
    with pytest.raises(NotFound):
        here.get_manifest(f"{registry.prefix}/a", "v1", accept=MANIFESTS)
    assert rule.times == 0
    assert registry.connections == 3


def test_memory_does_not_grow_with_a_blob(registry: Front) -> None:
    class Big(MemoryBlob):
        def open(self, offset: int = 0) -> Iterator[bytes]:
            for _ in range(64):
                yield bytes(1 << 20)

    digest = hashlib.sha256()
    for _ in range(64):
        digest.update(bytes(1 << 20))
    blob = Big(b"", digest=f"sha256:{digest.hexdigest()}", size=64 << 20)
    here = client(registry)
    tracemalloc.start()
    try:
        here.upload_blob(f"{registry.prefix}/a", blob, advance=ignore)
        for _ in here.open_blob(f"{registry.prefix}/a", blob.digest):
            pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20


def test_what_the_body_of_a_good_answer_does_is_no_news(registry: Front) -> None:
    here, repository = client(registry), f"{registry.prefix}/a"
    registry.rule("PUT", "/blobs/uploads/", 201, body=b"x" * 100_000)
    here.upload_blob(repository, MemoryBlob(b"data"), advance=lambda amount: None)
    assert len(registry.requests("PUT", "/blobs/uploads/")) == 1 and not registry.requests("DELETE", "")


def test_a_manifest_that_breaks_off_is_asked_for_again(registry: Front, proxied: FaultProxy) -> None:
    image = make_image([])
    repository = f"{registry.prefix}/a"
    here = client(registry)
    for blob in image.blobs:
        here.upload_blob(repository, blob, advance=lambda amount: None)
    here.put_manifest(repository, "1", image.media_type, image.manifest)
    proxied.on("GET", "/manifests/", faults.cut_answer(20), times=2)
    through = RegistryClient(proxied.host, client=http.Client(http.Policy(retries=2, backoff=0.001)), environ={})
    assert through.get_manifest(repository, "1", accept=[image.media_type])[1] == image.manifest


def test_the_words_of_a_refusal_are_cut_before_they_are_looked_at() -> None:
    assert len(answers.clean("a" * 3_000_000)) == 300
