"""Registries that take only short requests: chunks, and what is learnt and remembered of each registry."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fixtures.registry import Front, MemoryBlob, digest_of
from fixtures.specregistry import SpecRegistry
from layerbuild import http
from layerbuild.destinations.registry import RegistryDestination
from layerbuild.errors import DestinationError, DigestFirst
from layerbuild.registry.client import RegistryClient
from layerbuild.registry.limits import Limits
from layerbuild.registry.manners import SHORTEST, Manners
from layerbuild.registry.sending import Stream
from layerbuild.registry.sessions import Forgetful
from layerbuild.store.database import Database

QUICK = http.Policy(retries=2, backoff=0.001)
MIB = 1 << 20
DATA = random.Random(3).randbytes(9 * MIB + 123)
BLOCK = 300_007

Upload = Callable[[RegistryClient, "Source"], None]


class Source(MemoryBlob):
    """Bytes that remember from where they were read."""

    def __init__(self, data: bytes = DATA) -> None:
        super().__init__(data)
        self.offsets: list[int] = []

    def open(self, offset: int = 0) -> Iterator[bytes]:
        self.offsets.append(offset)
        for start in range(offset, len(self.data), BLOCK):
            yield self.data[start : start + BLOCK]


def client(registry: SpecRegistry, memory: Database | None = None) -> RegistryClient:
    return RegistryClient(registry.host, client=http.Client(QUICK), environ={}, memory=memory)


def ignore(amount: int) -> None:
    pass


def named(here: RegistryClient, source: Source) -> None:
    told: list[int] = []
    here.upload_blob("acme/a", source, advance=told.append)
    assert sum(told) == source.size


def unnamed(here: RegistryClient, source: Source) -> None:
    told: list[int] = []
    stream = Stream(open=source.open, size=source.size, title="layer sd15")
    assert here.upload_unnamed("acme/a", stream, advance=told.append) == source.digest
    assert sum(told) == source.size


both = pytest.mark.parametrize("upload", [named, unnamed])


@pytest.fixture(autouse=True)
def patched_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("layerbuild.registry.uploading._PATCHED", 5 * MIB)


def stored(registry: SpecRegistry, data: bytes = DATA) -> bool:
    return registry.blobs.get(("acme/a", digest_of(data))) == data


def lengths(registry: SpecRegistry, status: int = 202) -> list[int]:
    """Of PATCHes that got that answer."""
    found = [seen for seen in registry.seen if seen.method == "PATCH" and seen.status == status]
    return [int(seen.headers["content-length"]) for seen in found]


def ranges(registry: SpecRegistry) -> list[str | None]:
    found = [seen for seen in registry.seen if seen.method == "PATCH" and seen.status == 202]
    return [seen.headers.get("content-range") for seen in found]


# --- chunks --------------------------------------------------------------------------------------


@both
def test_what_is_too_long_goes_in_chunks(spec_registry: SpecRegistry, upload: Upload) -> None:
    spec_registry.switches.largest_patch = 4 * MIB
    here = client(spec_registry)
    upload(here, Source())
    assert stored(spec_registry)
    assert lengths(spec_registry, 416) == [len(DATA), 8 * MIB]
    assert lengths(spec_registry) == [4 * MIB, 4 * MIB, MIB + 123]
    assert ranges(spec_registry) == [
        f"0-{4 * MIB - 1}",
        f"{4 * MIB}-{8 * MIB - 1}",
        f"{8 * MIB}-{len(DATA) - 1}",
    ]
    assert spec_registry.received() == len(DATA)
    source = Source(DATA[1:])
    upload(here, source)
    assert stored(spec_registry, DATA[1:])
    assert len(spec_registry.statuses("PATCH")) == 2 + 3 + 3, "what is too long is known now"
    assert source.offsets == [0], "one read for all chunks"


@both
def test_a_chunk_that_breaks_goes_on_from_where_it_is(spec_registry: SpecRegistry, upload: Upload) -> None:
    here = client(spec_registry)
    here.manners.takes(4 * MIB)
    spec_registry.switches.cuts = [None, 3 * MIB]
    source = Source()
    upload(here, source)
    assert stored(spec_registry)
    assert spec_registry.received() == len(DATA)
    assert len(spec_registry.sessions) == 1
    assert lengths(spec_registry) == [4 * MIB, 2 * MIB + 123]
    if upload is unnamed:
        assert source.offsets == [0], "what is on the line is held"


@pytest.mark.parametrize("seed", range(4))
@both
def test_chunks_over_a_bad_line(spec_registry: SpecRegistry, upload: Upload, seed: int) -> None:
    here, numbers = client(spec_registry), random.Random(seed)
    here.manners.takes(2 * MIB)
    spec_registry.switches.cuts = [numbers.choice([None, numbers.randrange(MIB + 70_000, 2 * MIB)]) for _ in range(6)]
    upload(here, Source())
    assert stored(spec_registry)
    assert spec_registry.received() == len(DATA)
    assert len(spec_registry.sessions) == 1


@both
def test_a_registry_says_how_short_a_chunk_may_be(spec_registry: SpecRegistry, upload: Upload) -> None:
    here = client(spec_registry)
    here.manners.takes(MIB)
    spec_registry.switches.least_chunk = 2 * MIB + 5
    upload(here, Source())
    assert stored(spec_registry)
    assert lengths(spec_registry) == [2 * MIB + 5] * 4 + [len(DATA) - 4 * (2 * MIB + 5)]


@both
@pytest.mark.parametrize("least", [len(DATA) * 5, 10**17, 10**30, -5])
def test_a_length_that_no_chunk_can_have(spec_registry: SpecRegistry, upload: Upload, least: int) -> None:
    spec_registry.switches.least_chunk = least
    upload(client(spec_registry), Source())
    assert stored(spec_registry)
    assert lengths(spec_registry) == [len(DATA)]


@pytest.mark.parametrize(
    "switches", [{"largest_patch": 100}, {"largest_patch": MIB, "least_chunk": 2 * MIB}], ids=["short", "contradiction"]
)
def test_no_chunk_is_short_enough(spec_registry: SpecRegistry, switches: dict[str, int]) -> None:
    for name, value in switches.items():
        setattr(spec_registry.switches, name, value)
    here = client(spec_registry)
    with pytest.raises(DigestFirst, match="it answered 416"):
        unnamed(here, Source())
    assert min(lengths(spec_registry, 416)) >= SHORTEST
    refused = len(lengths(spec_registry, 416))
    named(here, Source())
    assert stored(spec_registry)
    assert len(lengths(spec_registry, 416)) == refused
    assert spec_registry.statuses("PUT") == [201]


def test_a_named_one_goes_whole_where_no_chunk_is_short_enough(spec_registry: SpecRegistry) -> None:
    spec_registry.switches.largest_patch = 100
    named(client(spec_registry), Source())
    assert stored(spec_registry)
    assert lengths(spec_registry, 416) == [len(DATA), 8 * MIB, 4 * MIB, 2 * MIB, MIB]
    assert spec_registry.received() == len(DATA)


def test_no_more_chunks_in_the_middle(spec_registry: SpecRegistry) -> None:
    """What is missing goes with the name, and what is there stays."""
    here = client(spec_registry)
    here.manners.takes(4 * MIB)
    spec_registry.switches.answers = {"PATCH": [None, (405, {})]}
    named(here, Source())
    assert stored(spec_registry)
    (put,) = [seen for seen in spec_registry.seen if seen.method == "PUT"]
    assert put.headers["content-range"] == f"{4 * MIB}-{len(DATA) - 1}"
    assert spec_registry.received() == len(DATA)


@both
def test_shorter_chunks_in_the_middle(spec_registry: SpecRegistry, upload: Upload) -> None:
    here = client(spec_registry)
    here.manners.takes(4 * MIB)
    spec_registry.switches.answers = {"PATCH": [None, (413, {})]}
    upload(here, Source())
    assert stored(spec_registry)
    assert lengths(spec_registry) == [4 * MIB, 2 * MIB, 2 * MIB, MIB + 123]
    assert spec_registry.received() == len(DATA)


def test_a_proxy_that_takes_no_long_request_at_all(spec_registry: SpecRegistry) -> None:
    """The PUT of a whole blob is refused, too."""
    spec_registry.switches.largest_put = spec_registry.switches.largest_patch = 2 * MIB
    here, small = client(spec_registry), DATA[: 4 * MIB]
    named(here, Source(small))
    assert stored(spec_registry, small)
    assert lengths(spec_registry) == [2 * MIB] * 2
    assert 413 in spec_registry.statuses("PUT")
    before = len(spec_registry.seen)
    named(here, Source(small[1:]))
    assert [seen.status for seen in spec_registry.seen[before:]] == [202, 202, 202, 201]
    assert stored(spec_registry, small[1:])
    named(here, Source(small[:MIB]))
    assert len(spec_registry.seen) == before + 4 + 2, "one PUT is enough for a short one"
    assert stored(spec_registry, small[:MIB])


def test_a_proxy_that_takes_nothing_of_any_length(spec_registry: SpecRegistry) -> None:
    spec_registry.switches.largest_put = spec_registry.switches.largest_patch = 100
    with pytest.raises(DestinationError, match="413") as caught:
        named(client(spec_registry), Source(DATA[: 4 * MIB]))
    assert "limits the size of a request" in str(caught.value)
    assert spec_registry.statuses("PUT") == [413, 413]
    assert all(status == 204 for status in spec_registry.statuses("DELETE"))
    assert len(spec_registry.statuses("DELETE")) == len(spec_registry.sessions)


def test_a_registry_of_which_it_is_known(spec_registry: SpecRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """As GitHub's: short chunks, and whole blobs up to what passes in the time there is."""
    known = Limits(chunk=4 * MIB, whole=6 * MIB)
    monkeypatch.setattr("layerbuild.registry.manners.limits_of", lambda host: known)
    spec_registry.switches.largest_patch = 4 * MIB
    here = client(spec_registry)
    for data in (DATA, DATA[: 6 * MIB]):
        named(here, Source(data))
        assert stored(spec_registry, data)
    unnamed(here, Source(DATA[1:]))
    assert stored(spec_registry, DATA[1:])
    assert lengths(spec_registry) == [4 * MIB, 4 * MIB, MIB + 123, 4 * MIB, 4 * MIB, MIB + 122]
    assert set(spec_registry.statuses("PATCH")) == {202}


# --- what is remembered --------------------------------------------------------------------------


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path)
    yield database
    database.close()


@both
def test_another_process_knows_the_length(spec_registry: SpecRegistry, memory: Database, upload: Upload) -> None:
    spec_registry.switches.largest_patch = 4 * MIB
    upload(client(spec_registry, memory), Source())
    assert memory.learnt(spec_registry.host) == {"chunk": 4 * MIB}
    assert memory.learnt("registry.example.com") == {}
    before = len(lengths(spec_registry, 416))
    upload(client(spec_registry, memory), Source(DATA[1:]))
    assert len(lengths(spec_registry, 416)) == before


@pytest.mark.parametrize(
    ("switches", "expected"),
    [
        ({"streams": "405"}, {"streams": 0}),
        ({"streams": "201"}, {"streams": 0}),
        ({"largest_patch": 100}, {"streams": 0}),
        ({"answers": {"PATCH": [(404, {})]}}, {}),
        ({"answers": {"PATCH": [(400, {})]}}, {}),
        ({"largest_patch": 2 * MIB, "largest_put": 2 * MIB}, {"chunk": 2 * MIB, "whole": SHORTEST}),
        ({}, {}),
    ],
    ids=str,
)
def test_what_is_learnt(
    spec_registry: SpecRegistry, memory: Database, switches: dict[str, object], expected: dict[str, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for name, value in switches.items():
        setattr(spec_registry.switches, name, value)
    if "largest_put" in switches:
        monkeypatch.setattr("layerbuild.registry.uploading._PATCHED", 64 * MIB)
    named(client(spec_registry, memory), Source())
    assert memory.learnt(spec_registry.host) == expected


def test_that_it_lies_is_remembered(spec_registry: SpecRegistry, memory: Database) -> None:
    spec_registry.switches.cuts = [3 * MIB]
    spec_registry.switches.ranges = ["0-99"] * 9
    named(client(spec_registry, memory), Source())
    assert memory.learnt(spec_registry.host) == {"continues": 0}
    asked = spec_registry.statuses("GET")
    spec_registry.switches.cuts = [3 * MIB]
    named(client(spec_registry, memory), Source(DATA[1:]))
    assert stored(spec_registry, DATA[1:])
    assert spec_registry.statuses("GET") == asked


@pytest.mark.parametrize(
    "wrong",
    [
        {"chunk": 16 * MIB},
        {"chunk": 8 * MIB, "whole": 1},
        {"chunk": -1, "whole": 0},
        {"chunk": 1 << 62},
        {"streams": 7, "continues": -3, "what": 5},
        {"continues": 0, "mounts": 0},
    ],
    ids=str,
)
@both
def test_a_wrong_memory_does_no_harm(
    spec_registry: SpecRegistry, memory: Database, upload: Upload, wrong: dict[str, int]
) -> None:
    for name, value in wrong.items():
        memory.learn(spec_registry.host, name, value)
    spec_registry.switches.largest_patch = 4 * MIB
    upload(client(spec_registry, memory), Source())
    assert stored(spec_registry)
    assert memory.learnt(spec_registry.host)["chunk"] == 4 * MIB


def test_streams_that_are_wrongly_known_to_be_refused(spec_registry: SpecRegistry, memory: Database) -> None:
    memory.learn(spec_registry.host, "streams", 0)
    with pytest.raises(DigestFirst):
        unnamed(client(spec_registry, memory), Source())
    named(client(spec_registry, memory), Source())
    assert stored(spec_registry)


def test_a_memory_that_cannot_be_written_is_no_failure(spec_registry: SpecRegistry, memory: Database) -> None:
    spec_registry.switches.largest_patch = 4 * MIB
    here = client(spec_registry, memory)
    memory.close()
    named(here, Source())
    assert stored(spec_registry)


# --- mounts --------------------------------------------------------------------------------------


def asked(registry: SpecRegistry, here: RegistryClient, digest: str, candidates: list[str]) -> tuple[bool, int]:
    """Whether a mount worked, and how many requests it took."""
    destination, before = RegistryDestination(registry.host, here, ""), len(registry.statuses("POST"))
    with destination.whole():
        done = destination.mount("b", digest, candidates)
    return done, len(registry.statuses("POST")) - before


def test_a_registry_that_never_mounts_is_asked_once_for_each_blob(
    spec_registry: SpecRegistry, memory: Database
) -> None:
    """Which costs nothing: the session that it opens instead is used."""
    here, absent = client(spec_registry, memory), digest_of(b"absent")
    for _ in range(16):
        assert asked(spec_registry, here, absent, ["/x", "/y"]) == (False, 2)
    assert asked(spec_registry, here, absent, ["/x", "/y"]) == (False, 1)
    later = client(spec_registry, memory)
    assert asked(spec_registry, later, absent, ["/x", "/y"]) == (False, 1)
    named(later, Source())
    assert asked(spec_registry, later, digest_of(DATA), ["/acme/a"]) == (True, 1)
    assert asked(spec_registry, later, absent, ["/x", "/y"]) == (False, 2)
    assert client(spec_registry, memory).manners.mounts


def test_one_that_mounts_now_and_then_is_asked_everywhere(spec_registry: SpecRegistry) -> None:
    here, absent = client(spec_registry), digest_of(b"absent")
    named(here, Source())
    for _ in range(5):
        for _ in range(10):
            asked(spec_registry, here, absent, ["/x", "/y"])
        asked(spec_registry, here, digest_of(DATA), ["/acme/a"])
    assert asked(spec_registry, here, absent, ["/x", "/y"]) == (False, 2)


def test_manners_without_a_memory() -> None:
    one = Manners("registry.example.com")
    one.no_streams(certain=True)
    assert not one.streams
    assert Manners("registry.example.com").streams


def test_where_a_session_is_is_remembered_after_each_chunk(registry: Front) -> None:
    told = list[str]()

    class Held(Forgetful):
        def put(self, location: str) -> None:
            told.append(location)

    class Memory(Forgetful):
        @contextmanager
        def held(self, host: str, repository: str, digest: str, *, anywhere: bool = False) -> Iterator[Held]:
            yield Held()

    here = RegistryClient(registry.host, client=http.Client(QUICK), environ={}, sessions=Memory())
    here.manners.takes(4 * MIB)
    source = Source(DATA * 2)
    here.upload_blob(f"{registry.prefix}/a", source, advance=ignore)
    assert here.head_blob(f"{registry.prefix}/a", source.digest) == source.size
    assert len(registry.requests("PATCH")) == 5
    assert len(told) == 6 and len(set(told)) == 6, "docker-registry's address changes with each"
