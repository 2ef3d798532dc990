"""Referrers: by the API of the specification's registry, and by a tag at Debian's, which has none."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import pytest

from fixtures.registry import Front, Image, MemoryBlob, digest_of, make_image
from fixtures.specregistry import SpecRegistry
from layerbuild import http
from layerbuild.errors import DestinationError
from layerbuild.registry import referrers as module
from layerbuild.registry.client import RegistryClient
from layerbuild.registry.manifests import INDEX_TYPE, MANIFEST_LIMIT, MANIFEST_TYPE
from layerbuild.registry.referrers import put_referrer, referrers, tag_of

QUICK = http.Policy(retries=1, backoff=0.001)
TYPE = "application/x-note"


class Server(Protocol):
    host: str
    prefix: str


@pytest.fixture(params=["registry", "spec_registry"])
def server(request: pytest.FixtureRequest) -> Server:
    """Debian's registry, and the specification's."""
    found: Server = request.getfixturevalue(request.param)
    return found


class Place:
    """A repository with an image that others refer to."""

    def __init__(self, server: Server, policy: http.Policy = QUICK) -> None:
        self.server = server
        self.client = RegistryClient(server.host, client=http.Client(policy), environ={})
        self.repository = f"{server.prefix}/image"
        self.image = make_image()
        for blob in (*self.image.blobs, MemoryBlob(b"{}")):
            self.client.upload_blob(self.repository, blob, advance=lambda _: None)
        self.put(self.image)

    def put(self, image: Image) -> None:
        self.client.put_manifest(self.repository, image.digest, image.media_type, image.manifest)

    def note(self, number: int, kind: str | None = TYPE, **more: Any) -> bytes:
        """An artifact that refers to the image."""
        empty = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest_of(b"{}"), "size": 2}
        subject = {"mediaType": MANIFEST_TYPE, "digest": self.image.digest, "size": len(self.image.manifest)}
        document = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": empty, "layers": [empty]}
        document |= {"artifactType": kind} if kind else {}
        return json.dumps({**document, "subject": subject, "annotations": {"n": str(number)}, **more}).encode()

    def attach(self, data: bytes) -> str:
        return put_referrer(self.client, self.repository, MANIFEST_TYPE, data).digest

    def listed(self, kind: str | None = None) -> list[str]:
        found = referrers(self.client, self.repository, self.image.digest, artifact_type=kind)
        return sorted(referrer.annotations["n"] for referrer in found)

    @property
    def tag(self) -> str:
        return tag_of(self.image.digest)


def test_what_is_attached_is_listed_once(server: Server) -> None:
    place = Place(server)
    assert place.listed() == []
    digest = place.attach(place.note(1))
    place.attach(place.note(2, "application/x-other"))
    place.attach(place.note(3, None))
    assert place.attach(place.note(1)) == digest
    assert place.listed() == ["1", "2", "3"]
    assert (place.listed(TYPE), place.listed("application/x-none")) == (["1"], [])
    # Without a type of its own it has its config's.
    assert place.listed("application/vnd.oci.empty.v1+json") == ["3"]
    (found,) = referrers(place.client, place.repository, place.image.digest, artifact_type=TYPE)
    assert found.as_json() == {
        "mediaType": MANIFEST_TYPE,
        "digest": digest,
        "size": len(place.note(1)),
        "artifactType": TYPE,
        "annotations": {"n": "1"},
    }


def test_a_registry_with_the_api_gets_no_tag(spec_registry: SpecRegistry) -> None:
    place = Place(spec_registry)
    place.attach(place.note(1))
    assert spec_registry.tags == {}
    # One that was a late convert lists what is under the tag by itself, or not at all.
    spec_registry.switches.referrers = False
    assert place.listed() == []
    place.attach(place.note(2))
    assert place.listed() == ["2"] and list(spec_registry.tags) == [(place.repository, place.tag)]


def test_links_are_followed(spec_registry: SpecRegistry) -> None:
    place = Place(spec_registry)
    for number in range(5):
        place.attach(place.note(number, TYPE if number else "application/x-other"))
    spec_registry.switches.page = 2
    assert place.listed() == list("01234")
    assert place.listed(TYPE) == list("1234")


@pytest.mark.parametrize("link", ["<http://127.0.0.2:1/v2/more>", "<http://[/>"])
def test_links_to_elsewhere_are_not(registry: Front, link: str) -> None:
    place = Place(registry)
    headers = {"Content-Type": INDEX_TYPE, "Link": f'{link}; rel="next"'}
    registry.rule("GET", "/referrers/", 200, headers=headers, body=b'{"manifests": []}')
    with pytest.raises(DestinationError, match=r"on another server|as it should"):
        place.listed()


def test_lists_are_bounded(registry: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(registry)
    monkeypatch.setattr(module, "_MOST_PAGES", 5)
    headers = {"Content-Type": INDEX_TYPE, "Link": f'<{registry.url}/v2/x/referrers/y>; rel="next"'}
    registry.rule("GET", "/referrers/", 200, headers=headers, body=b'{"manifests": []}', times=99)
    with pytest.raises(DestinationError, match="lists too much"):
        place.listed()
    assert len(registry.requests("GET", "/referrers/")) == 5
    monkeypatch.setattr(module, "_MOST", 2)
    entries = [{"mediaType": MANIFEST_TYPE, "digest": digest_of(bytes([n])), "size": 1} for n in range(3)]
    registry.rules.clear()
    body = json.dumps({"manifests": entries}).encode()
    registry.rule("GET", "/referrers/", 200, headers={"Content-Type": INDEX_TYPE}, body=body)
    with pytest.raises(DestinationError, match="lists too much"):
        place.listed()
    registry.rule("GET", "/referrers/", 200, headers={"Content-Type": INDEX_TYPE}, body=b" " * (MANIFEST_LIMIT + 1))
    with pytest.raises(DestinationError, match="does not list what refers to"):
        place.listed()


def test_entries_that_make_no_sense_are_left_out(registry: Front) -> None:
    place = Place(registry)
    good = {"mediaType": MANIFEST_TYPE, "digest": digest_of(b"x"), "size": 1, "annotations": {"n": "1", "m": 2}}
    entries = [good, 7, {}, {**good, "digest": "sha512:00"}, {**good, "size": -1}, {**good, "artifactType": 5}]
    body = json.dumps({"manifests": entries}).encode()
    registry.rule("GET", "/referrers/", 200, headers={"Content-Type": INDEX_TYPE}, body=body)
    (found,) = referrers(place.client, place.repository, place.image.digest)
    assert (found.artifact_type, found.annotations) == ("", {"n": "1"})


@pytest.mark.parametrize(("status", "headers"), [(400, {}), (405, {}), (200, {"Content-Type": "text/html"})])
def test_other_ways_to_say_that_there_is_no_api(registry: Front, status: int, headers: dict[str, str]) -> None:
    place = Place(registry)
    place.attach(place.note(1))
    registry.rule("GET", "/referrers/", status, headers=headers)
    assert place.listed() == ["1"]


def test_a_refusal_is_none_of_them(registry: Front) -> None:
    place = Place(registry)
    registry.rule("GET", "/referrers/", 403, times=9)
    with pytest.raises(DestinationError, match="does not allow us to list what refers to"):
        place.listed()


# --- the tag ---------------------------------------------------------------------------------------


def test_what_others_wrote_under_the_tag_stays(registry: Front) -> None:
    place = Place(registry)
    place.attach(place.note(1))
    media_type, data, _ = place.client.get_manifest(place.repository, place.tag, accept=(INDEX_TYPE,))
    theirs = json.loads(data) | {"annotations": {"kept": "yes"}}
    theirs["manifests"][0]["x-unknown"] = [1]
    place.client.put_manifest(place.repository, place.tag, media_type, json.dumps(theirs).encode())
    place.attach(place.note(2))
    _, data, _ = place.client.get_manifest(place.repository, place.tag, accept=(INDEX_TYPE,))
    now = json.loads(data)
    assert now["annotations"] == {"kept": "yes"} and now["manifests"][0] == theirs["manifests"][0]
    assert place.listed() == ["1", "2"]


def test_an_image_under_the_tag_is_left_alone(registry: Front) -> None:
    place = Place(registry)
    place.client.put_manifest(place.repository, place.tag, place.image.media_type, place.image.manifest)
    with pytest.raises(DestinationError, match="cannot be listed there") as caught:
        place.attach(place.note(1))
    assert place.tag in (caught.value.cause or "")
    assert place.client.get_manifest(place.repository, place.tag, accept=(MANIFEST_TYPE,))[2] == place.image.digest
    assert place.listed() == []


def test_what_was_deleted_is_taken_off_the_list(registry: Front) -> None:
    place = Place(registry)
    digest = place.attach(place.note(1))
    place.client.do_request(f"{registry.url}/v2/{place.repository}/manifests/{digest}", "DELETE").close()
    place.attach(place.note(2))
    assert place.listed() == ["2"]


def test_a_list_that_is_full(registry: Front) -> None:
    place = Place(registry)
    place.attach(place.note(1))
    with pytest.raises(DestinationError, match="cannot be listed there") as caught:
        put_referrer(place.client, place.repository, MANIFEST_TYPE, place.note(2, annotations={"n": "x" * (3 << 20)}))
        put_referrer(place.client, place.repository, MANIFEST_TYPE, place.note(3, annotations={"n": "y" * (3 << 20)}))
    assert "more than 4194304 bytes" in (caught.value.cause or "")


def _overwriting(place: Place, times: int) -> Callable[[int, dict[str, str], bytes], tuple[int, dict[str, str], bytes]]:
    """Another client that read the list before we wrote it, and writes it after."""
    left = [times]
    empty = json.dumps({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": []}).encode()

    def edit(status: int, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        if left[0] > 0:
            left[0] -= 1
            other = RegistryClient(f"127.0.0.1:{place.server.backend.port}", client=http.Client(QUICK), environ={})  # type: ignore[attr-defined]
            other.put_manifest(place.repository, place.tag, INDEX_TYPE, empty)
        return status, headers, body

    return edit


def test_an_entry_that_was_overwritten_is_written_again(registry: Front) -> None:
    place = Place(registry)
    registry.rule("PUT", f"/manifests/{place.tag}", edit=_overwriting(place, 2), times=2)
    place.attach(place.note(1))
    assert place.listed() == ["1"]
    assert len(registry.requests("PUT", f"/manifests/{place.tag}")) == 3


def test_a_list_that_others_keep_overwriting(registry: Front) -> None:
    place = Place(registry)
    registry.rule("PUT", f"/manifests/{place.tag}", edit=_overwriting(place, 99), times=99)
    with pytest.raises(DestinationError, match="cannot be listed there") as caught:
        place.attach(place.note(1))
    assert "at the same time" in (caught.value.cause or "")


def test_several_writers_lose_nothing(registry: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    # Each as in a process of its own: the lock that threads share is not there.
    class Open:
        def __enter__(self) -> None: ...
        def __exit__(self, *exc: object) -> None: ...

    monkeypatch.setattr(module, "_one_at_a_time", Open())
    place = Place(registry)
    ready = threading.Barrier(4)

    def attach(number: int) -> None:
        client = RegistryClient(registry.host, client=http.Client(http.Policy(backoff=0.3)), environ={})
        ready.wait()
        put_referrer(client, place.repository, MANIFEST_TYPE, place.note(number))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(attach, range(4)))
    assert place.listed() == list("0123")
