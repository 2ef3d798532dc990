"""The table of schemes, and the rules that sources share."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.hub import git_blob
from layerbuild.errors import ContentMismatch, NotFound, SourceError
from layerbuild.model import Content
from layerbuild.sources import SCHEMES, source_for
from layerbuild.sources.base import Context, Request, declared, select, shown, verified, words

NAMES = ["README.md", "config.json", "onnx/model.onnx", "onnx/model.onnx_data", "odd[1].txt", "weights.bin"]


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_every_scheme_has_its_class(scheme: str, context: Context) -> None:
    source = source_for(f"{scheme}:whatever", context)
    assert callable(source.resolve)
    assert callable(source.open)


@pytest.mark.parametrize(
    ("uri", "said"), [("gopher://host/x", "gopher:"), ("./models/x", "no scheme"), ("", "no scheme")]
)
def test_unknown_schemes_name_the_known_ones(uri: str, said: str, context: Context) -> None:
    with pytest.raises(SourceError, match=said) as caught:
        source_for(uri, context)
    assert all(f"{scheme}:" in str(caught.value) for scheme in SCHEMES)


@pytest.mark.parametrize(
    ("patterns", "chosen"),
    [
        (None, NAMES),
        ((), []),
        (("config.json",), ["config.json"]),
        (("odd[1].txt",), ["odd[1].txt"]),
        (("*.json", "*.md"), ["README.md", "config.json"]),
        (("*.onnx*",), ["onnx/model.onnx", "onnx/model.onnx_data"]),
        (("!onnx/*", "!*.bin"), ["README.md", "config.json", "odd[1].txt"]),
        (("onnx/*", "!*_data"), ["onnx/model.onnx"]),
        (("!*_data", "onnx/*", "!nothing"), ["onnx/model.onnx"]),
    ],
)
def test_select(patterns: tuple[str, ...] | None, chosen: list[str]) -> None:
    assert select(NAMES, patterns, what="it") == sorted(chosen)


def test_what_is_missing_is_named_with_what_is_similar() -> None:
    with pytest.raises(NotFound, match=r"confg\.json, \*\.ckpt") as caught:
        select(NAMES, ("confg.json", "*.ckpt", "weights.bin"), what="it")
    assert "config.json" in (caught.value.hint or "")


@given(st.lists(st.binary(max_size=20)))
def test_verified_passes_what_is_right(pieces: list[bytes]) -> None:
    data = b"".join(pieces)
    sha256 = hashlib.sha256(data).hexdigest()
    for content in (
        Content(size=len(data), sha256=sha256),
        Content(size=None, sha256=sha256),
        Content(size=len(data), git_blob=git_blob(data)),
    ):
        assert b"".join(verified(pieces, content, what="it")) == data


@given(st.binary(min_size=1, max_size=50), st.integers(0, 49), st.sampled_from(["flip", "cut", "add"]), st.booleans())
def test_verified_refuses_what_is_not(data: bytes, at: int, damage: str, as_git: bool) -> None:
    at %= len(data)
    flipped = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    bad = {"flip": flipped, "cut": data[:at], "add": data + b"x"}[damage]
    sha256 = None if as_git else hashlib.sha256(data).hexdigest()
    content = Content(size=len(data), sha256=sha256, git_blob=git_blob(data))
    with pytest.raises(ContentMismatch, match="not what was pinned"):
        list(verified([bad], content, what="it"))


def test_a_git_blob_without_size_cannot_be_verified() -> None:
    with pytest.raises(SourceError, match="cannot be verified"):
        list(verified([b""], Content(size=None, git_blob=git_blob(b"")), what="it"))


@pytest.mark.parametrize("sha256", ["", "abc", "g" * 64, "a" * 63, "sha256:" + "a" * 64])
def test_a_declared_sha256_must_be_one(sha256: str) -> None:
    with pytest.raises(SourceError, match="sha256 is not one"):
        declared(Request(uri="https://host/x", sha256=sha256))


@pytest.mark.parametrize("size", [-1, 2**60])
def test_a_declared_size_must_be_one(size: int) -> None:
    with pytest.raises(SourceError, match="size is not one"):
        declared(Request(uri="https://host/x", size=size))


def test_a_declared_sha256_is_taken_in_upper_case() -> None:
    assert declared(Request(uri="https://host/x", sha256="A" * 64)) == ("a" * 64, None)


def test_words_are_fit_for_a_terminal() -> None:
    assert words("\x1b[31mred\x07\n  text\r") == "[31mred text"
    assert len(words("x" * 10_000)) == 300


@pytest.mark.parametrize(
    "uri", ["https://u:secret@h/p?secret", "git+https://u:secret@h/r@main", "git+http://secret@h/r"]
)
def test_shown_hides_secrets(uri: str) -> None:
    assert "secret" not in shown(uri)
