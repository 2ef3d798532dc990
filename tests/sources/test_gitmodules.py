"""Where submodules come from, by a `.gitmodules` that anybody may have written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerbuild.errors import LayerbuildError, SourceError
from layerbuild.sources.gitmodules import Submodule, addresses, chosen, source_of

HOST = "git+https://example.com"


@pytest.mark.parametrize(
    ("url", "parent", "source"),
    [
        ("https://github.com/a/b.git", f"{HOST}/x/y", "git+https://github.com/a/b.git"),
        ("git://example.org/a/b", f"{HOST}/x/y", "git+https://example.org/a/b"),
        ("git@example.org:a/b.git", f"{HOST}/x/y", "git+https://example.org/a/b.git"),
        ("ssh://git@example.org/a/b", f"{HOST}/x/y", "git+https://example.org/a/b"),
        ("../b", f"{HOST}/x/y", f"{HOST}/x/b"),
        ("../../b/c.git", f"{HOST}/x/y/", f"{HOST}/b/c.git"),
        ("./b", f"{HOST}/x/y", f"{HOST}/x/y/b"),
        ("../b.git", "git+file:clones/y.git", "git+file:clones/b.git"),
        ("../b.git", "git+file:///srv/y.git", "git+file:///srv/b.git"),
        ("../b.git", "git+file:/srv/y.git", "git+file:/srv/b.git"),
    ],
)
def test_addresses_become_sources(url: str, parent: str, source: str) -> None:
    assert source_of(url, parent, what="it") == source


@pytest.mark.parametrize(
    "url",
    [
        *("file:///etc", "/etc/x", "ext::sh -c id", "-u./x", "--upload-pack=x", "host:path", "", "x", "ftp://a/b"),
        *("../../../b", "../..", "./", ".", "../a/../../..", "../a//b", "ssh://root@host/x", "ext::git://x"),
    ],
)
@pytest.mark.parametrize("parent", [f"{HOST}/x/y", "git+file:y.git"])
def test_addresses_that_nobody_asks(url: str, parent: str) -> None:
    with pytest.raises(SourceError) as caught:
        source_of(url, parent, what="it")
    assert caught.value.hint


@given(st.text(max_size=40), st.sampled_from([f"{HOST}/x/y", "git+file:/a/y.git", "git+file:y.git"]))
def test_no_address_reads_a_file_of_this_machine_or_ends_in_a_traceback(url: str, parent: str) -> None:
    try:
        source = source_of(url, parent, what="it")
    except LayerbuildError:
        return
    assert source.startswith("git+http") or (parent.startswith("git+file:") and url.startswith(("./", "../")))


def test_the_last_value_counts_and_names_may_have_dots() -> None:
    listed = b"submodule.a.b.path\nlib\0submodule.a.b.url\nhttps://old\0submodule.a.b.url\nhttps://new\0"
    assert addresses(listed + b"submodule.c.path\nother\0", what="it") == {"lib": "https://new"}
    assert addresses(b"", what="it") == {}
    assert addresses(b"\xff\0\n\0nonsense", what="it") == {}


def test_two_addresses_for_one_path() -> None:
    listed = b"submodule.a.path\nlib\0submodule.a.url\nx\0submodule.b.path\nlib\0submodule.b.url\ny\0"
    with pytest.raises(SourceError, match="two addresses"):
        addresses(listed, what="it")


def test_a_submodule_without_an_address() -> None:
    commits = {"a": "1" * 40, "b": "2" * 40}
    found = chosen(commits, {"a": "../a", "b": "../b"}, f"{HOST}/x/y", what="it")
    assert list(found) == [
        Submodule(path="a", source=f"{HOST}/x/a@{'1' * 40}"),
        Submodule(path="b", source=f"{HOST}/x/b@{'2' * 40}"),
    ]
    with pytest.raises(SourceError, match="where its submodule b comes from"):
        list(chosen(commits, {"a": "../a"}, f"{HOST}/x/y", what="it"))
