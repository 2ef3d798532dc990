"""Uploads that break in the middle go on from there, at registries that keep what arrived."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from fixtures.registry import MemoryBlob, digest_of
from fixtures.specregistry import SpecRegistry
from layerbuild import http
from layerbuild.errors import ContentMismatch, DestinationError
from layerbuild.registry.client import RegistryClient
from layerbuild.registry.sending import Stream
from layerbuild.store.database import Database
from layerbuild.store.uploads import UploadSessions

QUICK = http.Policy(retries=2, backoff=0.001)
MIB = 1 << 20
DATA = random.Random(1).randbytes(9 * MIB + 123)
BLOCK = 300_007

Upload = Callable[[RegistryClient, "Source", Callable[[int], None]], None]


class Source(MemoryBlob):
    """Bytes that remember from where they were read."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.offsets: list[int] = []

    def open(self, offset: int = 0) -> Iterator[bytes]:
        self.offsets.append(offset)
        for start in range(offset, len(self.data), BLOCK):
            yield self.data[start : start + BLOCK]


def client(registry: SpecRegistry, policy: http.Policy = QUICK) -> RegistryClient:
    return RegistryClient(registry.host, client=http.Client(policy), environ={})


def ignore(amount: int) -> None:
    pass


def named(here: RegistryClient, source: Source, advance: Callable[[int], None]) -> None:
    here.upload_blob("acme/a", source, advance=advance)


def unnamed(here: RegistryClient, source: Source, advance: Callable[[int], None]) -> None:
    stream = Stream(open=source.open, size=source.size, title="layer sd15")
    assert here.upload_unnamed("acme/a", stream, advance=advance) == source.digest


both = pytest.mark.parametrize("upload", [named, unnamed])


def stored(registry: SpecRegistry, data: bytes = DATA) -> bool:
    return registry.blobs.get(("acme/a", digest_of(data))) == data


# --- breaks --------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("seed", range(6))
def test_no_byte_goes_twice(spec_registry: SpecRegistry, upload: Upload, seed: int) -> None:
    """More breaks than tries: those that bring an upload further are no failures."""
    numbers = random.Random(seed)
    spec_registry.switches.cuts = [numbers.randrange(MIB + 70_000, 2 * MIB) for _ in range(4)]
    source, told = Source(DATA), list[int]()
    upload(client(spec_registry), source, told.append)
    assert stored(spec_registry)
    assert spec_registry.received() == sum(told) == len(DATA)
    assert spec_registry.switches.cuts == []
    assert len(spec_registry.sessions) == 1
    assert spec_registry.statuses("PATCH")[-1] == 202
    assert spec_registry.statuses("PUT")[-1] == 201


@both
@pytest.mark.parametrize("cut", [2, 100, 5 * MIB, len(DATA) - 1])
def test_wherever_it_breaks(spec_registry: SpecRegistry, upload: Upload, cut: int) -> None:
    spec_registry.switches.cuts = [cut]
    upload(client(spec_registry), Source(DATA), ignore)
    assert stored(spec_registry)
    assert spec_registry.received() == len(DATA)
    (asked,) = [seen for seen in spec_registry.seen if seen.method == "PATCH" and seen.status]
    assert asked.headers["content-range"] == f"{cut}-{len(DATA) - 1}"
    assert int(asked.headers["content-length"]) == len(DATA) - cut


@both
@pytest.mark.parametrize("cut", [0, 1])
def test_what_says_as_much_as_nothing_is_sent_anew(spec_registry: SpecRegistry, upload: Upload, cut: int) -> None:
    """The range of an empty session is that of one with a byte."""
    spec_registry.switches.cuts = [cut]
    upload(client(spec_registry), Source(DATA), ignore)
    assert stored(spec_registry)
    assert len(spec_registry.sessions) == 2
    assert spec_registry.statuses("DELETE") == [204]


def test_a_large_blob_goes_by_patch_and_is_not_read_again(spec_registry: SpecRegistry) -> None:
    data = DATA * 15
    spec_registry.switches.cuts = [100 * MIB]
    source = Source(data)
    named(client(spec_registry), source, ignore)
    assert stored(spec_registry, data)
    assert spec_registry.received() == len(data)
    assert spec_registry.statuses("PUT") == [201]
    first, second = source.offsets
    assert first == 0
    assert 64 * MIB <= second < 65 * MIB, "the hash is copied now and then"


@both
def test_logins_go_with_it(spec_registry: SpecRegistry, upload: Upload) -> None:
    spec_registry.switches.secret = True
    spec_registry.switches.cuts = [3 * MIB]
    upload(client(spec_registry), Source(DATA), ignore)
    assert stored(spec_registry)
    assert spec_registry.received() == len(DATA)


@both
def test_trouble_that_does_not_pass(spec_registry: SpecRegistry, upload: Upload) -> None:
    spec_registry.switches.cuts = [3 * MIB, *[0] * 9]
    told: list[int] = []
    with pytest.raises(DestinationError):
        upload(client(spec_registry), Source(DATA), told.append)
    assert sum(told) == 0
    assert len(spec_registry.switches.cuts) == 9 - 1 - QUICK.retries


# --- sessions that are gone, or not what they say ------------------------------------------------


@both
def test_a_session_that_was_lost_is_replaced(spec_registry: SpecRegistry, upload: Upload) -> None:
    spec_registry.switches.keeps = False
    spec_registry.switches.cuts = [3 * MIB]
    told: list[int] = []
    upload(client(spec_registry), Source(DATA), told.append)
    assert stored(spec_registry)
    assert spec_registry.received() == 3 * MIB + len(DATA)
    assert sum(told) == len(DATA)


@both
def test_a_session_that_expires_before_it_goes_on(spec_registry: SpecRegistry, upload: Upload) -> None:
    spec_registry.switches.cuts = [3 * MIB]
    spec_registry.switches.answers = {"PATCH": [None, (404, {})] if upload is unnamed else [(404, {})]}
    upload(client(spec_registry), Source(DATA), ignore)
    assert stored(spec_registry)
    assert 404 in spec_registry.statuses("PATCH")
    assert len(spec_registry.sessions) == 2


@both
@pytest.mark.parametrize(
    "said", ["0-99", f"0-{len(DATA) - 2}", f"0-{len(DATA) - 1}", f"0-{len(DATA)}", "0-999999999999", "", "all", "5-9"]
)
def test_a_range_that_is_not_true(spec_registry: SpecRegistry, upload: Upload, said: str) -> None:
    spec_registry.switches.cuts = [3 * MIB, None, 4 * MIB]
    spec_registry.switches.ranges = [said]
    told: list[int] = []
    here = client(spec_registry)
    upload(here, Source(DATA), told.append)
    assert stored(spec_registry)
    assert sum(told) == len(DATA)
    assert spec_registry.received() <= 2 * len(DATA)


def test_a_registry_that_said_something_else_is_asked_again(spec_registry: SpecRegistry) -> None:
    spec_registry.switches.cuts = [3 * MIB]
    spec_registry.switches.ranges = ["0-99"]
    named(client(spec_registry), Source(DATA), ignore)
    assert spec_registry.statuses("GET") == [204, 204]
    assert spec_registry.statuses("PATCH") == [416, 202]
    assert spec_registry.received() == len(DATA)


@both
def test_a_registry_that_always_says_something_else_is_not_believed(
    spec_registry: SpecRegistry, upload: Upload
) -> None:
    """Nothing is learnt of it about the length of chunks, which might as well have been refused."""
    spec_registry.switches.cuts = [3 * MIB]
    spec_registry.switches.ranges = ["0-99"] * 9
    here, told = client(spec_registry), list[int]()
    upload(here, Source(DATA), told.append)
    assert stored(spec_registry)
    assert sum(told) == len(DATA)
    assert here.manners.chunk is None
    assert not here.manners.continues
    asked = spec_registry.statuses("GET")
    spec_registry.switches.cuts = [3 * MIB]
    upload(here, Source(DATA[1:]), ignore)
    assert stored(spec_registry, DATA[1:])
    assert spec_registry.statuses("GET") == asked, "it is not asked again"


@both
def test_bytes_that_a_registry_spoilt(spec_registry: SpecRegistry, upload: Upload) -> None:
    def spoil(amount: int) -> None:
        if spec_registry.statuses("GET") and len(spec_registry.sessions) == 1:
            (session,) = spec_registry.sessions.values()
            session.data[5] = DATA[5] ^ 1

    spec_registry.switches.cuts = [3 * MIB]
    upload(client(spec_registry), Source(DATA), spoil)
    assert stored(spec_registry)
    assert spec_registry.statuses("PUT")[-2:] == [400, 201]


def test_a_blob_that_changes_between_two_tries(spec_registry: SpecRegistry) -> None:
    class Changing(Source):
        def open(self, offset: int = 0) -> Iterator[bytes]:
            if len(self.offsets) == 1:
                self.data = self.data[:-1] + bytes([self.data[-1] ^ 1])
            return super().open(offset)

    spec_registry.switches.cuts = [3 * MIB]
    told: list[int] = []
    with pytest.raises(ContentMismatch):
        named(client(spec_registry), Changing(DATA), told.append)
    assert sum(told) == 0
    assert spec_registry.blobs == {}
    assert spec_registry.statuses("DELETE") == [204]
    assert spec_registry.received() < len(DATA), "the last bytes are not sent"


# --- registries that take no streams -------------------------------------------------------------


@pytest.mark.parametrize("switches", [{"streams": "405"}, {"streams": "201"}], ids=str)
def test_a_large_blob_goes_in_one_put_where_it_must(
    spec_registry: SpecRegistry, switches: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("layerbuild.registry.uploading._PATCHED", 5 * MIB)
    for name, value in switches.items():
        setattr(spec_registry.switches, name, value)
    here, told = client(spec_registry), list[int]()
    named(here, Source(DATA), told.append)
    assert stored(spec_registry)
    assert sum(told) == len(DATA)
    named(here, Source(DATA[1:]), ignore)
    assert stored(spec_registry, DATA[1:])
    assert len([seen for seen in spec_registry.seen if seen.method == "PATCH"]) == 1, "asked once"


def test_what_is_missing_there_goes_with_the_name(spec_registry: SpecRegistry) -> None:
    spec_registry.switches.streams = "405"
    spec_registry.switches.cuts = [3 * MIB]
    named(client(spec_registry), Source(DATA), ignore)
    assert stored(spec_registry)
    assert spec_registry.statuses("PATCH") == [405]
    assert spec_registry.statuses("PUT") == [0, 201]
    assert spec_registry.received() == len(DATA)


def test_a_registry_that_takes_no_rest_gets_all(spec_registry: SpecRegistry) -> None:
    spec_registry.switches.streams = "405"
    spec_registry.switches.cuts = [3 * MIB]
    spec_registry.switches.answers = {"PUT": [None, (405, {})]}
    named(client(spec_registry), Source(DATA), ignore)
    assert stored(spec_registry)
    assert spec_registry.statuses("PUT") == [0, 405, 201]
    assert spec_registry.received() == 3 * MIB + len(DATA)


# --- across processes ----------------------------------------------------------------------------

LONG = random.Random(2).randbytes(17 * MIB)


def remembering(registry: SpecRegistry, root: Path) -> RegistryClient:
    """A client as each process makes it."""
    sessions = UploadSessions(Database(root), waiting=pytest.fail)
    return RegistryClient(registry.host, client=http.Client(QUICK), environ={}, sessions=sessions)


def remembered(root: Path) -> list[str]:
    return [path.read_text() for path in (root / "uploads").iterdir()]


def broken_off(registry: SpecRegistry, root: Path, data: bytes = LONG, kept: int = 9 * MIB) -> None:
    """A run that ends in the middle."""
    before = registry.switches
    registry.switches = replace(before, cuts=[kept, *[0] * (QUICK.retries + 1)])
    with pytest.raises(DestinationError):
        named(remembering(registry, root), Source(data), ignore)
    registry.switches = before


def test_the_next_run_goes_on(spec_registry: SpecRegistry, tmp_path: Path) -> None:
    broken_off(spec_registry, tmp_path)
    assert "/v2/acme/a/blobs/uploads/" in remembered(tmp_path)[0]
    source, told = Source(LONG), list[int]()
    named(remembering(spec_registry, tmp_path), source, told.append)
    assert stored(spec_registry, LONG)
    assert spec_registry.received() == sum(told) == len(LONG)
    assert source.offsets == [0], "read once, for its hash"
    assert remembered(tmp_path) == []
    assert spec_registry.statuses("POST") == [202]


def test_all_that_is_missing_may_be_the_name(spec_registry: SpecRegistry, tmp_path: Path) -> None:
    broken_off(spec_registry, tmp_path, kept=len(LONG) - 1)
    (session,) = spec_registry.sessions.values()
    session.data += LONG[-1:]
    source, told = Source(LONG), list[int]()
    named(remembering(spec_registry, tmp_path), source, told.append)
    assert stored(spec_registry, LONG)
    assert source.offsets == []
    assert sum(told) == len(LONG)


def test_a_mount_that_was_refused_gives_its_session_back(spec_registry: SpecRegistry, tmp_path: Path) -> None:
    broken_off(spec_registry, tmp_path)
    here, source = remembering(spec_registry, tmp_path), Source(LONG)
    mount = here.mount_blob("acme/a", source.digest, "acme/none")
    here.upload_blob("acme/a", source, advance=ignore, session=mount.session)
    assert spec_registry.received() == len(LONG)
    assert spec_registry.statuses("DELETE") == [204]


def test_a_session_that_has_expired(spec_registry: SpecRegistry, tmp_path: Path) -> None:
    broken_off(spec_registry, tmp_path)
    spec_registry.forget_sessions()
    named(remembering(spec_registry, tmp_path), Source(LONG), ignore)
    assert stored(spec_registry, LONG)
    assert spec_registry.received() == 9 * MIB + len(LONG)
    assert remembered(tmp_path) == []


@pytest.mark.parametrize("location", ["ftp://example.com/x", "http://[", "https://[::x", "nonsense"])
def test_an_address_that_somebody_changed(spec_registry: SpecRegistry, tmp_path: Path, location: str) -> None:
    broken_off(spec_registry, tmp_path)
    (path,) = (tmp_path / "uploads").iterdir()
    path.write_text(f"{location}\n")
    named(remembering(spec_registry, tmp_path), Source(LONG), ignore)
    assert stored(spec_registry, LONG)


def test_bytes_that_are_no_longer_what_they_were(spec_registry: SpecRegistry, tmp_path: Path) -> None:
    """What the registry has is of another file: it says so when the blob is named, and gets all of it."""
    broken_off(spec_registry, tmp_path)
    (session,) = spec_registry.sessions.values()
    session.data[100] ^= 1
    named(remembering(spec_registry, tmp_path), Source(LONG), ignore)
    assert stored(spec_registry, LONG)


def test_a_refusal_is_not_remembered(spec_registry: SpecRegistry, tmp_path: Path) -> None:
    wrong = MemoryBlob(LONG, digest=digest_of(b"other"))
    with pytest.raises(ContentMismatch):
        remembering(spec_registry, tmp_path).upload_blob("acme/a", wrong, advance=ignore)
    assert remembered(tmp_path) == []


def test_small_blobs_are_not_remembered(spec_registry: SpecRegistry, tmp_path: Path) -> None:
    broken_off(spec_registry, tmp_path, DATA, 5 * MIB)
    assert remembered(tmp_path) == []
    assert spec_registry.statuses("DELETE") == [204], "and given back"


def test_two_at_once_send_it_once(spec_registry: SpecRegistry, tmp_path: Path) -> None:
    waiting = threading.Event()

    class Patient(Source):
        def open(self, offset: int = 0) -> Iterator[bytes]:
            assert waiting.wait(30)
            return super().open(offset)

    def send(told: list[int]) -> None:
        sessions = UploadSessions(Database(tmp_path), waiting=lambda digest: waiting.set())
        here = RegistryClient(spec_registry.host, client=http.Client(QUICK), environ={}, sessions=sessions)
        named(here, Patient(LONG), told.append)

    progress: list[list[int]] = [[], []]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(send, progress))
    assert stored(spec_registry, LONG)
    assert spec_registry.received() == len(LONG)
    assert [sum(one) for one in progress] == [len(LONG)] * 2
