"""Mirrors: the next address where one is dead, at lock and at fetch, and a pin that does not tell."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest

from fixtures.civitai import Civitai
from fixtures.web import Answer, Web
from layerbuild.errors import AccessDenied, ContentMismatch, NotFound, SourceError, Unreachable
from layerbuild.model import Content, Pin, PinnedFile
from layerbuild.sources import Request, source_for
from layerbuild.sources.base import Context

DATA = bytes(range(256)) * 64
SHA256 = hashlib.sha256(DATA).hexdigest()
SECRET = "a-value-that-must-never-be-seen"


def pin(source: str, *mirrors: str, size: int | None = len(DATA)) -> Pin:
    return Pin(source=source, files=(PinnedFile(path="x", content=Content(size=size, sha256=SHA256)),), mirrors=mirrors)


def fetch(context: Context, pinned: Pin, offset: int = 0, length: int | None = None) -> bytes:
    return b"".join(source_for(pinned.source, context).open(pinned, pinned.files[0], offset=offset, length=length))


def resolve(context: Context, request: Request) -> Pin:
    return source_for(request.uri, context).resolve(request)


DEAD = [
    Answer(status=404),
    Answer(status=410),
    Answer(status=403),
    Answer(status=503),
    Answer(status=523),
    Answer(body=b"<html>this domain is for sale", headers={"Content-Type": "text/html"}, ranges=False),
]


@pytest.mark.parametrize("dead", DEAD, ids=lambda answer: str(answer.status))
@pytest.mark.parametrize("sha256", [SHA256, None])
def test_lock_does_not_tell_which_address_answered(
    context: Context, web: Web, elsewhere: Web, dead: Answer, sha256: str | None, notes: Any
) -> None:
    source = web.route("/a/first.safetensors", DATA)
    mirrors = (web.route("/gone", Answer(status=404)), elsewhere.route("/b/second", DATA))
    request = Request(uri=source, sha256=sha256, mirrors=mirrors)
    alive = resolve(context, request)
    assert not elsewhere.requests, "a mirror is not asked while the source answers"
    web.route("/a/first.safetensors", dead)
    notes.lines.clear()
    assert resolve(context, request) == alive
    assert alive.source == source and alive.files[0].path == "first.safetensors" and alive.mirrors == mirrors
    assert f"trying {mirrors[0]}" in notes.lines[0] and f"trying {mirrors[1]}" in notes.lines[1]


@pytest.mark.parametrize("dead", DEAD, ids=lambda answer: str(answer.status))
def test_fetch_falls_over(context: Context, web: Web, elsewhere: Web, dead: Answer, notes: Any) -> None:
    pinned = pin(web.route("/a", dead), elsewhere.route("/b", DATA))
    assert fetch(context, pinned) == DATA
    assert fetch(context, pinned, 100, 50) == DATA[100:150]
    assert notes.lines[0].endswith(f"trying {pinned.mirrors[0]}")


def test_a_port_where_nobody_listens(context: Context, elsewhere: Web) -> None:
    with Web() as gone:
        dead = gone.url
    assert fetch(context, pin(f"{dead}/a", elsewhere.route("/b", DATA))) == DATA


def test_another_file_at_the_first_address(context: Context, web: Web, elsewhere: Web) -> None:
    assert fetch(context, pin(web.route("/a", DATA + b"more"), elsewhere.route("/b", DATA))) == DATA


def test_a_mirror_goes_on_where_the_source_broke_off(context: Context, web: Web, elsewhere: Web) -> None:
    web.route("/a", Answer(body=DATA, cut=1000), Answer(status=503))
    assert fetch(context, pin(f"{web.url}/a", elsewhere.route("/b", DATA))) == DATA
    assert [r.headers.get("range") for r in elsewhere.requests] == ["bytes=1000-"]


def test_a_file_that_became_another_on_the_way_is_an_error(context: Context, web: Web, elsewhere: Web) -> None:
    web.route("/a", Answer(body=DATA, cut=1000), DATA + b"more")
    with pytest.raises(ContentMismatch):
        fetch(context, pin(f"{web.url}/a", elsewhere.route("/b", DATA)))
    assert not elsewhere.requests


def test_nobody_has_it(context: Context, web: Web, elsewhere: Web) -> None:
    source, mirror = web.route("/a", Answer(status=404)), elsewhere.route("/b", Answer(status=403))
    with pytest.raises(NotFound, match="and neither can its mirrors") as caught:
        fetch(context, pin(source, mirror))
    assert "answered 404" in str(caught.value.cause) and "answered 403" in str(caught.value.cause)
    with pytest.raises(NotFound, match="and neither can its mirrors"):
        resolve(context, Request(uri=source, sha256=SHA256, mirrors=(mirror,)))


def test_a_mirror_with_another_size_is_an_error_at_lock(context: Context, web: Web, elsewhere: Web) -> None:
    source, mirror = web.route("/a", Answer(status=404)), elsewhere.route("/b", b"other")
    with pytest.raises(ContentMismatch):
        resolve(context, Request(uri=source, mirrors=(mirror,), sha256=None, size=len(DATA)))


def test_a_source_of_another_kind_can_be_a_mirror(context: Context, web: Web, civitai: Civitai) -> None:
    civitai.add(7, {"night.safetensors": DATA})
    context = replace(context, environ={"CIVITAI_ENDPOINT": civitai.endpoint})
    source = web.route("/a.safetensors", Answer(status=404))
    pinned = resolve(context, Request(uri=source, mirrors=("civitai://7",)))
    assert pinned == replace(pin(source, "civitai://7"), files=(replace(pin("").files[0], path="a.safetensors"),))
    assert fetch(context, pinned) == DATA


def test_a_mirror_of_a_model_that_civitai_lost(context: Context, elsewhere: Web, civitai: Civitai) -> None:
    civitai.add(7, {"night.safetensors": DATA})
    context = replace(context, environ={"CIVITAI_ENDPOINT": civitai.endpoint})
    mirror = elsewhere.route("/night", DATA)
    pinned = resolve(context, Request(uri="civitai://7", mirrors=(mirror,)))
    assert pinned.source == "civitai://7?file=70" and pinned.mirrors == (mirror,)
    civitai.versions[7]["files"] = []
    assert fetch(replace(context), pinned) == DATA
    # Which of several files it is, only Civitai can say.
    with pytest.raises(NotFound, match="has no files"):
        resolve(replace(context), Request(uri="civitai://7", mirrors=(mirror,)))


@pytest.mark.parametrize("mirror", ["file:x", "git+https://example.invalid/x@main", "nonsense", "https://u:p@host/x"])
def test_what_cannot_be_a_mirror(context: Context, web: Web, mirror: str) -> None:
    source = web.route("/a", DATA)
    with pytest.raises(SourceError) as caught:
        resolve(context, Request(uri=source, sha256=SHA256, mirrors=(mirror,)))
    assert "u:p" not in str(caught.value)
    with pytest.raises(SourceError):
        fetch(context, pin(web.route("/b", Answer(status=404)), mirror))


def test_a_signed_mirror_never_enters_a_lock(context: Context, web: Web) -> None:
    with pytest.raises(SourceError, match="has a secret in it") as caught:
        resolve(context, Request(uri=web.route("/a", DATA), mirrors=(f"https://host/x?X-Amz-Signature={SECRET}",)))
    assert SECRET not in str(caught.value)


def test_offline_no_mirror_is_asked(context: Context, web: Web, elsewhere: Web) -> None:
    offline = replace(context, offline=True)
    pinned = pin(web.route("/a", DATA), elsewhere.route("/b", DATA))
    with pytest.raises(Unreachable):
        fetch(offline, pinned)
    with pytest.raises(Unreachable):
        resolve(offline, Request(uri=pinned.source, mirrors=pinned.mirrors))
    assert not web.requests and not elsewhere.requests


def test_headers_go_to_the_origin_of_the_source_only(context: Context, web: Web, elsewhere: Web) -> None:
    context = replace(context, environ={"T": SECRET})
    headers = (("Authorization", "Bearer ${T}"),)
    dead = Answer(status=403)
    mirrors = (elsewhere.route("/b", dead), web.route("/c", DATA))
    pinned = replace(pin(web.route("/a", dead), *mirrors), headers=headers)
    assert fetch(context, pinned) == DATA
    assert [r.headers.get("authorization") for r in web.requests] == [f"Bearer {SECRET}"] * 2
    assert elsewhere.requests and not any("authorization" in r.headers for r in elsewhere.requests)
    resolved = resolve(context, Request(uri=pinned.source, sha256=SHA256, mirrors=mirrors, headers=headers))
    assert resolved.headers == headers
    assert not any("authorization" in r.headers for r in elsewhere.requests)


def test_a_missing_variable_is_no_reason_to_ask_a_mirror(context: Context, web: Web, elsewhere: Web) -> None:
    request = Request(
        uri=web.route("/a", DATA), mirrors=(elsewhere.route("/b", DATA),), headers=(("Authorization", "${T}"),)
    )
    with pytest.raises(SourceError, match="the variable T is not set") as caught:
        resolve(context, request)
    assert not isinstance(caught.value, AccessDenied)
    assert not elsewhere.requests
