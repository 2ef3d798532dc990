"""Headers of declarations: what may stand there, and what is sent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerbuild import headers
from layerbuild.errors import SourceError

SECRET = "a-value-that-must-never-be-seen"


def test_references_are_looked_up() -> None:
    declared = (("Authorization", "Bearer ${MY_TOKEN}"), ("X-Who", "${A}-${B}"), ("Accept", "application/json"))
    environ = {"MY_TOKEN": SECRET, "A": "a", "B": "b"}
    sent = headers.resolved(declared, environ, what="it")
    assert sent == {"Authorization": f"Bearer {SECRET}", "X-Who": "a-b", "Accept": "application/json"}
    assert headers.refer(declared)
    assert not headers.refer(declared[2:])


def test_a_value_is_looked_up_once() -> None:
    assert headers.resolved([("X-A", "${A}")], {"A": "${B}", "B": "b"}, what="it") == {"X-A": "${B}"}


@pytest.mark.parametrize("environ", [{}, {"MY_TOKEN": ""}])
def test_a_missing_variable_is_named(environ: dict[str, str]) -> None:
    with pytest.raises(SourceError, match="the variable MY_TOKEN is not set") as caught:
        headers.resolved([("Authorization", "Bearer ${MY_TOKEN}")], environ, what="https://host/x")
    assert "set MY_TOKEN" in str(caught.value.hint)


@pytest.mark.parametrize("value", [f"{SECRET}\r\nX: y", f"{SECRET}\0", f"\N{SNOWMAN}{SECRET}", SECRET * 1000])
def test_what_cannot_be_sent_is_not_shown(value: str) -> None:
    with pytest.raises(SourceError, match="the header X-A cannot be sent") as caught:
        headers.resolved([("X-A", "${A}")], {"A": value}, what="it")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("Authorization", f"Bearer {SECRET}", "holds a secret"),
        ("Cookie", f"session={SECRET}", "holds a secret"),
        ("X-Api-Key", SECRET, "holds a secret"),
        ("PRIVATE-TOKEN", SECRET, "holds a secret"),
        ("X-A", "${", "begins no reference"),
        ("X-A", "${1A}", "begins no reference"),
        ("X-A", "${A", "begins no reference"),
        ("X-A", "a\r\nb", "not printable"),
        ("X-A", " a", "not printable"),
        ("X-A", "", "not printable"),
        ("Range", "bytes=0-", "layerbuild itself"),
        ("host", "example.org", "layerbuild itself"),
        ("Proxy-Authorization", "${A}", "layerbuild itself"),
        ("If-Match", "x", "layerbuild itself"),
        ("Accept-Encoding", "gzip", "layerbuild itself"),
        ("a b", "x", "cannot be the name"),
        ("a:b", "x", "cannot be the name"),
        ("", "x", "cannot be the name"),
        ("X\n", "x", "cannot be the name"),
    ],
)
def test_what_a_declaration_may_not_hold(name: str, value: str, reason: str) -> None:
    said = headers.fault(name, value)
    assert said is not None and reason in said
    assert SECRET not in said
    with pytest.raises(SourceError):
        headers.resolved([(name, value)], {"A": "a"}, what="a lock that somebody edited")


@given(st.text(), st.text(), st.text(min_size=1))
def test_nothing_unsendable_gets_through(name: str, value: str, variable: str) -> None:
    try:
        sent = headers.resolved([(name, value)], {"A": variable}, what="it")
    except SourceError:
        return
    for key, text in sent.items():
        assert (key + text).isascii() and (key + text).isprintable()
