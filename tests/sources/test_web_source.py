"""`https://` and `http://` against a real server."""

from __future__ import annotations

import base64
import hashlib
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fixtures.web import Answer, Asked, Web
from layerbuild.errors import AccessDenied, ContentMismatch, NotFound, SourceError, Unreachable
from layerbuild.model import Content, Pin, PinnedFile
from layerbuild.sources import Request, source_for
from layerbuild.sources.base import Context, verified
from layerbuild.sources.netrcfile import authorization
from layerbuild.wire import BLOCK

DATA = random.Random(1).randbytes(3 * BLOCK + 77)
SHA256 = hashlib.sha256(DATA).hexdigest()


def pinned(url: str, size: int | None = len(DATA)) -> Pin:
    return Pin(source=url, files=(PinnedFile(path="x", content=Content(size=size, sha256=SHA256)),))


def fetch(context: Context, pin: Pin, offset: int = 0, length: int | None = None) -> bytes:
    return b"".join(source_for(pin.source, context).open(pin, pin.files[0], offset=offset, length=length))


def resolve(context: Context, url: str, **declared: object) -> Pin:
    return source_for(url, context).resolve(Request(uri=url, **declared))  # type: ignore[arg-type]


def test_what_is_declared_in_full_needs_no_network(context: Context) -> None:
    offline = replace(context, offline=True)
    pin = resolve(offline, "https://example.invalid/a/sd%20v1.safetensors?download=true#top", sha256=SHA256, size=5)
    assert pin.source == "https://example.invalid/a/sd%20v1.safetensors?download=true"
    assert pin.files == (PinnedFile(path="sd v1.safetensors", content=Content(size=5, sha256=SHA256)),)


def test_without_a_digest_it_is_fetched_once(context: Context, web: Web, notes: Any) -> None:
    url = web.route("/dir/vae.pt", DATA)
    pin = resolve(context, url)
    assert pin.files == (PinnedFile(path="vae.pt", content=Content(size=len(DATA), sha256=SHA256)),)
    assert len(web.requests) == 1
    assert notes.lines == [f"nobody publishes a digest of {url}: fetched once and recorded what came"]


@pytest.mark.parametrize("path", ["/", "/dir/"])
def test_an_address_without_a_name(context: Context, web: Web, path: str) -> None:
    assert resolve(context, web.route(path, b"x")).files[0].path == "download"


def test_the_size_comes_from_head(context: Context, web: Web) -> None:
    web.route("/real", DATA)
    url = web.route("/file", Answer(status=302, headers={"Location": "/real"}))
    assert resolve(context, url, sha256=SHA256).files[0].content.size == len(DATA)
    assert [r.method for r in web.requests] == ["HEAD", "HEAD"]
    assert sum(web.sent.values()) == 0


@pytest.mark.parametrize("status", [403, 405])
def test_the_size_comes_from_a_range(context: Context, web: Web, status: int) -> None:
    web.handle("/", lambda asked: Answer(status=status) if asked.method == "HEAD" else Answer(body=DATA))
    assert resolve(context, web.url + "/file", sha256=SHA256).files[0].content.size == len(DATA)
    assert web.sent["/file"] == 1


def test_the_size_of_an_empty_file(context: Context, web: Web) -> None:
    web.handle("/", lambda asked: Answer(status=405) if asked.method == "HEAD" else Answer())
    assert resolve(context, web.url + "/file", sha256=SHA256).files[0].content.size == 0


def test_a_size_that_nobody_tells(context: Context, web: Web) -> None:
    url = web.route("/file", Answer(body=DATA, length=False, ranges=False))
    pin = resolve(context, url, sha256=SHA256)
    assert pin.files[0].content.size is None
    assert fetch(context, pin) == DATA
    assert fetch(context, pin, BLOCK, 9) == DATA[BLOCK : BLOCK + 9]


def test_a_declared_size_that_is_another(context: Context, web: Web) -> None:
    with pytest.raises(ContentMismatch, match="not what is declared"):
        resolve(context, web.route("/file", DATA), size=5)


@pytest.mark.parametrize(("status", "error"), [(401, AccessDenied), (403, AccessDenied), (404, NotFound)])
@pytest.mark.parametrize("sha256", [None, SHA256])
def test_refusals(context: Context, web: Web, status: int, error: type[SourceError], sha256: str | None) -> None:
    url = web.route("/file", Answer(status=status))
    with pytest.raises(error, match=f"answered {status}") as caught:
        resolve(context, url, sha256=sha256)
    assert caught.value.hint


def test_a_server_in_trouble_is_unreachable(context: Context, web: Web) -> None:
    with pytest.raises(Unreachable, match="answered 503"):
        fetch(context, pinned(web.route("/file", Answer(status=503))))
    assert len(web.requests) == 3


def test_a_strange_status(context: Context, web: Web) -> None:
    with pytest.raises(SourceError, match="answered 418"):
        resolve(context, web.route("/file", Answer(status=418)))


@pytest.mark.parametrize("sha256", [None, SHA256])
def test_a_web_page_instead_of_a_file(context: Context, web: Web, sha256: str | None) -> None:
    page = Answer(body=b"<html>log in", headers={"Content-Type": "text/html; charset=utf-8"})
    with pytest.raises(AccessDenied, match="web page instead of a file"):
        resolve(context, web.route("/model.safetensors", page), sha256=sha256)
    assert resolve(context, web.route("/page.html", page)).files[0].path == "page.html"


@pytest.mark.parametrize(
    "url",
    [
        "https://user:hunter2@host/file",
        "https://hunter2@host/file",
        "https://host/file?X-Amz-Signature=hunter2",
        "https://host/file?a=b&token=hunter2",
    ],
)
def test_secrets_in_addresses_are_refused_and_not_shown(context: Context, url: str) -> None:
    with pytest.raises(SourceError, match="in it") as caught:
        resolve(context, url, sha256=SHA256, size=1)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["https://", "https:///x", "https://host:port/x", "https://[::1/x", "https://host/a b", "https://host/\x00"]
)
def test_what_is_no_address(context: Context, url: str) -> None:
    with pytest.raises(SourceError, match=r"not an address|cannot be parsed"):
        resolve(context, url, sha256=SHA256, size=1)


@pytest.mark.parametrize("url", ["https://host/a/..", "https://host/%2e%2e", "https://host/a%5Cb", "https://host/a%00"])
def test_names_that_no_layer_may_hold(context: Context, url: str) -> None:
    with pytest.raises(SourceError, match="no layer may hold"):
        resolve(context, url, sha256=SHA256, size=1)


def test_one_file_has_no_files(context: Context) -> None:
    with pytest.raises(SourceError, match="is one file"):
        resolve(context, "https://host/file", files=("x",))


def test_offline(context: Context, web: Web) -> None:
    offline = replace(context, offline=True)
    url = web.route("/file", DATA)
    for attempt in (
        lambda: resolve(offline, url),
        lambda: resolve(offline, url, sha256=SHA256),
        lambda: fetch(offline, pinned(url)),
    ):
        with pytest.raises(Unreachable, match="offline"):
            attempt()
    assert web.requests == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(
    offset=st.integers(0, len(DATA) + 5),
    length=st.none() | st.integers(0, len(DATA) + 5),
    ranges=st.booleans(),
    declared_length=st.booleans(),
    known=st.booleans(),
)
def test_any_range_from_any_server(
    context: Context, web: Web, offset: int, length: int | None, ranges: bool, declared_length: bool, known: bool
) -> None:
    if not known:
        offset = min(offset, len(DATA))
        length = length if ranges or declared_length else None
    url = web.route("/file", Answer(body=DATA, ranges=ranges, length=declared_length))
    pin = pinned(url, len(DATA) if known else None)
    stop = None if length is None else offset + length
    assert fetch(context, pin, offset, length) == DATA[offset:stop]


def test_a_range_reads_no_more_than_it_needs(context: Context, web: Web) -> None:
    url = web.route("/file", DATA)
    assert fetch(context, pinned(url), 8, 100) == DATA[8:108]
    assert web.sent["/file"] == 100
    assert fetch(context, pinned(url), len(DATA)) == b""
    assert len(web.requests) == 1


def test_a_download_that_breaks_off_goes_on(context: Context, web: Web) -> None:
    url = web.route("/file", *(Answer(body=DATA, cut=BLOCK + i) for i in range(3)), DATA)
    assert fetch(context, pinned(url)) == DATA
    assert [r.headers.get("range") for r in web.requests] == [
        None,
        f"bytes={BLOCK}-",
        f"bytes={2 * BLOCK + 1}-",
        f"bytes={3 * BLOCK + 3}-",
    ]
    assert web.sent["/file"] == len(DATA)


def test_a_download_goes_on_without_ranges(context: Context, web: Web) -> None:
    url = web.route("/file", Answer(body=DATA, cut=BLOCK), Answer(body=DATA, ranges=False))
    assert fetch(context, pinned(url)) == DATA


def test_a_download_that_never_ends_is_given_up(context: Context, web: Web, waits: list[float]) -> None:
    url = web.route("/file", Answer(body=DATA, cut=10, ranges=False))
    with pytest.raises(Unreachable, match=r"broke off|truncated"):
        fetch(context, pinned(url))
    assert len(web.requests) == 3
    assert len(waits) == 2


def test_a_truncated_download_of_unknown_length_is_an_error(context: Context, web: Web) -> None:
    url = web.route("/file", Answer(body=DATA[:-1], length=False, ranges=False))
    with pytest.raises(Unreachable, match="truncated"):
        fetch(context, pinned(url))


@pytest.mark.parametrize("body", [DATA[:-1], DATA + b"x", b""])
def test_another_size_than_pinned(context: Context, web: Web, body: bytes) -> None:
    with pytest.raises(ContentMismatch, match="bytes"):
        fetch(context, pinned(web.route("/file", body)))
    with pytest.raises(ContentMismatch, match="bytes"):
        fetch(context, pinned(web.url + "/file"), 1)


def test_more_bytes_than_pinned_without_a_length(context: Context, web: Web) -> None:
    with pytest.raises(ContentMismatch, match="more than"):
        fetch(context, pinned(web.route("/file", Answer(body=DATA + b"x", length=False))))


def test_another_content_than_pinned(context: Context, web: Web) -> None:
    pin = pinned(web.route("/file", DATA[:-1] + b"?"))
    chunks = source_for(pin.source, context).open(pin, pin.files[0])
    with pytest.raises(ContentMismatch, match=SHA256):
        list(verified(chunks, pin.files[0].content, what="it"))


def test_a_file_that_changes_on_the_way_is_not_recorded(context: Context, web: Web) -> None:
    url = web.route(
        "/file",
        Answer(body=DATA, cut=BLOCK, headers={"ETag": '"one"'}),
        Answer(body=DATA[::-1], headers={"ETag": '"two"'}),
    )
    with pytest.raises(ContentMismatch, match="changed while"):
        resolve(context, url)


def test_a_server_that_gives_another_range(context: Context, web: Web) -> None:
    wrong = Answer(status=206, body=DATA[:5], headers={"Content-Range": f"bytes 0-4/{len(DATA)}"})
    with pytest.raises(SourceError, match="makes no sense"):
        fetch(context, pinned(web.route("/file", wrong)), 8, 5)


def test_a_server_that_insists_on_compressing(context: Context, web: Web) -> None:
    url = web.route("/file", Answer(body=b"x", headers={"Content-Encoding": "gzip"}))
    with pytest.raises(SourceError, match="compressing"):
        fetch(context, pinned(url))


def test_signed_addresses_are_asked_for_again_and_not_shown(context: Context, web: Web, elsewhere: Web) -> None:
    def start(asked: Asked) -> Answer:
        return Answer(status=302, headers={"Location": f"{elsewhere.url}/{len(web.requests)}?Signature=hunter2"})

    web.handle("/", start)
    elsewhere.route("/1", Answer(body=DATA, cut=BLOCK))
    elsewhere.route("/2", Answer(status=403))
    with pytest.raises(AccessDenied) as caught:
        fetch(context, pinned(web.url + "/file"))
    assert "hunter2" not in str(caught.value)
    assert [r.path for r in elsewhere.requests] == ["/1", "/2"]


# --- logins ----------------------------------------------------------------------------------------

PASSWORD = "a-password-that-must-never-be-seen"


def basic(login: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{login}:{password}".encode()).decode()


def with_netrc(context: Context, tmp_path: Path, text: str, *, home: bool = False) -> Context:
    path = tmp_path / ".netrc"
    path.write_text(text)
    return replace(context, environ={"HOME": str(tmp_path)} if home else {"NETRC": str(path)})


@pytest.mark.parametrize("home", [True, False])
def test_netrc(context: Context, web: Web, elsewhere: Web, tmp_path: Path, home: bool) -> None:
    context = with_netrc(context, tmp_path, f"machine 127.0.0.1 login me password {PASSWORD}\n", home=home)
    target = elsewhere.route("/signed", DATA)
    url = web.route("/a", Answer(status=302, headers={"Location": target}))
    assert fetch(context, resolve(context, url, sha256=SHA256)) == DATA
    assert {r.headers.get("authorization") for r in web.requests} == {basic("me", PASSWORD)}
    assert elsewhere.requests and not any("authorization" in r.headers for r in elsewhere.requests)


@pytest.mark.parametrize("line", ["default login me password x", "machine localhost login me password x", ""])
def test_netrc_of_other_hosts(context: Context, web: Web, tmp_path: Path, line: str) -> None:
    context = with_netrc(context, tmp_path, line + "\n")
    resolve(context, web.route("/a", DATA), sha256=SHA256)
    assert not any("authorization" in r.headers for r in web.requests)


def test_a_declared_login_wins_over_netrc(context: Context, web: Web, tmp_path: Path) -> None:
    context = with_netrc(context, tmp_path, f"machine 127.0.0.1 login me password {PASSWORD}\n")
    context = replace(context, environ={**context.environ, "T": "token"})
    resolve(context, web.route("/a", DATA), sha256=SHA256, headers=(("authorization", "Bearer ${T}"),))
    assert {r.headers.get("authorization") for r in web.requests} == {"Bearer token"}


def test_no_password_in_the_clear_to_another_machine(context: Context, tmp_path: Path) -> None:
    context = with_netrc(context, tmp_path, f"machine example.invalid login me password {PASSWORD}\n")
    assert authorization(context, "http://example.invalid/x") is None
    assert authorization(context, "https://example.invalid/x") == basic("me", PASSWORD)
    with pytest.raises(SourceError, match="would be sent in the clear"):
        resolve(context, "http://example.invalid/x", sha256=SHA256, headers=(("X-A", "${NETRC}"),))


@pytest.mark.parametrize("text", [f"machine 127.0.0.1 login me {PASSWORD} x\n", "\0" * (1024 * 1024 + 1)])
def test_a_netrc_that_is_none(context: Context, web: Web, tmp_path: Path, text: str) -> None:
    context = with_netrc(context, tmp_path, text)
    with pytest.raises(SourceError, match=r"\.netrc is ") as caught:
        resolve(context, web.route("/a", DATA), sha256=SHA256)
    assert PASSWORD not in str(caught.value)
    assert not web.requests


def test_headers_go_to_the_first_origin_only(context: Context, web: Web, elsewhere: Web) -> None:
    context = replace(context, environ={"T": PASSWORD})
    headers = (("PRIVATE-TOKEN", "${T}"), ("Accept", "application/octet-stream"))
    url = web.route("/a", Answer(status=302, headers={"Location": elsewhere.route("/signed", DATA)}))
    pin = resolve(context, url, headers=headers)
    assert pin.files[0].content.sha256 == SHA256 and pin.headers == headers
    assert fetch(context, pin) == DATA
    assert {r.headers.get("private-token") for r in web.requests} == {PASSWORD}
    assert {r.headers.get("private-token") for r in elsewhere.requests} == {None}
    assert {r.headers.get("accept") for r in elsewhere.requests} == {"application/octet-stream"}


@pytest.mark.parametrize("login", [True, False])
def test_a_refusal_says_where_a_login_belongs(context: Context, web: Web, tmp_path: Path, login: bool) -> None:
    context = with_netrc(context, tmp_path, f"machine 127.0.0.1 login me password {PASSWORD}\n" if login else "\n")
    with pytest.raises(AccessDenied) as caught:
        resolve(context, web.route("/a", Answer(status=401)))
    assert ("is right" in str(caught.value.hint)) == login
    assert PASSWORD not in str(caught.value)
