from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerbuild.errors import UsageError
from layerbuild.registry.reference import Reference, api_host, is_loopback, parse_reference

HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "host", "repository", "tag", "digest"),
    [
        ("debian", "docker.io", "library/debian", "latest", None),
        ("debian:12", "docker.io", "library/debian", "12", None),
        ("acme/a", "docker.io", "acme/a", "latest", None),
        ("docker.io/debian", "docker.io", "library/debian", "latest", None),
        ("index.docker.io/acme/a:1", "docker.io", "acme/a", "1", None),
        ("registry-1.docker.io/acme/a:1", "docker.io", "acme/a", "1", None),
        ("localhost/a", "localhost", "a", "latest", None),
        ("localhost/a/b:x", "localhost", "a/b", "x", None),
        ("localhost:5000/a", "localhost:5000", "a", "latest", None),
        ("[::1]:5000/a/b", "[::1]:5000", "a/b", "latest", None),
        ("GHCR.io/acme/a", "ghcr.io", "acme/a", "latest", None),
        ("reg:5000/a/b/c:1.0-x", "reg:5000", "a/b/c", "1.0-x", None),
        (f"ghcr.io/acme/a@sha256:{HEX}", "ghcr.io", "acme/a", None, f"sha256:{HEX}"),
        (f"ghcr.io/acme/a:latest@sha256:{HEX}", "ghcr.io", "acme/a", "latest", f"sha256:{HEX}"),
    ],
)
def test_names_are_read_as_docker_reads_them(
    text: str, host: str, repository: str, tag: str | None, digest: str | None
) -> None:
    assert parse_reference(text) == Reference(host=host, repository=repository, tag=tag, digest=digest)


def test_docker_hub_is_spoken_to_at_another_host() -> None:
    assert api_host("docker.io") == "registry-1.docker.io"
    assert api_host("ghcr.io") == "ghcr.io"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "a/",
        "/a",
        "a//b",
        "A/b",
        "acme/A",
        "a b",
        "a:",
        "a:b:c",
        "a:-x",
        "a:" + "x" * 129,
        "a/../b",
        "ghcr.io/a/..",
        "ghcr.io/",
        "ghcr.io",
        "a@sha256:123",
        "a@md5:" + HEX,
        f"a@sha256:{HEX.upper()}",
        "https://ghcr.io/acme/a",
        "user:password@ghcr.io/acme/a",
        "ghcr.io:port/a",
        "ghcr.io:123456/a",
        "-x.io/a",
        "a\n",
        "a/b\nc",
        "é/a",
        "x/" + "a" * 300,
        "ghcr.io/acme/a?x=1",
        "ghcr.io/acme/a#x",
        "ghcr.io\\evil/acme",
    ],
)
def test_nonsense_is_refused_with_a_way_out(text: str) -> None:
    if text == "ghcr.io":  # by Docker's rules, a repository of Docker Hub
        assert parse_reference(text).repository == "library/ghcr.io"
        return
    with pytest.raises(UsageError) as caught:
        parse_reference(text)
    assert caught.value.hint


@given(st.text(max_size=60))
def test_whatever_is_accepted_says_the_same_when_written_and_read_again(text: str) -> None:
    try:
        reference = parse_reference(text)
    except UsageError:
        return
    assert parse_reference(str(reference)) == reference


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("localhost:5000", True),
        ("127.0.0.1", True),
        ("127.9.8.7:80", True),
        ("[::1]", True),
        ("[::1]:5000", True),
        ("127.0.0.1.example.com", False),
        ("localhost.example.com:5000", False),
        ("10.0.0.1:5000", False),
        ("docker.io", False),
    ],
)
def test_only_this_machine_is_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
