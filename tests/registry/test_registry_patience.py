"""Trouble in the middle of an upload: logins that end, registries that ask for time, or that no longer listen."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fixtures.registry import MemoryBlob, digest_of, make_image
from fixtures.specregistry import SpecRegistry
from layerbuild import http
from layerbuild.errors import DestinationError, LoginRequired, Unreachable
from layerbuild.registry.client import RegistryClient
from layerbuild.registry.sending import Stream
from layerbuild.store.database import Database
from layerbuild.store.uploads import UploadSessions

QUICK = http.Policy(retries=2, backoff=0.001)
MIB = 1 << 20
DATA = random.Random(4).randbytes(17 * MIB + 5)

Upload = Callable[[RegistryClient, "Source"], None]


class Source(MemoryBlob):
    """Bytes that remember from where they were read; `failing` reads end in the middle."""

    def __init__(self, data: bytes = DATA, failing: int = 0) -> None:
        super().__init__(data)
        self.offsets: list[int] = []
        self.failing = failing

    def open(self, offset: int = 0) -> Iterator[bytes]:
        self.offsets.append(offset)
        self.failing -= 1
        for start in range(offset, len(self.data), MIB):
            if self.failing >= 0 and start >= 10 * MIB:
                raise Unreachable("the source is gone")
            yield self.data[start : start + MIB]


def client(registry: SpecRegistry, *, slept: list[float] | None = None, chunk: int | None = None) -> RegistryClient:
    sleep = http.Client(QUICK) if slept is None else http.Client(QUICK, sleep=slept.append)
    here = RegistryClient(registry.host, client=sleep, environ={})
    here.manners.chunk = chunk
    here.manners.whole = None if chunk is None else MIB
    return here


def named(here: RegistryClient, source: Source) -> None:
    here.upload_blob("acme/a", source, advance=lambda amount: None)


def unnamed(here: RegistryClient, source: Source) -> None:
    stream = Stream(open=source.open, size=source.size, title="layer sd15")
    assert here.upload_unnamed("acme/a", stream, advance=lambda amount: None) == source.digest


both = pytest.mark.parametrize("upload", [named, unnamed])


def stored(registry: SpecRegistry, data: bytes = DATA) -> bool:
    return registry.blobs.get(("acme/a", digest_of(data))) == data


# --- logins --------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("refused", [401, 403])
@pytest.mark.parametrize("uses", [1, 2, 3])
def test_a_token_that_ends_between_two_chunks(
    spec_registry: SpecRegistry, upload: Upload, uses: int, refused: int
) -> None:
    spec_registry.switches.secret, spec_registry.switches.refused = True, refused
    spec_registry.switches.uses = uses
    source = Source()
    upload(client(spec_registry, chunk=3 * MIB), source)
    assert stored(spec_registry)
    assert spec_registry.received() == len(DATA)
    assert len(spec_registry.sessions) == 1
    assert spec_registry.statuses("PATCH").count(202) == 6
    assert refused in spec_registry.statuses("PATCH") + spec_registry.statuses("PUT")
    if upload is unnamed:
        assert source.offsets == [0]


@both
@pytest.mark.parametrize("refused", [401, 403])
def test_a_token_that_ends_before_the_one_request_with_all(
    spec_registry: SpecRegistry, upload: Upload, refused: int
) -> None:
    spec_registry.switches.secret, spec_registry.switches.refused = True, refused
    spec_registry.switches.uses = 1
    upload(client(spec_registry), Source())
    assert stored(spec_registry)
    assert spec_registry.received() == len(DATA)


def test_a_token_that_ends_while_a_break_is_mended(spec_registry: SpecRegistry) -> None:
    spec_registry.switches.secret = True
    spec_registry.switches.uses = 1
    spec_registry.switches.cuts = [9 * MIB]
    named(client(spec_registry), Source())
    assert stored(spec_registry)
    assert spec_registry.received() == len(DATA)


# --- registries that ask for time ----------------------------------------------------------------

LATER = {"Retry-After": "7"}


@both
@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT"])
def test_an_upload_waits_as_long_as_it_is_asked_to(
    spec_registry: SpecRegistry, upload: Upload, method: str, status: int
) -> None:
    spec_registry.switches.answers = {method: [(status, LATER)]}
    slept: list[float] = []
    upload(client(spec_registry, slept=slept, chunk=9 * MIB), Source())
    assert stored(spec_registry)
    assert [seconds >= 7 for seconds in slept] == [True]
    assert spec_registry.received() == len(DATA)


@pytest.mark.parametrize("status", [429, 503])
def test_so_does_the_put_of_a_whole_blob(spec_registry: SpecRegistry, status: int) -> None:
    spec_registry.switches.answers = {"PUT": [(status, LATER), (status, {"Retry-After": "9"})]}
    slept: list[float] = []
    named(client(spec_registry, slept=slept), Source())
    assert stored(spec_registry)
    assert (7 <= slept[0] < 9 <= slept[1], len(slept)) == (True, 2)


@pytest.mark.parametrize("status", [429, 503])
def test_so_do_mounts_and_manifests(spec_registry: SpecRegistry, status: int) -> None:
    slept: list[float] = []
    here = client(spec_registry, slept=slept)
    image = make_image()
    (config,) = image.blobs
    here.upload_blob("acme/a", config, advance=lambda amount: None)
    spec_registry.switches.answers = {"POST": [(status, LATER)], "PUT": [(status, LATER)]}
    assert here.mount_blob("acme/b", config.digest, "acme/a")
    assert [seconds >= 7 for seconds in slept] == [True]
    here.put_manifest("acme/b", "1", image.media_type, image.manifest)
    assert [seconds >= 7 for seconds in slept] == [True, True]
    assert spec_registry.tags["acme/b", "1"] == image.digest


@both
def test_one_that_asks_for_too_long_ends_it(spec_registry: SpecRegistry, upload: Upload) -> None:
    spec_registry.switches.answers = {"PATCH": [None, (429, {"Retry-After": "3600"})]}
    slept: list[float] = []
    with pytest.raises(DestinationError, match="429") as caught:
        upload(client(spec_registry, slept=slept, chunk=9 * MIB), Source())
    assert "limits the rate" in str(caught.value)
    assert slept == []
    assert spec_registry.statuses("DELETE") == [204], "nobody could go on with it"


# --- registries that do not listen ---------------------------------------------------------------


@both
def test_one_that_stops_reading_ends_the_try_and_not_the_run(spec_registry: SpecRegistry, upload: Upload) -> None:
    spec_registry.switches.deaf = 1
    policy = http.Policy(retries=2, backoff=0.001, read_timeout=0.5)
    here = RegistryClient(spec_registry.host, client=http.Client(policy), environ={})
    upload(here, Source())
    assert stored(spec_registry)
    assert len(spec_registry.sessions) == 2


# --- what another run can go on with -------------------------------------------------------------


@pytest.fixture
def sessions(tmp_path: Path) -> Iterator[UploadSessions]:
    database = Database(tmp_path)
    yield UploadSessions(database, waiting=pytest.fail)
    database.close()


def remembering(registry: SpecRegistry, sessions: UploadSessions) -> RegistryClient:
    here = RegistryClient(registry.host, client=http.Client(QUICK), environ={}, sessions=sessions)
    here.manners.takes(4 * MIB)
    here.manners.no_whole()
    return here


@pytest.mark.parametrize(
    ("answer", "kind"),
    [((403, {}), LoginRequired), ((429, {"Retry-After": "3600"}), DestinationError)],
    ids=["login", "rate"],
)
def test_what_may_pass_leaves_what_was_sent(
    spec_registry: SpecRegistry,
    sessions: UploadSessions,
    answer: tuple[int, dict[str, str]],
    kind: type[DestinationError],
) -> None:
    spec_registry.switches.answers = {"PATCH": [None, None, answer]}
    with pytest.raises(kind):
        named(remembering(spec_registry, sessions), Source())
    assert spec_registry.received() == 8 * MIB
    named(remembering(spec_registry, sessions), Source())
    assert stored(spec_registry)
    assert spec_registry.received() == len(DATA)


def test_a_source_that_is_gone_leaves_what_was_sent(spec_registry: SpecRegistry, sessions: UploadSessions) -> None:
    with pytest.raises(Unreachable):
        named(remembering(spec_registry, sessions), Source(failing=1))
    assert 8 * MIB <= spec_registry.received() < 10 * MIB
    named(remembering(spec_registry, sessions), Source())
    assert stored(spec_registry)
    assert spec_registry.received() == len(DATA)


def test_a_refusal_leaves_nothing(spec_registry: SpecRegistry, sessions: UploadSessions, tmp_path: Path) -> None:
    spec_registry.switches.answers = {"PATCH": [None, (402, {})]}
    with pytest.raises(DestinationError, match="402"):
        named(remembering(spec_registry, sessions), Source())
    assert spec_registry.statuses("DELETE") == [204]
    assert list((tmp_path / "uploads").iterdir()) == []
