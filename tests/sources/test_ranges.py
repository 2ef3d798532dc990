"""Large files over several connections."""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from fixtures.hub import Hub
from fixtures.web import Answer, Asked, Web
from layerbuild.errors import AccessDenied, ContentMismatch, NotFound, Unreachable
from layerbuild.model import Content, Pin, PinnedFile
from layerbuild.sources import Request, ranges, source_for
from layerbuild.sources.base import Context

_SEGMENT = 64 * 1024
_DATA = random.Random(1).randbytes(40 * _SEGMENT + 99)
_SHA256 = hashlib.sha256(_DATA).hexdigest()
_RANGES = 41


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is large, made small."""
    monkeypatch.setattr(ranges, "LARGE", 16 * _SEGMENT)
    monkeypatch.setattr(ranges, "SEGMENT", _SEGMENT)


def _open(context: Context, url: str, offset: int = 0, data: bytes = _DATA) -> Iterator[bytes]:
    content = Content(size=len(data), sha256=hashlib.sha256(data).hexdigest())
    pin = Pin(source=url, files=(PinnedFile(path="x", content=content),))
    return source_for(url, context).open(pin, pin.files[0], offset=offset)


def _ranges(requests: list[Asked]) -> list[int]:
    """First bytes of what was asked for."""
    return [int(r.headers["range"].partition("=")[2].partition("-")[0]) for r in requests if "range" in r.headers]


def test_four_connections_at_once(context: Context, web: Web) -> None:
    together = threading.Barrier(ranges.CONNECTIONS)

    def answer(asked: Asked) -> Answer:
        if _SEGMENT <= _ranges([asked])[0] <= 4 * _SEGMENT:
            together.wait(30)
        return Answer(body=_DATA)

    web.handle("/", answer)
    assert b"".join(_open(context, web.url + "/file")) == _DATA
    assert sorted(_ranges(web.requests)) == list(range(0, len(_DATA), _SEGMENT)) and len(web.requests) == _RANGES
    assert sum(web.sent.values()) == len(_DATA)


def test_from_the_middle(context: Context, web: Web) -> None:
    url = web.route("/file", _DATA)
    assert b"".join(_open(context, url, 12345)) == _DATA[12345:]
    assert len(web.requests) == _RANGES - 1
    web.requests.clear()
    start = len(_DATA) - 4 * _SEGMENT + 1
    assert b"".join(_open(context, url, start)) == _DATA[start:]
    assert len(web.requests) == 1, "what is left is small"


def test_a_server_without_ranges_is_asked_once(context: Context, web: Web) -> None:
    url = web.route("/file", Answer(body=_DATA, ranges=False))
    assert b"".join(_open(context, url)) == _DATA
    assert len(web.requests) == 1 and web.sent["/file"] == len(_DATA)


def test_a_digest_that_nobody_knows_takes_one_connection(context: Context, web: Web) -> None:
    pin = source_for(web.url, context).resolve(Request(uri=web.route("/file", _DATA)))
    assert pin.files[0].content.sha256 == _SHA256 and len(web.requests) == 1


def test_a_range_that_breaks_off_goes_on(context: Context, web: Web) -> None:
    broken = {5 * _SEGMENT, 9 * _SEGMENT}

    def answer(asked: Asked) -> Answer:
        (start,) = _ranges([asked])
        cut = 1000 if start in broken else None
        broken.discard(start)
        return Answer(body=_DATA, cut=cut)

    web.handle("/", answer)
    assert b"".join(_open(context, web.url + "/file")) == _DATA
    assert len(web.requests) == _RANGES + 2
    assert {5 * _SEGMENT + 1000, 9 * _SEGMENT + 1000} <= set(_ranges(web.requests))
    assert sum(web.sent.values()) == len(_DATA)


@pytest.mark.parametrize("status", [403, 429, 503])
def test_a_server_that_allows_one_connection(context: Context, web: Web, status: int) -> None:
    refused = 7 * _SEGMENT

    def answer(asked: Asked) -> Answer:
        several = not asked.headers["range"].endswith("-")
        return Answer(status=status) if several and _ranges([asked]) >= [refused] else Answer(body=_DATA)

    web.handle("/", answer)
    assert b"".join(_open(context, web.url + "/file")) == _DATA
    assert f"bytes={refused}-" in [asked.headers["range"] for asked in web.requests]
    assert sum(web.sent.values()) == len(_DATA)


def test_what_came_before_a_failure_is_handed_on(context: Context, web: Web) -> None:
    gone = 7 * _SEGMENT
    web.handle("/", lambda asked: Answer(status=404) if _ranges([asked]) >= [gone] else Answer(body=_DATA))
    got = bytearray()
    with pytest.raises(NotFound):
        for chunk in _open(context, web.url + "/file"):
            got += chunk
    assert got == _DATA[:gone]


def test_another_size_in_the_middle(context: Context, web: Web) -> None:
    other = _DATA[:-1]
    web.handle("/", lambda asked: Answer(body=other if _ranges([asked]) >= [_SEGMENT] else _DATA))
    with pytest.raises(ContentMismatch, match="are pinned"):
        list(_open(context, web.url + "/file"))


def test_whoever_stops_reading_stops_the_ranges(context: Context, web: Web) -> None:
    url = web.route("/file", _DATA)
    chunks = _open(context, url)
    next(chunks)
    next(chunks)
    chunks.close()  # type: ignore[attr-defined]
    _until(lambda: not [t for t in threading.enumerate() if t.name.startswith("range")])
    assert len(web.requests) <= 2 + ranges.AHEAD + ranges.CONNECTIONS
    assert b"".join(_open(context, url)) == _DATA


def _until(holds: Callable[[], bool]) -> None:
    for _ in range(3000):
        if holds():
            return
        time.sleep(0.01)
    raise AssertionError("it never did")


def test_one_file_at_a_time(context: Context, web: Web) -> None:
    url = web.route("/file", _DATA)
    first = _open(context, url)
    next(first)
    asked = len(web.requests)
    assert b"".join(_open(context, web.route("/other", _DATA))) == _DATA
    assert len(web.asked("/other")) == 1 and asked >= 1
    assert b"".join(first) == _DATA[_SEGMENT:]
    assert len(web.asked("/file")) == _RANGES


@pytest.fixture
def at_hub(context: Context, hub: Hub) -> Context:
    """Somebody with a token, at a Hub with a large file."""
    hub.add("org/name", lfs={"model.bin": _DATA}, private=True)
    return replace(context, environ={"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": hub.token})


def _model(context: Context) -> Iterator[bytes]:
    uri = "hf://org/name@main/model.bin"
    pin = source_for(uri, context).resolve(Request(uri=uri))
    return source_for(pin.source, context).open(pin, pin.files[0])


def test_the_hub_is_asked_for_the_address_once(at_hub: Context, hub: Hub) -> None:
    assert b"".join(_model(at_hub)) == _DATA
    assert hub.counted() == {"metadata": 1, "addresses": 1, "contents": _RANGES}
    assert all("authorization" not in asked.headers for asked in hub.cdn_requests)


def test_an_address_that_expires_is_asked_for_again(at_hub: Context, hub: Hub) -> None:
    good = Answer(body=_DATA)
    hub.script(f"/lfs/{_SHA256}", *[good] * 10, Answer(status=403), *[good] * 10, Answer(status=503), good)
    assert b"".join(_model(at_hub)) == _DATA
    assert 2 <= hub.counted()["addresses"] <= 1 + 2 * ranges.CONNECTIONS


def test_an_address_that_leads_nowhere_is_an_error_without_it(at_hub: Context, hub: Hub) -> None:
    hub.script(f"/lfs/{_SHA256}", *[Answer(body=_DATA)] * 10, Answer(status=403))
    with pytest.raises(AccessDenied) as caught:
        list(_model(at_hub))
    assert "never-be-seen" not in str(caught.value) and "NeverBeSeen" not in str(caught.value)


def test_a_server_that_goes_away(context: Context) -> None:
    with Web() as web, Web() as there:
        there.route("/file", _DATA)
        url = web.route("/file", Answer(status=302, headers={"Location": there.url + "/file"}))
        chunks = _open(context, url)
        next(chunks)
    with pytest.raises(Unreachable):
        list(chunks)


def test_headers_stay_at_their_origin(
    context: Context, web: Web, elsewhere: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = web.route("/file", Answer(status=302, headers={"Location": elsewhere.route("/there", _DATA)}))
    content = Content(size=len(_DATA), sha256=_SHA256)
    pin = Pin(source=url, files=(PinnedFile(path="x", content=content),), headers=(("PRIVATE-TOKEN", "${TOKEN}"),))
    known = replace(context, environ={**context.environ, "TOKEN": "secret-value"})
    assert b"".join(source_for(url, known).open(pin, pin.files[0])) == _DATA
    assert web.requests[0].headers["private-token"] == "secret-value"
    assert len(elsewhere.requests) > 10
    assert not any("secret-value" in asked.headers.values() for asked in elsewhere.requests)
