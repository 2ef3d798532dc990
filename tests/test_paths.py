"""Which paths may be put into a layer."""

from __future__ import annotations

import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerbuild.errors import SourceError
from layerbuild.paths import parents, safe_relative, unsafe_reason


@pytest.mark.parametrize(
    "path",
    [
        "a",
        "a/b",
        ".git/x",
        "...",
        "a..b",
        "..a/b..",
        "ä/✓",
        "a b",
        "x" * 255,
        "/".join(["y" * 200] * 20),
        "-rf",
        "~",
        "a:b",
    ],
)
def test_safe(path: str) -> None:
    assert unsafe_reason(path) is None
    assert safe_relative(path, origin="here") == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/a",
        "..",
        "../a",
        "a/..",
        "a/../b",
        ".",
        "./a",
        "a/.",
        "a/./b",
        "a//b",
        "a/",
        "a\0b",
        "a\nb",
        "a\x7f",
        "a\x1b[2J",
        "..\\a",
        "C:\\x",
        "a\udcff",
        "x" * 256,
        "é" * 128,
        "/".join(["y" * 200] * 21),
    ],
)
def test_unsafe(path: str) -> None:
    assert unsafe_reason(path)
    with pytest.raises(SourceError) as caught:
        safe_relative(path, origin="hf://acme/x")
    assert "hf://acme/x" in caught.value.message
    assert "\n" not in caught.value.message
    assert "\x1b" not in caught.value.message
    assert caught.value.cause
    assert caught.value.hint


ODD = st.lists(st.sampled_from(["a", "b.c", "..", ".", "", "\\", "\n", "ü", "...", " "]), max_size=6).map("/".join)


@given(ODD | st.text(max_size=30))
def test_a_safe_path_stays_below_any_directory(path: str) -> None:
    if unsafe_reason(path) is None:
        assert posixpath.normpath(path) == path
        joined = posixpath.normpath(posixpath.join("/root/of/layer", path))
        assert joined.startswith("/root/of/layer/")
        assert all(ord(c) > 31 for c in path)


@given(st.lists(st.text("ab.-", min_size=1, max_size=3), min_size=1, max_size=6))
def test_parents_are_the_proper_prefixes(parts: list[str]) -> None:
    path = "/".join(parts)
    above = parents(path)
    assert above == ["/".join(parts[:n]) for n in range(1, len(parts))]
    assert all(path.startswith(f"{parent}/") for parent in above)
