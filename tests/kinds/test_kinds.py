"""What kinds promise beyond their golden entries."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import COMMIT, SHA, Known, links_of, reader
from layerbuild.errors import SourceError
from layerbuild.kinds import describe, documents, files, gittree, huggingface, is_weights, weights
from layerbuild.kinds.base import base_directories, with_parents
from layerbuild.model import LARGE, Content, Directory, Entry, Pin, PinnedFile, Target
from layerbuild.schema import FilesLayer, HuggingFaceLayer
from layerbuild.tarstream import TarStream

BIG = Content(size=LARGE, sha256=SHA["a"])
SMALL = Content(size=LARGE - 1, sha256=SHA["b"])
OTHER = Content(size=1, sha256=SHA["c"])
KNOWN = Known({c.id: c.size or 0 for c in (BIG, SMALL, OTHER)})


# --- parents ---------------------------------------------------------------------------------------

PARTS = st.sampled_from(["a", "a.b", "a-b", "a b", "a0", "b", "é", "opt", "~"])
PATHS = st.lists(PARTS, min_size=1, max_size=4).map("/".join)


@given(st.sets(PATHS, max_size=12))
def test_parents_come_before_what_they_hold(wanted: set[str]) -> None:
    # A path that holds another one is a directory itself.
    kept = [p for p in wanted if not any(q.startswith(f"{p}/") for q in wanted)]
    entries = with_parents([Entry(path=p, type="file", mode=0o644, data=b"") for p in kept], {})
    paths = [entry.path for entry in entries]
    assert [e.path for e in entries if e.type == "file"] == sorted(kept, key=str.encode)
    assert len(set(paths)) == len(paths)
    seen = {"", "opt"}
    for path in paths:
        assert path.rpartition("/")[0] in seen
        seen.add(path)
    with tarfile.open(fileobj=io.BytesIO(b"".join(TarStream(entries).read(reader({}))))) as tar:
        assert tar.getnames() == paths


def test_a_parent_stands_before_siblings_that_sort_between_it_and_its_files() -> None:
    made = [Entry(path=p, type="file", mode=0o644, data=b"") for p in ("a/b", "a.b", "a-b")]
    assert [e.path for e in with_parents(made, {})] == ["a", "a-b", "a.b", "a/b"]


@pytest.mark.parametrize("kind", ["file", "symlink"])
def test_what_is_no_directory_cannot_hold_anything(kind: Any) -> None:
    entries = [Entry(path="a", type=kind, mode=0o644, data=b""), Entry(path="a/b", type="file", mode=0o644, data=b"")]
    with pytest.raises(SourceError, match="/a/b needs it to be a directory"):
        with_parents(entries, {})


def test_the_bases_directories_are_repeated_as_they_are() -> None:
    kept = Directory(path="root", mode=0o700, uid=3, gid=4)
    aside = Directory(path="srv", mode=0o711, uid=5, gid=6)
    target = Target(uid=1000, gid=1000, directories=(aside, kept))
    assert [d["path"] for d in base_directories(["root/x/y"], target)] == ["root"]
    entries = describe(links_of({"/root/x/y": SHA["a"]}, target), KNOWN)
    assert [(e.path, e.mode, e.uid, e.gid) for e in entries] == [
        ("root", 0o700, 3, 4),
        ("root/x", 0o755, 1000, 1000),
        ("root/x/y", 0o777, 1000, 1000),
    ]
    # A directory of the base that the layer does not pass through changes no key.
    fewer = Target(uid=1000, gid=1000, directories=(kept,))
    assert links_of({"/root/x/y": SHA["a"]}, fewer).key == links_of({"/root/x/y": SHA["a"]}, target).key


# --- weights ---------------------------------------------------------------------------------------


def test_a_weights_layer_knows_its_content_only() -> None:
    [one] = weights.instances([BIG], "sd15")
    [two] = weights.instances([Content(size=None, sha256=SHA["a"], git_blob="d" * 40)], "deliberate")
    assert one.key == two.key
    assert (one.label, two.label) == ("sd15", "deliberate")
    assert "sd15" not in one.inputs
    assert [e.path for e in describe(one, KNOWN)] == [
        "opt/weights",
        "opt/weights/sha256",
        f"opt/weights/sha256/{SHA['a']}",
    ]
    assert all((e.uid, e.gid) == (0, 0) for e in describe(one, KNOWN))
    assert is_weights(one)


def test_large_files_have_a_layer_each_and_small_ones_share_one() -> None:
    made = weights.instances([OTHER, BIG, SMALL, BIG], "x")
    assert [i.inputs for i in made] == [f'{{"files":["{SHA["a"]}"]}}', f'{{"files":["{SHA["b"]}","{SHA["c"]}"]}}']
    turned = weights.instances([SMALL, BIG, OTHER], "x")
    assert {i.key for i in turned} == {i.key for i in made}
    assert weights.instances([], "x") == []


def test_a_file_of_unknown_size_has_a_layer_of_its_own() -> None:
    made = weights.instances([OTHER, Content(size=None, sha256=SHA["d"])], "x")
    assert sorted(i.inputs for i in made) == [f'{{"files":["{SHA["c"]}"]}}', f'{{"files":["{SHA["d"]}"]}}']


# --- huggingface -----------------------------------------------------------------------------------


def hf(**fields: Any) -> HuggingFaceLayer:
    return HuggingFaceLayer.model_validate({"kind": "huggingface", **fields})


@pytest.mark.parametrize(
    ("fields", "folder"),
    [
        ({"source": "hf://openai/clip-vit@abc"}, "models--openai--clip-vit"),
        ({"source": "hf://openai/clip-vit"}, "models--openai--clip-vit"),
        ({"source": "hf://gpt2@main"}, "models--gpt2"),
        ({"source": "hf://datasets/a/b@main"}, "datasets--a--b"),
        ({"source": "hf://datasets/squad@main"}, "datasets--squad"),
        ({"source": "hf://a/b@refs/pr/1"}, "models--a--b"),
        ({"source": "hf://a/b/sub/file.json"}, "models--a--b"),
        ({"source": "hf://datasets/a/b/x@y.json"}, "datasets--a--b"),
        ({"source": "file:x", "repository": "a/b", "revision": COMMIT}, "models--a--b"),
        ({"source": "file:x", "repository": "datasets/a/b", "revision": COMMIT}, "datasets--a--b"),
    ],
)
def test_the_folder_of_a_repository(fields: dict[str, str], folder: str) -> None:
    assert huggingface.repository_of(hf(**fields)) == folder


def snapshot_of(*files: tuple[str, Content], **pin: Any) -> list[Entry]:
    pinned = tuple(PinnedFile(path=path, content=content) for path, content in files)
    made = Pin(source="hf://a/b", revision=COMMIT, files=pinned, **pin)
    return describe(huggingface.snapshot(hf(source="hf://a/b@main"), made, Target(), "x"), KNOWN)


def test_every_link_of_a_snapshot_leads_to_its_content(tmp_path: Path) -> None:
    entries = snapshot_of(("a.json", SMALL), ("x/y/z.bin", OTHER), ("x/big.bin", BIG))
    with tarfile.open(
        fileobj=io.BytesIO(b"".join(TarStream(entries).read(lambda c, o: iter([bytes((c.size or 0) - o)]))))
    ) as tar:
        tar.extractall(tmp_path, filter="fully_trusted") if hasattr(tarfile, "data_filter") else tar.extractall(
            tmp_path
        )
    snapshot = tmp_path / "opt/huggingface/hub/models--a--b/snapshots" / COMMIT
    assert (snapshot / "a.json").resolve().name == SHA["b"]
    assert (snapshot / "x/y/z.bin").resolve().name == SHA["c"]
    assert (snapshot / "x/y/z.bin").stat().st_size == 1
    assert str((snapshot / "x/big.bin").readlink()) == f"/opt/weights/sha256/{SHA['a']}"
    assert (tmp_path / "opt/huggingface/hub/version.txt").read_bytes() == b"1"
    assert (tmp_path / "opt/huggingface/hub/models--a--b/refs/main").read_bytes() == COMMIT.encode()


def test_a_large_file_known_by_its_git_blob_only_stays_in_the_snapshot() -> None:
    blob = Content(size=LARGE, git_blob="d" * 40)
    assert not huggingface.is_weights(blob)
    assert any(e.path.endswith("blobs/" + "d" * 40) and e.content == blob for e in snapshot_of(("a", blob)))


def test_a_listing_with_a_file_below_a_file_is_refused() -> None:
    with pytest.raises(SourceError, match="directory"):
        snapshot_of(("a", SMALL), ("a/b", OTHER))
    with pytest.raises(SourceError, match="directory"):
        snapshot_of(("a", SMALL), ref="main/x")


# --- files and trees -------------------------------------------------------------------------------


def test_a_source_of_several_files_cannot_lie_at_one_path() -> None:
    layer = FilesLayer.model_validate({"kind": "files", "files": {"/a": "file:dir"}})
    pin = Pin(source="file:dir", files=(PinnedFile(path="x", content=OTHER), PinnedFile(path="y", content=SMALL)))
    with pytest.raises(SourceError, match="is not one file, as /a needs"):
        files.files(layer, {"/a": pin}, Target(), "f")


def test_the_key_of_a_files_layer_follows_content_and_not_its_source_or_order() -> None:
    def key(paths: list[str], source: str) -> str:
        layer = FilesLayer.model_validate({"kind": "files", "files": dict.fromkeys(paths, source)})
        pin = Pin(source=source, files=(PinnedFile(path=source, content=OTHER),))
        return files.files(layer, dict.fromkeys(paths, pin), Target(), source).key

    assert key(["/a", "/b"], "one") == key(["/b", "/a"], "two")
    assert key(["/a"], "one") != key(["/b"], "one")


def test_a_placed_model_counts_as_weights_and_a_script_does_not() -> None:
    assert is_weights(files.placed_model("/m/x.pt", BIG, Target(), "x"))
    layer = FilesLayer.model_validate({"kind": "files", "files": {"/a": {"content": "x"}}})
    assert not is_weights(files.files(layer, {}, Target(), "f"))


def test_what_describe_asks_for_is_announced() -> None:
    pin = Pin(source="git+https://h/r", tree="e" * 40, listing=SHA["f"])
    assert documents(gittree.tree(pin, "/webui", Target(), "x")) == {SHA["f"]}
    assert documents(weights.instances([BIG], "x")[0]) == frozenset()
