"""Blobs whose digest is known only when they have gone."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fixtures.registry import Front, TokenFront, digest_of, docker_config
from layerbuild import http
from layerbuild.errors import ContentMismatch, DestinationError, DigestFirst, LoginRequired, SourceError
from layerbuild.registry.client import RegistryClient
from layerbuild.registry.sending import Stream

QUICK = http.Policy(retries=2, backoff=0.001)
MIB = 1 << 20
CHUNK = 700_001
"""Bytes per chunk of a `Source`: no divisor of anything."""

DATA = bytes(range(251)) * (6 * MIB // 251)
"""Long enough to be hashed in a thread of its own."""


class Source:
    """Opens bytes, and counts how often; `error` is raised after `good` bytes."""

    def __init__(self, data: bytes, *, good: int | None = None, error: Exception | None = None) -> None:
        self.data = data
        self.opened = 0
        self.closed = 0
        self._good = good
        self._error = error
        self.stream = Stream(open=self.open, size=len(data), title="layer sd15")

    def open(self) -> Iterator[bytes]:
        self.opened += 1
        try:
            data = self.data[: self._good]
            for start in range(0, len(data), CHUNK):
                yield data[start : start + CHUNK]
            if self._error:
                raise self._error
        finally:
            self.closed += 1


def client(front: Front, environ: dict[str, str] | None = None, policy: http.Policy = QUICK) -> RegistryClient:
    return RegistryClient(front.host, client=http.Client(policy), environ=environ or {})


def ignore(amount: int) -> None:
    pass


def counts(front: Front) -> dict[str, int]:
    return {method: len(front.requests(method)) for method in ("POST", "PATCH", "PUT", "DELETE")}


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = {thread for thread in threading.enumerate() if "_work" in thread.name}
    yield
    assert {thread for thread in threading.enumerate() if "_work" in thread.name} == before


# --- what works ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 1000, CHUNK, MIB, len(DATA)])
def test_a_blob_goes_up_in_one_patch_and_comes_back(registry: Front, size: int) -> None:
    name = f"{registry.prefix}/a"
    source = Source(DATA[:size])
    told: list[int] = []
    here = client(registry)
    assert here.upload_unnamed(name, source.stream, advance=told.append) == digest_of(source.data)
    assert b"".join(here.open_blob(name, digest_of(source.data))) == source.data
    assert counts(registry) == {"POST": 1, "PATCH": 1, "PUT": 1, "DELETE": 0}
    assert registry.requests("PATCH")[0].received == registry.uploaded() == size
    assert sum(told) == size
    assert (source.opened, source.closed) == (1, 1)


def test_progress_is_told_while_the_bytes_go(registry: Front) -> None:
    told: list[int] = []
    client(registry).upload_unnamed(f"{registry.prefix}/a", Source(DATA).stream, advance=told.append)
    assert len(told) == -(-len(DATA) // CHUNK)
    assert max(told) == CHUNK


@pytest.mark.parametrize("length", [1, 100_000, 4 * MIB + 3, len(DATA)])
def test_chunks_of_any_length(registry: Front, length: int) -> None:
    data = DATA[: 10 * length] if length == 1 else DATA
    stream = Stream(open=lambda: (data[i : i + length] for i in range(0, len(data), length)), size=len(data), title="x")
    assert client(registry).upload_unnamed(f"{registry.prefix}/a", stream, advance=ignore) == digest_of(data)


def test_several_at_once(registry: Front) -> None:
    here = client(registry)
    sources = [Source(bytes([n]) + DATA) for n in range(4)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda s: here.upload_unnamed(f"{registry.prefix}/a", s.stream, advance=ignore), sources))
    assert found == [digest_of(source.data) for source in sources]
    for source in sources:
        assert here.head_blob(f"{registry.prefix}/a", digest_of(source.data)) == len(source.data)


def test_a_login(login_registry: Front, tmp_path: Path) -> None:
    name = f"{login_registry.prefix}/a"
    here = client(login_registry, docker_config(tmp_path, login_registry.host))
    assert here.upload_unnamed(name, Source(DATA).stream, advance=ignore) == digest_of(DATA)
    assert here.head_blob(name, digest_of(DATA)) == len(DATA)


def test_tokens(token_registry: TokenFront, tmp_path: Path) -> None:
    name = f"{token_registry.prefix}/a"
    here = client(token_registry, docker_config(tmp_path, token_registry.host))
    assert here.upload_unnamed(name, Source(DATA).stream, advance=ignore) == digest_of(DATA)
    assert here.head_blob(name, digest_of(DATA)) == len(DATA)
    assert len(token_registry.requests("PATCH")) == 1
    assert set(token_registry.issued) == {(f"repository:{name}:pull,push",)}


def test_a_token_that_ends_on_the_way_is_replaced(token_registry: TokenFront, tmp_path: Path) -> None:
    name = f"{token_registry.prefix}/a"
    here = client(token_registry, docker_config(tmp_path, token_registry.host))
    source = Source(DATA)

    def forgetting(status: int, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        token_registry.forget()
        return status, headers, body

    token_registry.rule("POST", "/uploads/", edit=forgetting, times=2)  # the first has no token yet
    told: list[int] = []
    assert here.upload_unnamed(name, source.stream, advance=told.append) == digest_of(DATA)
    assert [r.status for r in token_registry.requests("PATCH")] == [401, 202]
    assert source.opened == source.closed == 2
    assert sum(told) == len(DATA)
    assert counts(token_registry)["DELETE"] == 0


def test_an_account_that_may_not_push(token_registry: TokenFront, tmp_path: Path) -> None:
    here = client(token_registry, docker_config(tmp_path, token_registry.host, password="wrong"))
    with pytest.raises(LoginRequired):
        here.upload_unnamed(f"{token_registry.prefix}/a", Source(DATA).stream, advance=ignore)


def test_a_session_elsewhere_gets_the_bytes_and_no_password(
    login_registry: Front, registry: Front, tmp_path: Path
) -> None:
    headers = {"Location": f"{registry.url}/store?sig=hunter2", "Range": f"0-{len(DATA) - 1}"}
    login_registry.rule("POST", "/uploads/", 202, headers=headers)
    registry.rule("PATCH", "^/store", 202, headers=headers)
    registry.rule("PUT", "^/store", 201)
    here = client(login_registry, docker_config(tmp_path, login_registry.host))
    here.head_blob(f"{login_registry.prefix}/a", digest_of(b"x"))
    here.upload_unnamed(f"{login_registry.prefix}/a", Source(DATA).stream, advance=ignore)
    assert registry.requests("PATCH")[0].received == len(DATA)
    assert all("Authorization" not in record.headers for record in registry.records)


def test_a_registry_that_is_slow_to_take_a_block_is_waited_for(registry: Front) -> None:
    """The time to connect is not the time to send: what does not fit into the sockets' buffers waits."""
    registry.rule("PATCH", "/uploads/", pause=0.7)
    source = Source(DATA * 3)
    policy = http.Policy(retries=0, connect_timeout=0.3, read_timeout=20)
    client(registry, policy=policy).upload_unnamed(f"{registry.prefix}/a", source.stream, advance=ignore)
    assert source.opened == 1


# --- sources that fail ---------------------------------------------------------------------------


@pytest.mark.parametrize("good", [0, CHUNK, 4 * CHUNK + 5, len(DATA)], ids=["start", "middle", "later", "end"])
@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (SourceError("the disk is on fire"), SourceError),
        (ContentMismatch("not what was pinned"), ContentMismatch),
        (OSError(5, "Input/output error"), SourceError),
        (ArithmeticError("a mistake in the reader"), ArithmeticError),
    ],
    ids=["source", "mismatch", "system", "other"],
)
def test_a_reader_that_fails_leaves_nothing(
    registry: Front, good: int, error: Exception, expected: type[Exception]
) -> None:
    name = f"{registry.prefix}/a"
    source = Source(DATA, good=good, error=error)
    told: list[int] = []
    with pytest.raises(expected) as caught:
        client(registry).upload_unnamed(name, source.stream, advance=told.append)
    if isinstance(error, OSError):
        assert "reading layer sd15 failed" in str(caught.value)
        assert "Input/output error" in str(caught.value)
    else:
        assert caught.value is error
    assert sum(told) == 0
    (patch,) = registry.ended("PATCH")
    assert patch.received < len(DATA), "the last chunk is not sent"
    assert counts(registry) == {"POST": 1, "PATCH": 1, "PUT": 0, "DELETE": 1}
    assert registry.requests("DELETE")[0].path == patch.path
    assert client(registry).head_blob(name, digest_of(DATA)) is None
    assert (source.opened, source.closed) == (1, 1), "trying again would not help"


@pytest.mark.parametrize("size", [len(DATA) - 1, len(DATA) + 1, 1, 10 * len(DATA), 0])
def test_more_or_fewer_bytes_than_were_promised(registry: Front, size: int) -> None:
    name = f"{registry.prefix}/a"
    source = Source(DATA)
    with pytest.raises(ContentMismatch, match="the bytes of layer sd15 are not what they should be") as caught:
        client(registry).upload_unnamed(name, Stream(open=source.open, size=size, title="layer sd15"), advance=ignore)
    assert str(size) in str(caught.value)
    assert counts(registry)["PUT"] == 0
    assert counts(registry)["DELETE"] == 1
    assert source.opened == source.closed == 1
    for data in (DATA, DATA[:size]):
        assert client(registry).head_blob(name, digest_of(data)) is None


def test_what_cannot_be_opened(registry: Front) -> None:
    def open() -> Iterator[bytes]:
        raise FileNotFoundError(2, "No such file or directory")

    with pytest.raises(SourceError, match="reading x failed"):
        client(registry).upload_unnamed(f"{registry.prefix}/a", Stream(open=open, size=9, title="x"), advance=ignore)


def test_a_registry_that_goes_away_does_not_hide_why(registry: Front) -> None:
    registry.rule("DELETE", "/uploads/", 503, times=9)
    with pytest.raises(SourceError, match="on fire"):
        client(registry).upload_unnamed(
            f"{registry.prefix}/a", Source(DATA, good=5, error=SourceError("on fire")).stream, advance=ignore
        )
    assert counts(registry)["DELETE"] == 1


# --- trouble that may pass -----------------------------------------------------------------------


@pytest.mark.parametrize("cut", [0, 1, 3_000_000, len(DATA) - 1])
def test_a_connection_that_breaks_is_followed_by_a_new_session(registry: Front, cut: int) -> None:
    name = f"{registry.prefix}/a"
    registry.rule("PATCH", "/uploads/", cut=cut)
    source = Source(DATA)
    told: list[int] = []
    assert client(registry).upload_unnamed(name, source.stream, advance=told.append) == digest_of(DATA)
    assert b"".join(client(registry).open_blob(name, digest_of(DATA))) == DATA
    assert source.opened == source.closed <= 2, "what is still held is not read again"
    assert sum(told) == len(DATA)
    first, second = registry.ended("PATCH")
    assert first.path != second.path
    assert [r.path for r in registry.requests("DELETE")] == [first.path], "nothing is left behind"


@pytest.mark.parametrize(
    ("method", "status"),
    [*(("PATCH", status) for status in (408, 429, 500, 502, 503, 504)), ("POST", 503), ("PUT", 503)],
)
def test_trouble_that_may_pass_is_waited_out(registry: Front, method: str, status: int) -> None:
    name = f"{registry.prefix}/a"
    registry.rule(method, "/uploads/", status)
    source = Source(DATA)
    told: list[int] = []
    assert client(registry).upload_unnamed(name, source.stream, advance=told.append) == digest_of(DATA)
    assert client(registry).head_blob(name, digest_of(DATA)) == len(DATA)
    assert source.opened == (2 if method == "PATCH" else 1), "only what was lost is sent again"
    assert sum(told) == len(DATA)


def test_an_answer_that_was_lost_costs_no_second_upload(registry: Front) -> None:
    name = f"{registry.prefix}/a"
    registry.rule("PUT", "/uploads/", edit=lambda status, headers, body: (504, {}, b""))
    source = Source(DATA)
    told: list[int] = []
    assert client(registry).upload_unnamed(name, source.stream, advance=told.append) == digest_of(DATA)
    assert [r.status for r in registry.requests("PUT")] == [504, 404]
    assert source.opened == 1
    assert sum(told) == len(DATA)


def test_a_session_that_is_lost_before_it_is_named_is_replaced(registry: Front) -> None:
    name = f"{registry.prefix}/a"
    registry.rule("PUT", "/uploads/", 404)
    source = Source(DATA)
    assert client(registry).upload_unnamed(name, source.stream, advance=ignore) == digest_of(DATA)
    assert client(registry).head_blob(name, digest_of(DATA)) == len(DATA)
    assert source.opened == 2


@pytest.mark.parametrize("trouble", [{"cut": 10}, {"status": 503}], ids=["breaks", "503"])
def test_trouble_that_does_not_pass(registry: Front, trouble: dict[str, int]) -> None:
    registry.rule("PATCH", "/uploads/", times=9, **trouble)
    source = Source(DATA)
    told: list[int] = []
    with pytest.raises(DestinationError) as caught:
        client(registry).upload_unnamed(f"{registry.prefix}/a", source.stream, advance=told.append)
    assert type(caught.value) is DestinationError
    assert caught.value.hint
    assert len(registry.ended("PATCH")) == QUICK.retries + 1
    assert source.opened == source.closed
    assert sum(told) == 0


def test_a_registry_that_is_down() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        here = RegistryClient(f"127.0.0.1:{taken.getsockname()[1]}", client=http.Client(QUICK), environ={})
        with pytest.raises(DestinationError, match="cannot be reached"):
            here.upload_unnamed("a", Source(DATA).stream, advance=ignore)


# --- registries that want the digest first -------------------------------------------------------


def asked_again(here: RegistryClient, front: Front) -> None:
    """Holds that the registry is not asked a second time."""
    before = len(front.records)
    source = Source(DATA)
    with pytest.raises(DigestFirst):
        here.upload_unnamed(f"{front.prefix}/b", source.stream, advance=ignore)
    assert len(front.records) == before
    assert source.opened == 0


@pytest.mark.parametrize("status", [200, 201, 400, 404, 405, 411, 415, 501])
def test_a_registry_that_takes_no_streams_is_asked_once(registry: Front, status: int) -> None:
    body = json.dumps({"errors": [{"code": "UNSUPPORTED", "message": "no streams"}]}).encode()
    registry.rule("PATCH", "/uploads/", status, body=body)
    here = client(registry)
    source = Source(DATA)
    told: list[int] = []
    with pytest.raises(DigestFirst) as caught:
        here.upload_unnamed(f"{registry.prefix}/a", source.stream, advance=told.append)
    assert f"it answered {status}, UNSUPPORTED: no streams" in str(caught.value)
    assert counts(registry) == {"POST": 1, "PATCH": 1, "PUT": 0, "DELETE": 1}
    assert source.opened == source.closed == 1
    assert sum(told) == 0
    asked_again(here, registry)


def test_a_refusal_before_the_end_is_heard(registry: Front) -> None:
    registry.rule("PATCH", "/uploads/", 405, early=True)
    here = client(registry)
    source = Source(DATA * 3)
    with pytest.raises(DigestFirst):
        here.upload_unnamed(f"{registry.prefix}/a", source.stream, advance=ignore)
    assert source.opened == source.closed == 1
    asked_again(here, registry)


def test_a_registry_that_is_content_before_the_end_is_not_believed(registry: Front) -> None:
    """What was not sent is not hashed, so nobody must take that digest for the blob's."""
    data = DATA * 5
    registry.rule("PATCH", "/uploads/", 202, early=True, headers={"Location": "/v2/x/blobs/uploads/y"})
    registry.rule("PUT", "/uploads/", 201)
    source = Source(data)
    told: list[int] = []
    assert client(registry).upload_unnamed(f"{registry.prefix}/a", source.stream, advance=told.append) == digest_of(
        data
    )
    assert len(registry.requests("PATCH")) == 2
    assert sum(told) == len(data)


def test_such_a_registry_still_takes_a_blob_by_its_digest(registry: Front) -> None:
    registry.rule("PATCH", "/uploads/", 405)
    here = client(registry)
    source = Source(DATA)
    with pytest.raises(DigestFirst):
        here.upload_unnamed(f"{registry.prefix}/a", source.stream, advance=ignore)

    class Blob:
        digest = digest_of(DATA)
        size = len(DATA)

        def open(self, offset: int = 0) -> Iterator[bytes]:
            return source.open()

    here.upload_blob(f"{registry.prefix}/a", Blob(), advance=ignore)
    assert here.head_blob(f"{registry.prefix}/a", digest_of(DATA)) == len(DATA)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(402, DestinationError), (403, LoginRequired), (409, DestinationError), (307, DestinationError)],
)
def test_other_refusals_say_nothing_about_streams(registry: Front, status: int, kind: type[DestinationError]) -> None:
    registry.rule("PATCH", "/uploads/", status, times=9)
    here = client(registry)
    with pytest.raises(DestinationError) as caught:
        here.upload_unnamed(f"{registry.prefix}/a", Source(DATA).stream, advance=ignore)
    assert type(caught.value) is kind
    registry.rules.clear()
    assert here.upload_unnamed(f"{registry.prefix}/a", Source(DATA).stream, advance=ignore) == digest_of(DATA)


def test_a_registry_known_for_it_is_not_asked() -> None:
    here = RegistryClient("gcr.io", client=http.Client(QUICK), environ={})
    source = Source(DATA)
    with pytest.raises(DigestFirst, match=r"gcr\.io takes a blob only by its digest") as caught:
        here.upload_unnamed("a", source.stream, advance=ignore)
    assert caught.value.hint
    assert source.opened == 0


# --- answers that cannot be right ----------------------------------------------------------------

Edit = Callable[[int, dict[str, str], bytes], tuple[int, dict[str, str], bytes]]


def says(**more: str) -> Edit:
    """An edit that sets headers, or takes away those that are empty."""

    def edit(status: int, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        merged = {**headers, **{name.replace("_", "-"): value for name, value in more.items()}}
        return status, {name: value for name, value in merged.items() if value}, body

    return edit


def test_a_registry_that_kept_less_is_sent_all_again(registry: Front) -> None:
    registry.rule("PATCH", "/uploads/", edit=says(Range="0-99"))
    source = Source(DATA)
    assert client(registry).upload_unnamed(f"{registry.prefix}/a", source.stream, advance=ignore) == digest_of(DATA)
    assert source.opened == 2


def test_a_registry_that_always_keeps_less(registry: Front) -> None:
    registry.rule("PATCH", "/uploads/", edit=says(Range="0-99"), times=9)
    with pytest.raises(DestinationError, match="did not keep all of layer sd15") as caught:
        client(registry).upload_unnamed(f"{registry.prefix}/a", Source(DATA).stream, advance=ignore)
    assert f"it has 100 of {len(DATA)} bytes" in str(caught.value)
    assert counts(registry)["PUT"] == 0


@pytest.mark.parametrize("said", ["", f"0-{len(DATA)}", f"bytes=0-{len(DATA) - 1}", "0--1", "all of it", "9" * 5000])
def test_other_ways_to_tell_what_was_kept(registry: Front, said: str) -> None:
    registry.rule("PATCH", "/uploads/", edit=says(Range=said))
    client(registry).upload_unnamed(f"{registry.prefix}/a", Source(DATA).stream, advance=ignore)
    assert client(registry).head_blob(f"{registry.prefix}/a", digest_of(DATA)) == len(DATA)


def test_a_session_that_stays_where_it_was(registry: Front) -> None:
    """Without a Location the session keeps its address. The real registry's state is in it, so it refuses here."""
    registry.rule("PATCH", "/uploads/", edit=says(Location=""))
    registry.rule("PUT", "/uploads/", 201)
    client(registry).upload_unnamed(f"{registry.prefix}/a", Source(DATA).stream, advance=ignore)
    (patch,), (put,) = registry.requests("PATCH"), registry.requests("PUT")
    assert put.path == patch.path


@pytest.mark.parametrize("location", ["ftp://example.com/x", "http://[", "file:///etc/passwd"])
def test_a_session_that_moves_to_no_usable_place(registry: Front, location: str) -> None:
    registry.rule("PATCH", "/uploads/", edit=says(Location=location))
    with pytest.raises(DestinationError, match="no usable place to upload to"):
        client(registry).upload_unnamed(f"{registry.prefix}/a", Source(DATA).stream, advance=ignore)
    assert counts(registry)["DELETE"] == 1


def test_a_registry_that_stored_something_else(registry: Front) -> None:
    registry.rule("PUT", "/uploads/", edit=says(Docker_Content_Digest=digest_of(b"other")))
    with pytest.raises(DestinationError) as caught:
        client(registry).upload_unnamed(f"{registry.prefix}/a", Source(DATA).stream, advance=ignore)
    assert digest_of(b"other") in str(caught.value)
    assert "layer sd15" in str(caught.value)


# --- memory --------------------------------------------------------------------------------------


def test_memory_does_not_grow_with_a_blob(registry: Front) -> None:
    script = """
import resource, sys
from layerbuild import http
from layerbuild.registry.client import RegistryClient
from layerbuild.registry.sending import Stream
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
def chunks(count):
    for number in range(count):
        yield bytes([number % 256]) * (4 << 20)
here = RegistryClient(sys.argv[1], client=http.Client(), environ={})
def send(count):
    stream = Stream(open=lambda: chunks(count), size=count << 22, title="x")
    here.upload_unnamed(sys.argv[2], stream, advance=lambda amount: None)
send(10)
before = peak()
send(75)
print(peak() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, registry.host, f"{registry.prefix}/a"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert registry.uploaded() == 340 << 20
    assert int(done.stdout) < 16 * 1024, "KiB more for 300 MiB than for 40"
