"""Listings of git trees: what git's own checks would stop earlier, stopped here too."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerbuild.errors import SourceError
from layerbuild.sources.gittree import LFS_POINTER, Tree, TreeEntry, document, parse, refuse_submodules

BLOB = "a" * 40


def line(path: bytes, mode: str = "100644", kind: str = "blob", size: str = "1", blob: str = BLOB) -> bytes:
    return f"{mode} {kind} {blob} {size:>7}\t".encode() + path + b"\0"


def listing(links: dict[str, str]) -> list[str]:
    """Paths of a tree that holds `links` and a file `f`."""
    entries = [TreeEntry(path="f", mode="100644", blob=BLOB, size=1)]
    texts = {}
    for number, (path, target) in enumerate(links.items()):
        blob = f"{number:040x}"
        entries.append(TreeEntry(path=path, mode="120000", blob=blob, size=len(target)))
        texts[blob] = target.encode()
    return [
        item["path"] for item in document(entries, lambda wanted: {e.blob: texts[e.blob] for e in wanted}, what="it")
    ]


def test_entries_are_sorted_by_bytes() -> None:
    paths = [b"b", b"a/x", b"a-x", "é".encode(), b"Z"]
    entries = parse(b"".join(map(line, paths)), what="it").entries
    assert [e.path.encode() for e in entries] == sorted(paths)
    assert parse(b"", what="it") == Tree(entries=(), submodules={})


@pytest.mark.parametrize(
    "path",
    [
        *(b"../x", b"a/../../x", b"/etc/passwd", b"a//b", b"./a", b".git/config", b"a/.GIT", b"a/.Git/hooks/x"),
        *(b"a\nb", b"a\\b", b"", b"\xff", b"x" * 300),
    ],
)
def test_unsafe_paths_are_refused(path: bytes) -> None:
    with pytest.raises(SourceError):
        parse(line(b"good") + line(path), what="it")


@pytest.mark.parametrize("paths", [[b"a", b"a"], [b"a", b"a/b"], [b"a/b/c", b"x", b"a"]])
def test_two_entries_of_one_name_are_refused(paths: list[bytes]) -> None:
    with pytest.raises(SourceError, match="two entries of one name"):
        parse(b"".join(map(line, paths)), what="it")


@pytest.mark.parametrize(
    "bad",
    [
        line(b"x", mode="100000"),
        line(b"x", kind="tree"),
        line(b"x", size="-"),
        line(b"x", blob="short"),
        b"\tx\0",
        b"no tab\0",
    ],
)
def test_what_is_no_file_is_refused(bad: bytes) -> None:
    with pytest.raises(SourceError):
        parse(bad, what="it")


SUBMODULES = [
    line(path, mode="160000", kind="commit", size="-", blob="c" * 40)
    for path in (b"repositories/k-diffusion", b"third_party/a", b"third_party/b")
]


def test_submodules_are_named() -> None:
    tree = parse(b"".join([line(b"a"), *SUBMODULES]), what="it")
    assert [entry.path for entry in tree.entries] == ["a"]
    with pytest.raises(SourceError, match=r"submodules at repositories/k-diffusion .at commit c{40}., third_party/a"):
        refuse_submodules(tree, [], what="it")
    with pytest.raises(SourceError, match="a submodule at third_party/b") as caught:
        refuse_submodules(tree, ["repositories/k-diffusion", "*/a"], what="it")
    assert "submodules: true" in (caught.value.hint or "")
    refuse_submodules(tree, ["*"], what="it")


def test_a_submodule_keeps_its_path_for_itself() -> None:
    with pytest.raises(SourceError, match="two entries of one name"):
        parse(SUBMODULES[1] + line(b"third_party/a/x"), what="it")
    with pytest.raises(SourceError, match="two entries of one name"):
        parse(SUBMODULES[1] + line(b"third_party", mode="120000"), what="it")


def test_a_submodule_that_is_no_commit_is_refused() -> None:
    with pytest.raises(SourceError, match="no file"):
        parse(line(b"x", mode="160000", kind="blob"), what="it")


def test_pointers_may_stay_where_they_are_named() -> None:
    entries = [TreeEntry(path=f"a/{name}", mode="100644", blob=BLOB, size=100) for name in ("x.png", "y.bin")]
    texts = {BLOB: LFS_POINTER + b"..."}
    with pytest.raises(SourceError, match=r"keeps a/y\.bin in Git LFS") as caught:
        document(entries, lambda wanted: texts, what="it", lfs_pointers=["*.png"])
    assert "lfs_pointers" in (caught.value.hint or "")
    listed = document(entries, lambda wanted: texts, what="it", lfs_pointers=["*.png", "a/y.bin"])
    assert [item["path"] for item in listed] == ["a/x.png", "a/y.bin"]


@pytest.mark.parametrize(
    "links",
    [
        {"l": "f"},
        {"a/l": "../f"},
        {"a/b/l": "../.././f"},
        {"l": "missing/x"},
        {"l": "l"},
        {"l": "m", "m": "l"},
        {"d": "a", "a/l": "../d/../f"},
        {"p/q/s": "../..", "t": "p/q/s/f"},
    ],
)
def test_links_that_stay_inside(links: dict[str, str]) -> None:
    assert set(links) < set(listing(links))


@pytest.mark.parametrize(
    "links",
    [
        {"l": "/etc/passwd"},
        {"l": ".."},
        {"a/l": "../../x"},
        {"a/l": "b/../../../x"},
        {"s": "a/../..", "t": "f"},
        # Safe by its letters, but p/q/s leads to the top, and .. from there leads out.
        {"p/q/s": "../..", "t": "p/q/s/.."},
        {"one": "two/..", "two": "d/e", "d/e": "..//."},
        {"one": "a/b", "a/b": "/x"},
    ],
)
def test_links_that_lead_out(links: dict[str, str]) -> None:
    with pytest.raises(SourceError, match="leads out of it"):
        listing(links)


def test_an_endless_target_is_not_even_read() -> None:
    with pytest.raises(SourceError, match="endless target"):
        document([TreeEntry(path="l", mode="120000", blob=BLOB, size=5000)], lambda wanted: {}, what="it")


@given(st.dictionaries(st.sampled_from(["a", "b/c", "d/e/f", "g"]), st.text("./abcdefg", min_size=1, max_size=12)))
def test_links_are_judged_as_the_kernel_would(tmp_path_factory: pytest.TempPathFactory, links: dict[str, str]) -> None:
    top = tmp_path_factory.mktemp("outer") / "tree"
    for path in (*links, "b/x", "d/e/x"):
        (top / path).parent.mkdir(parents=True, exist_ok=True)
    for path, target in links.items():
        (top / path).symlink_to(target)
    try:
        listing(links)
    except SourceError:
        return
    for path in links:
        try:
            real = (top / path).resolve(strict=True)
        except (OSError, RuntimeError):
            continue
        assert real.is_relative_to(top)
