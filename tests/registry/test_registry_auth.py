from __future__ import annotations

import json
from pathlib import Path
from threading import Barrier, Thread

import pytest

from fixtures.registry import IDENTITY_TOKEN, PASSWORD, Front, MemoryBlob, TokenFront, docker_config
from layerbuild import http
from layerbuild.errors import DestinationError, LoginRequired
from layerbuild.registry.auth import Authenticator, Challenge, merge_scopes, parse_challenge, scopes_for
from layerbuild.registry.client import RegistryClient
from layerbuild.registry.credentials import Lookup

QUICK = http.Policy(retries=1, backoff=0.001)


def client(front: Front, environ: dict[str, str] | None = None) -> RegistryClient:
    return RegistryClient(front.host, client=http.Client(QUICK), environ=environ or {})


def ignore(amount: int) -> None:
    pass


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("HEAD", "/v2/a/b/blobs/sha256:1", ("repository:a/b:pull",)),
        ("GET", "/v2/a/manifests/x", ("repository:a:pull",)),
        ("PUT", "/v2/a/manifests/x", ("repository:a:pull,push",)),
        ("POST", "/v2/a/blobs/uploads/", ("repository:a:pull,push",)),
        ("POST", "/v2/a/blobs/uploads/?mount=x&from=b/c", ("repository:a:pull,push", "repository:b/c:pull")),
        ("GET", "/v2/blobs/blobs/blobs/x", ("repository:blobs/blobs:pull",)),
        ("GET", "/v2/", ()),
    ],
)
def test_scopes_follow_from_the_request(method: str, path: str, expected: tuple[str, ...]) -> None:
    assert scopes_for(method, f"https://example.com{path}") == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("", None),
        ("Negotiate", None),
        ("Basic", Challenge(scheme="basic")),
        ('basic realm="x y"', Challenge(scheme="basic", realm="x y")),
        (
            'Bearer realm="https://a/t?x=1,2",service="s",scope="repository:a:pull,push"',
            Challenge(scheme="bearer", realm="https://a/t?x=1,2", service="s", scope="repository:a:pull,push"),
        ),
        ("BEARER realm=https://a/t, service=s", Challenge(scheme="bearer", realm="https://a/t", service="s")),
        ('Basic realm="x", Bearer realm="https://a"', Challenge(scheme="bearer", realm="https://a")),
    ],
)
def test_challenges(value: str | None, expected: Challenge | None) -> None:
    assert parse_challenge(value) == expected


def test_scopes_of_one_repository_are_asked_for_as_one() -> None:
    asked = ["repository:a:pull", "repository:b:pull", "repository:a:pull,push"]
    assert merge_scopes(asked) == ["repository:a:pull,push", "repository:b:pull"]


def test_anonymous_pulls_need_no_login(token_registry: TokenFront, tmp_path: Path) -> None:
    name = f"{token_registry.prefix}/public/a"
    blob = MemoryBlob(b"for everyone")
    client(token_registry, docker_config(tmp_path, token_registry.host)).upload_blob(name, blob, advance=ignore)
    assert b"".join(client(token_registry).open_blob(name, blob.digest)) == blob.data


def test_anonymous_pushes_are_refused_with_the_way_to_log_in(token_registry: TokenFront) -> None:
    with pytest.raises(LoginRequired) as caught:
        client(token_registry).upload_blob(f"{token_registry.prefix}/public/a", MemoryBlob(b"x"), advance=ignore)
    assert f"layerbuild login {token_registry.host}" in str(caught.value)
    assert f"layerbuild login {token_registry.host}" in str(caught.value)
    assert "no login for this registry was found" in str(caught.value)


def test_each_repository_and_action_gets_a_token_once(token_registry: TokenFront, tmp_path: Path) -> None:
    registry = client(token_registry, docker_config(tmp_path, token_registry.host))
    one, two = f"{token_registry.prefix}/one", f"{token_registry.prefix}/two"
    for name in (one, two):
        for data in (b"1", b"2"):
            assert registry.head_blob(name, MemoryBlob(data).digest) is None
            registry.upload_blob(name, MemoryBlob(data), advance=ignore)
            assert registry.head_blob(name, MemoryBlob(data).digest) == 1
    assert token_registry.issued == [
        (f"repository:{name}:{actions}",) for name in (one, two) for actions in ("pull", "pull,push")
    ]


def test_a_mount_asks_to_pull_from_where_it_mounts(token_registry: TokenFront, tmp_path: Path) -> None:
    registry = client(token_registry, docker_config(tmp_path, token_registry.host))
    source, target = f"{token_registry.prefix}/source", f"{token_registry.prefix}/target"
    blob = MemoryBlob(b"shared")
    registry.upload_blob(source, blob, advance=ignore)
    assert registry.mount_blob(target, blob.digest, source)
    assert token_registry.issued[-1] == (f"repository:{target}:pull,push", f"repository:{source}:pull")
    count = len(token_registry.issued)
    registry.upload_blob(target, MemoryBlob(b"more"), advance=ignore)
    assert len(token_registry.issued) == count, "the mount's token is good for the upload, too"


def test_a_mount_that_the_token_server_forbids_is_a_mount_that_was_refused(
    token_registry: TokenFront, tmp_path: Path
) -> None:
    registry = client(token_registry, docker_config(tmp_path, token_registry.host))
    token_registry.rule("GET", "^/token$", 403)
    name = f"{token_registry.prefix}/target"
    assert not registry.mount_blob(name, MemoryBlob(b"x").digest, "secret/repository")
    registry.upload_blob(name, MemoryBlob(b"x"), advance=ignore)
    assert registry.head_blob(name, MemoryBlob(b"x").digest) == 1


def test_an_identity_token_is_exchanged(token_registry: TokenFront, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps({"auths": {token_registry.host: {"identitytoken": IDENTITY_TOKEN}}})
    )
    registry = client(token_registry, {"DOCKER_CONFIG": str(tmp_path)})
    registry.upload_blob(f"{token_registry.prefix}/a", MemoryBlob(b"x"), advance=ignore)
    (asked,) = token_registry.requests("POST", "^/token$")
    assert asked.query == "", "an identity token never stands in an address"


def test_a_token_that_was_revoked_is_renewed_and_the_body_opened_anew(
    token_registry: TokenFront, tmp_path: Path
) -> None:
    registry = client(token_registry, docker_config(tmp_path, token_registry.host))
    name = f"{token_registry.prefix}/a"
    registry.upload_blob(name, MemoryBlob(b"first"), advance=ignore)
    session = registry.mount_blob(name, MemoryBlob(b"x" * 3_000_000).digest, f"{token_registry.prefix}/none").session
    token_registry.forget()
    blob = MemoryBlob(b"x" * 3_000_000)
    told: list[int] = []
    registry.upload_blob(name, blob, advance=told.append, session=session)
    assert blob.opened == 2
    assert sum(told) == blob.size
    assert [r.status for r in token_registry.requests("PUT")][-2:] == [401, 201]


def test_a_token_that_ran_out_is_renewed_before_a_body_is_sent(token_registry: TokenFront, tmp_path: Path) -> None:
    now = [0.0]
    environ = docker_config(tmp_path, token_registry.host)
    registry = client(token_registry, environ)
    registry._logins._clock = lambda: now[0]
    name = f"{token_registry.prefix}/a"
    registry.upload_blob(name, MemoryBlob(b"first"), advance=ignore)
    token_registry.forget()
    now[0] += 1000
    registry.upload_blob(name, MemoryBlob(b"second"), advance=ignore)
    assert [r.status for r in token_registry.requests("PUT")] == [201, 201]


def test_refusals_end(token_registry: TokenFront, tmp_path: Path) -> None:
    registry = client(token_registry, docker_config(tmp_path, token_registry.host))
    token_registry.rule("HEAD", "", 403, times=99)
    with pytest.raises(LoginRequired):
        registry.head_blob(f"{token_registry.prefix}/a", MemoryBlob(b"x").digest)
    assert len(token_registry.requests("HEAD")) <= 3


def test_threads_share_one_dance(token_registry: TokenFront, tmp_path: Path) -> None:
    registry = client(token_registry, docker_config(tmp_path, token_registry.host))
    barrier = Barrier(8)
    found: list[int | None] = []

    def work() -> None:
        barrier.wait()
        found.append(registry.head_blob(f"{token_registry.prefix}/a", MemoryBlob(b"x").digest))

    threads = [Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [None] * 8
    assert len(token_registry.issued) == 1


def test_a_password_by_basic(login_registry: Front, tmp_path: Path) -> None:
    registry = client(login_registry, docker_config(tmp_path, login_registry.host))
    registry.upload_blob(f"{login_registry.prefix}/a", MemoryBlob(b"x"), advance=ignore)
    assert registry.head_blob(f"{login_registry.prefix}/a", MemoryBlob(b"x").digest) == 1


def test_no_login_for_a_registry_that_wants_one(login_registry: Front) -> None:
    with pytest.raises(LoginRequired) as caught:
        client(login_registry).head_blob(f"{login_registry.prefix}/a", MemoryBlob(b"x").digest)
    assert "docker login" in str(caught.value)


@pytest.mark.parametrize("kind", ["login_registry", "token_registry"])
def test_a_wrong_password_is_told_and_not_shown(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    front: Front = request.getfixturevalue(kind)
    environ = docker_config(tmp_path, front.host, password="hunter2-hunter2")
    secret = json.loads((tmp_path / "config.json").read_text())["auths"][front.host]["auth"]
    registry = client(front, environ)
    with caplog.at_level("DEBUG"), pytest.raises(LoginRequired) as caught:
        registry.upload_blob(f"{front.prefix}/a", MemoryBlob(b"x"), advance=ignore)
    shown = f"{caught.value} {caught.value!r} {registry!r} {registry} {vars(registry)} {caplog.text}"
    assert "hunter2" not in shown
    assert secret not in shown, "the token server repeats it, and it is taken out"


def test_the_right_password_and_the_tokens_are_not_shown_either(
    token_registry: TokenFront, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    registry = client(token_registry, docker_config(tmp_path, token_registry.host))
    with caplog.at_level("DEBUG"):
        registry.upload_blob(f"{token_registry.prefix}/a", MemoryBlob(b"x"), advance=ignore)
    token = next(iter(token_registry.tokens))
    body = json.dumps({"errors": [{"code": "DENIED", "message": f"{PASSWORD} and {token} will not do"}]}).encode()
    token_registry.rule("GET", "/blobs/", 403, body=body, times=9)
    with pytest.raises(LoginRequired) as caught:
        list(registry.open_blob(f"{token_registry.prefix}/a", MemoryBlob(b"x").digest))
    shown = f"{caught.value} {registry!r} {caplog.text}"
    assert "will not do" in shown
    assert PASSWORD not in shown
    assert token not in shown


@pytest.mark.parametrize("realm", ["http://tokens.example.com/t", "file:///etc/passwd", "http://[", "", "//x"])
def test_credentials_go_to_no_token_server_without_tls(realm: str) -> None:
    logins = Authenticator(host="ghcr.io", secure=True, client=http.Client(QUICK), lookup=Lookup)
    with pytest.raises(DestinationError, match="no usable place to get a token"):
        logins.renew(f'Bearer realm="{realm}"', ("repository:a:pull",), refused=None)


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{", b'{"token": 7}', b'{"token": ""}', b'{"token": "a\\r\\nX: y"}', b"[" * 100_000],
    ids=lambda b: b[:20].decode(),
)
def test_answers_of_a_token_server_that_make_no_sense(token_registry: TokenFront, body: bytes) -> None:
    token_registry.rule("GET", "^/token$", 200, body=body)
    with pytest.raises(DestinationError, match="gave no token"):
        client(token_registry).head_blob(f"{token_registry.prefix}/public/a", MemoryBlob(b"x").digest)


def test_a_token_server_that_never_stops_is_cut_off(token_registry: TokenFront) -> None:
    token_registry.rule("GET", "^/token$", 200, body=b" " * 3_000_000)
    with pytest.raises(DestinationError, match="makes no sense"):
        client(token_registry).head_blob(f"{token_registry.prefix}/public/a", MemoryBlob(b"x").digest)


def test_a_token_server_in_trouble_is_not_a_wrong_password(token_registry: TokenFront) -> None:
    token_registry.rule("GET", "^/token$", 500, times=9)
    with pytest.raises(DestinationError) as caught:
        client(token_registry).head_blob(f"{token_registry.prefix}/public/a", MemoryBlob(b"x").digest)
    assert not isinstance(caught.value, LoginRequired)


def test_a_long_challenge_is_cut() -> None:
    assert parse_challenge("Bearer " + "a" * 300_000) == Challenge(scheme="bearer")
    assert parse_challenge('Bearer realm="https://a",' + "b" * 300_000) == Challenge(scheme="bearer", realm="https://a")


@pytest.mark.parametrize("seconds", ["1" + "0" * 400, "NaN", "-5", "3600.5", "Infinity", '"x"', "true"])
def test_lives_of_tokens_that_make_no_sense(token_registry: TokenFront, seconds: str) -> None:
    body = f'{{"token": "t", "expires_in": {seconds}}}'.encode()
    token_registry.rule("GET", "^/token$", 200, body=body, times=5)
    with pytest.raises(LoginRequired):
        client(token_registry).head_blob(f"{token_registry.prefix}/private/a", MemoryBlob(b"x").digest)
