"""The HTTP client against a real server: retries, redirects, truncation, bodies, redaction."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.web import Answer, Asked, Web
from layerbuild import http
from layerbuild.addresses import redact
from layerbuild.errors import SourceError, Unreachable
from layerbuild.http import Body, Client, Policy, chunks, retry_after
from layerbuild.wire import BLOCK, is_loopback

BEARER = {"Authorization": "Bearer secret-token"}


def body(client: Client, url: str) -> bytes:
    return b"".join(chunks(client.request("GET", url)))


def test_passing_errors_are_tried_again(web: Web, http_client: Client, waits: list[float]) -> None:
    url = web.route("/file", Answer(status=503), Answer(status=429), b"content")
    assert body(http_client, url) == b"content"
    assert len(web.asked("/file")) == 3
    assert len(waits) == 2
    # Half a second and a whole one, each with half of itself as jitter.
    assert 0.25 <= waits[0] <= 0.75
    assert 0.5 <= waits[1] <= 1.5


def test_retry_after_is_obeyed(web: Web, http_client: Client, waits: list[float]) -> None:
    url = web.route("/file", Answer(status=503, headers={"Retry-After": "7"}), b"content")
    assert body(http_client, url) == b"content"
    assert waits == [7.0]


def test_a_long_retry_after_is_not_waited_for(web: Web, http_client: Client, waits: list[float]) -> None:
    url = web.route("/file", Answer(status=429, headers={"Retry-After": "3600"}))
    with http_client.request("GET", url) as response:
        assert response.status_code == 429
    assert waits == []
    assert len(web.requests) == 1


def test_the_last_answer_is_given_back(web: Web, http_client: Client) -> None:
    url = web.route("/file", Answer(status=502, body=b"why"))
    response = http_client.request("GET", url)
    assert response.status_code == 502
    assert b"".join(chunks(response)) == b"why"
    assert len(web.requests) == 3


def test_other_errors_are_not_tried_again(web: Web, http_client: Client) -> None:
    for status in (400, 401, 404, 500 + 1):
        with http_client.request("GET", web.route(f"/{status}", Answer(status=status))) as response:
            assert response.status_code == status
    assert len(web.requests) == 4


def test_nobody_listens(http_client: Client, waits: list[float]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/path?token=secret-token"
        with pytest.raises(Unreachable, match="Connection refused") as caught:
            http_client.request("GET", url)
    assert len(waits) == 2
    assert "secret-token" not in str(caught.value)
    assert caught.value.hint


def test_a_redirect_to_another_origin_drops_credentials(web: Web, elsewhere: Web, http_client: Client) -> None:
    target = elsewhere.route("/target", b"content")
    url = web.route("/start", Answer(status=302, headers={"Location": target}))
    response = http_client.request("GET", url, headers={**BEARER, "Range": "bytes=2-", "X-Other": "secret-token"})
    assert b"".join(chunks(response)) == b"ntent"
    assert web.requests[0].headers["authorization"] == "Bearer secret-token"
    assert "authorization" not in elsewhere.requests[0].headers
    assert elsewhere.requests[0].headers["range"] == "bytes=2-"
    assert "x-other" not in elsewhere.requests[0].headers, "nobody knows what a header means"


def test_credentials_do_not_come_back(web: Web, elsewhere: Web, http_client: Client) -> None:
    end = web.route("/end", b"content")
    middle = elsewhere.route("/middle", Answer(status=307, headers={"Location": end}))
    url = web.route("/start", Answer(status=302, headers={"Location": middle}))
    http_client.request("GET", url, headers=BEARER).close()
    assert "authorization" not in web.asked("/end")[0].headers


def test_a_redirect_within_an_origin_keeps_credentials(web: Web, http_client: Client) -> None:
    web.route("/target", b"content")
    url = web.route("/start", Answer(status=307, headers={"Location": "/target"}))
    http_client.request("GET", url, headers=BEARER).close()
    assert web.asked("/target")[0].headers["authorization"] == "Bearer secret-token"


@pytest.mark.parametrize(
    "location",
    [
        "ftp://127.0.0.1/x",
        "file:///etc/passwd",
        "http://host:port/",
        "http://127.0.0.1:99999/",
        "http://[::1",
        "http://elsewhere.example\\@127.0.0.1/",  # one reader sees the host before, the other the one behind
    ],
)
def test_redirects_to_nowhere_are_errors(web: Web, http_client: Client, location: str) -> None:
    url = web.route("/start", Answer(status=302, headers={"Location": location}))
    with pytest.raises(SourceError, match="redirects to"):
        http_client.request("GET", url)
    assert len(web.requests) == 1


@pytest.mark.parametrize(
    "url", ["http://a..b/", f"http://{'a' * 70}.b/", "http://.a/", "http://a:99999/", "http://[::1"]
)
def test_what_is_no_address(http_client: Client, waits: list[float], url: str) -> None:
    with pytest.raises(SourceError):
        http_client.request("GET", url)
    assert waits == []


def test_a_circle_of_redirects_is_an_error(web: Web, http_client: Client) -> None:
    url = web.route("/start", Answer(status=302, headers={"Location": "/start"}))
    with pytest.raises(SourceError, match="too many redirects"):
        http_client.request("GET", url)


def test_tls_is_never_left() -> None:
    with pytest.raises(SourceError, match="redirects to"):
        http._redirected("https://host/a", "http://host/b")


def test_a_redirect_can_be_wanted_as_an_answer(web: Web, http_client: Client) -> None:
    url = web.route("/start", Answer(status=302, headers={"Location": "/target"}))
    with http_client.request("GET", url, follow=False) as response:
        assert response.status_code == 302


@pytest.mark.parametrize("cut", [0, 3])
def test_a_truncated_body_is_an_error(web: Web, http_client: Client, cut: int) -> None:
    url = web.route("/file?signature=x", b"content")
    web.route("/file", Answer(body=b"content", cut=cut))
    with pytest.raises(Unreachable) as caught:
        body(http_client, url)
    assert "signature" not in str(caught.value)


def test_a_body_beyond_the_limit_is_an_error(web: Web, http_client: Client) -> None:
    url = web.route("/file", Answer(body=b"x" * 101, length=False))
    with pytest.raises(SourceError, match="more than 100 bytes"):
        list(chunks(http_client.request("GET", url), limit=100))


def test_a_body_is_opened_anew_for_every_try(web: Web, http_client: Client) -> None:
    url = web.route("/upload", Answer(status=503), Answer(status=201))
    opened: list[Iterator[bytes]] = []

    def factory() -> Body:
        opened.append(iter([b"one ", b"two"]))
        return Body(opened[-1], 7)

    with http_client.request("PUT", url, body=factory) as response:
        assert response.status_code == 201
    assert [r.body for r in web.requests] == [b"one two", b"one two"]
    assert [r.headers["content-length"] for r in web.requests] == ["7", "7"]
    assert len(opened) == 2


@given(st.lists(st.integers(0, 3 * BLOCK), max_size=4))
def test_a_body_is_sent_in_blocks(sizes: list[int]) -> None:
    pieces = [bytes([number]) * size for number, size in enumerate(sizes)]
    body = Body(iter(pieces), sum(sizes))
    blocks = list(body)
    assert all(0 < len(block) <= BLOCK for block in blocks)
    assert b"".join(blocks) == b"".join(pieces)
    assert len(body) == sum(sizes)


def test_netrc_and_cookies_stay_out(
    web: Web, http_client: Client, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path_factory.mktemp("home") / "netrc"
    netrc.write_text("machine 127.0.0.1 login user password hidden\n")
    monkeypatch.setenv("NETRC", str(netrc))
    url = web.route("/file", Answer(headers={"Set-Cookie": "session=1"}))
    for _ in range(2):
        http_client.request("GET", url).close()
    assert not any({"authorization", "cookie"} & r.headers.keys() for r in web.requests)


def test_files_are_asked_for_as_they_are(web: Web, http_client: Client) -> None:
    http_client.request("GET", web.route("/file", b"x")).close()
    assert web.requests[0].headers["accept-encoding"] == "identity"


def test_a_connection_that_dies_is_tried_again(web: Web, http_client: Client) -> None:
    def once(asked: Asked) -> Answer:
        if len(web.requests) == 1:
            raise ConnectionAbortedError
        return Answer(body=b"content")

    web.handle("/", once)
    assert body(http_client, web.url + "/file") == b"content"


def test_a_server_that_says_nothing_is_unreachable(waits: list[float]) -> None:
    client = Client(Policy(retries=0, read_timeout=0.05), sleep=waits.append)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(Unreachable, match="no answer in time"):
        client.request("GET", f"http://127.0.0.1:{silent.getsockname()[1]}/")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:secret@host/path?token=secret#secret", "https://host/path?…"),
        ("https://user@host:8080/a/b", "https://host:8080/a/b"),
        ("http://[::1]:5000/v2/", "http://[::1]:5000/v2/"),
        ("http://host:port/secret", "(an address that cannot be parsed)"),
    ],
)
def test_redact(url: str, shown: str) -> None:
    assert redact(url) == shown


@given(st.text(alphabet="abc:/?#[]@%.é1 ", max_size=30))
def test_redact_never_fails(text: str) -> None:
    assert "secret" not in redact(f"https://user:secret@host/{text}?secret={text}#secret")
    redact(text)


@given(st.text(max_size=40) | st.from_regex(r"[0-9²]{1,400}") | st.datetimes().map(str))
def test_retry_after_never_fails(value: str) -> None:
    assert retry_after(value) >= 0


def test_retry_after_takes_a_date() -> None:
    assert retry_after("Thu, 01 Jan 1970 00:02:00 GMT", now=lambda: 60.0) == 60.0
    assert retry_after("Thu, 01 Jan 1970 00:00:00 GMT", now=lambda: 60.0) == 0.0
    assert retry_after("²", now=lambda: 60.0) == 0.0
    assert retry_after(None) == 0.0


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("localhost", True), ("127.0.0.9", True), ("::1", True), ("10.0.0.1", False), ("localhost.evil.org", False)],
)
def test_is_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
