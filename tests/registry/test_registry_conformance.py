"""distribution-spec 1.1, asked of Debian's docker-registry and of the tests' own registry: they differ only by name."""

from __future__ import annotations

import hashlib
import http.client
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

import pytest
import requests

from fixtures.registry import Front, digest_of, make_image
from fixtures.specregistry import SpecRegistry

DATA = b"0123456789" * 1000
TAR = "application/vnd.oci.image.layer.v1.tar"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


class Peer:
    """One of the registries, and requests to it."""

    def __init__(self, url: str, repository: str) -> None:
        self.url, self.repository = url, repository
        self._session = requests.Session()
        self._session.trust_env = False

    def ask(self, method: str, path: str, *, data: bytes | None = None, **headers: str) -> requests.Response:
        url = path if path.startswith("http") else f"{self.url}/v2/{self.repository}/{path}"
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return self._session.request(method, url, data=data, headers=sent, timeout=30)

    def start(self) -> str:
        response = self.ask("POST", "blobs/uploads/")
        assert response.status_code == 202
        return self.place(response)

    def place(self, response: requests.Response) -> str:
        return urljoin(self.url, response.headers["Location"])

    def finish(self, location: str, digest: str, data: bytes = b"") -> requests.Response:
        separator = "&" if "?" in location else "?"
        return self.ask("PUT", f"{location}{separator}{urlencode({'digest': digest})}", data=data)

    def store(self, data: bytes) -> str:
        assert self.finish(self.start(), digest_of(data), data).status_code == 201
        return digest_of(data)

    def other(self) -> Peer:
        return Peer(self.url, f"{self.repository}-other")

    def broken(self, location: str, data: bytes, announced: int) -> None:
        """A PATCH whose connection breaks after `data`. Returns when the registry has noticed."""
        parts = urlsplit(location)
        connection = http.client.HTTPConnection(parts.netloc, timeout=30)
        connection.putrequest("PATCH", f"{parts.path}?{parts.query}")
        connection.putheader("Content-Length", str(announced))
        connection.endheaders(data)
        connection.sock.shutdown(1)
        connection.sock.recv(1000)
        connection.close()

    def close(self) -> None:
        self._session.close()


@pytest.fixture(params=["specification", "docker-registry"])
def peer(request: pytest.FixtureRequest) -> Iterator[Peer]:
    front: Any = request.getfixturevalue("spec_registry" if request.param == "specification" else "registry")
    found = Peer(front.url, f"{front.prefix}/conformance")
    yield found
    found.close()


@pytest.fixture
def spec(spec_registry: SpecRegistry) -> Iterator[Peer]:
    found = Peer(spec_registry.url, "acme/a")
    yield found
    found.close()


@pytest.fixture
def docker(registry: Front) -> Iterator[Peer]:
    found = Peer(f"http://127.0.0.1:{registry.backend.port}", f"{registry.prefix}/a")
    yield found
    found.close()


# --- what both do --------------------------------------------------------------------------------


def test_a_put_of_the_whole_body(peer: Peer) -> None:
    digest = peer.store(DATA)
    found = peer.ask("GET", f"blobs/{digest}")
    assert (found.status_code, found.content) == (200, DATA)
    head = peer.ask("HEAD", f"blobs/{digest}")
    assert (head.status_code, head.headers["Content-Length"]) == (200, str(len(DATA)))
    part = peer.ask("GET", f"blobs/{digest}", Range="bytes=5-9")
    assert (part.status_code, part.content) == (206, b"56789")
    assert part.headers["Content-Range"] == f"bytes 5-9/{len(DATA)}"


@pytest.mark.parametrize("ranges", [True, False])
def test_chunks_and_the_sessions_status_between_them(peer: Peer, ranges: bool) -> None:
    location = peer.start()
    for start, stop in ((0, 4000), (4000, 7000), (7000, len(DATA))):
        headers = {"Content_Range": f"{start}-{stop - 1}"} if ranges else {}
        answer = peer.ask("PATCH", location, data=DATA[start:stop], **headers)
        assert (answer.status_code, answer.headers["Range"]) == (202, f"0-{stop - 1}")
        location = peer.place(answer)
        status = peer.ask("GET", location)
        assert (status.status_code, status.headers["Range"]) == (204, f"0-{stop - 1}")
        location = peer.place(status)
    answer = peer.finish(location, digest_of(DATA))
    assert (answer.status_code, answer.headers["Docker-Content-Digest"]) == (201, digest_of(DATA))
    assert peer.ask("GET", f"blobs/{digest_of(DATA)}").content == DATA


def test_the_last_chunk_may_come_with_the_name(peer: Peer) -> None:
    location = peer.place(peer.ask("PATCH", peer.start(), data=DATA[:300]))
    assert peer.finish(location, digest_of(DATA), DATA[300:]).status_code == 201


def test_an_empty_session_says_what_one_of_a_byte_says(peer: Peer) -> None:
    location = peer.start()
    assert peer.ask("GET", location).headers["Range"] == "0-0"
    answer = peer.ask("PATCH", location, data=b"x")
    assert peer.ask("GET", peer.place(answer)).headers["Range"] == "0-0"


def test_another_digest_is_refused(peer: Peer) -> None:
    answer = peer.finish(peer.start(), digest_of(b"other"), DATA)
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (400, "DIGEST_INVALID")
    assert peer.ask("HEAD", f"blobs/{digest_of(b'other')}").status_code == 404


def test_a_session_that_is_given_back(peer: Peer) -> None:
    location = peer.start()
    assert peer.ask("DELETE", location).status_code == 204
    assert peer.ask("GET", location).status_code == 404
    assert peer.finish(location, digest_of(DATA), DATA).status_code == 404


def test_mounts(peer: Peer) -> None:
    digest, other = peer.store(DATA), peer.other()
    assert other.ask("HEAD", f"blobs/{digest}").status_code == 404
    refused = other.ask("POST", f"blobs/uploads/?mount={digest}&from=nobody/has-it")
    assert refused.status_code == 202
    assert "Location" in refused.headers
    assert other.ask("POST", f"blobs/uploads/?mount={digest}&from={peer.repository}").status_code == 201
    assert other.ask("GET", f"blobs/{digest}").content == DATA
    other.close()


def test_manifests_and_tags(peer: Peer) -> None:
    image = make_image([(TAR, DATA)])
    refused = peer.ask("PUT", "manifests/v1", data=image.manifest, Content_Type=MANIFEST)
    assert (refused.status_code, refused.json()["errors"][0]["code"]) == (400, "MANIFEST_BLOB_UNKNOWN")
    for blob in image.blobs:
        peer.store(blob.data)
    answer = peer.ask("PUT", "manifests/v1", data=image.manifest, Content_Type=MANIFEST)
    assert (answer.status_code, answer.headers["Docker-Content-Digest"]) == (201, image.digest)
    for reference in ("v1", image.digest):
        found = peer.ask("GET", f"manifests/{reference}", Accept=MANIFEST)
        assert (found.status_code, found.content, found.headers["Content-Type"]) == (200, image.manifest, MANIFEST)
    assert peer.ask("GET", "tags/list").json()["tags"] == ["v1"]
    assert peer.ask("GET", "manifests/v2", Accept=MANIFEST).status_code == 404


# --- where they differ ---------------------------------------------------------------------------


def test_after_a_broken_body_the_specification_goes_on(spec: Peer) -> None:
    location = spec.start()
    spec.broken(location, DATA[:1234], len(DATA))
    status = spec.ask("GET", location)
    assert (status.status_code, status.headers["Range"]) == (204, "0-1233")
    answer = spec.ask("PATCH", location, data=DATA[1234:], Content_Range=f"1234-{len(DATA) - 1}")
    assert answer.status_code == 202
    assert spec.finish(location, digest_of(DATA)).status_code == 201


def test_after_a_broken_body_docker_registry_has_lost_it(docker: Peer) -> None:
    location = docker.start()
    docker.broken(location, DATA[:1234], len(DATA))
    assert docker.ask("GET", location).status_code == 404


@pytest.mark.parametrize("start", [3, 5])
def test_a_wrong_offset_is_refused_by_the_specification(spec: Peer, start: int) -> None:
    location = spec.place(spec.ask("PATCH", spec.start(), data=b"0123"))
    answer = spec.ask("PATCH", location, data=DATA[start:], Content_Range=f"{start}-{len(DATA) - 1}")
    assert answer.status_code == 416
    assert spec.ask("GET", location).headers["Range"] == "0-3", "and the session lives on"


def test_a_wrong_offset_loses_the_session_at_docker_registry(docker: Peer) -> None:
    location = docker.place(docker.ask("PATCH", docker.start(), data=b"0123"))
    answer = docker.ask("PATCH", location, data=DATA[5:], Content_Range=f"5-{len(DATA) - 1}")
    assert answer.status_code == 202
    assert docker.finish(docker.place(answer), digest_of(DATA)).status_code != 201


def test_referrers(spec: Peer, docker: Peer) -> None:
    image = make_image([(TAR, DATA)])
    empty = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest_of(b"{}"), "size": 2}
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": "application/x-note",
        "config": empty,
        "layers": [empty],
        "subject": {"mediaType": MANIFEST, "digest": image.digest, "size": len(image.manifest)},
    }
    note = json.dumps(document).encode()
    for peer in (spec, docker):
        peer.store(b"{}")
        answer = peer.ask("PUT", f"manifests/{digest_of(note)}", data=note, Content_Type=MANIFEST)
        assert answer.status_code == 201
        assert ("OCI-Subject" in answer.headers) == (peer is spec)
    assert docker.ask("GET", f"referrers/{image.digest}").status_code == 404
    (found,) = spec.ask("GET", f"referrers/{image.digest}").json()["manifests"]
    assert found["digest"] == f"sha256:{hashlib.sha256(note).hexdigest()}"
    assert found["artifactType"] == "application/x-note"


# --- the switches --------------------------------------------------------------------------------


@pytest.mark.parametrize(("streams", "status"), [("405", 405), ("201", 201)])
def test_monolithic_only(spec_registry: SpecRegistry, spec: Peer, streams: str, status: int) -> None:
    spec_registry.switches.streams = streams
    location = spec.start()
    assert spec.ask("PATCH", location, data=DATA).status_code == status
    assert spec.finish(location, digest_of(DATA), DATA).status_code == 201


def test_short_chunks_only(spec_registry: SpecRegistry, spec: Peer) -> None:
    spec_registry.switches.largest_patch = 4096
    location = spec.start()
    assert spec.ask("PATCH", location, data=DATA[:4097]).status_code == 416
    assert spec.ask("PATCH", location, data=DATA[:4096]).status_code == 202


def test_a_token_for_each_scope(spec_registry: SpecRegistry, spec: Peer) -> None:
    spec_registry.switches.secret = True
    refused = spec.ask("POST", "blobs/uploads/")
    assert refused.status_code == 401
    assert f"repository:{spec.repository}:pull,push" in refused.headers["WWW-Authenticate"]
    scope = urlencode({"scope": f"repository:{spec.repository}:pull"})
    token = spec.ask("GET", f"{spec.url}/token?{scope}").json()["token"]
    assert spec.ask("POST", "blobs/uploads/", Authorization=f"Bearer {token}").status_code == 401
    assert spec.ask("HEAD", f"blobs/{digest_of(DATA)}", Authorization=f"Bearer {token}").status_code == 404
