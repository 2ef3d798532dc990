"""Merging locks: what agrees is kept from both sides, what does not is named, whichever side is ours."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import SHA
from layerbuild.errors import LockError
from layerbuild.lockmerge import conflicted, merge, sides
from layerbuild.lockmodel import Lock, LockedBase, LockedImage, LockedLayer
from layerbuild.model import Blob, Facts, Pin, Receipt

_DIGESTS = [f"sha256:{SHA['a']}", f"sha256:{SHA['b']}"]

_layers = st.builds(
    lambda declaration, revision: LockedLayer(
        declaration=declaration, pins={"model": Pin(source=f"hf://a/b@{revision}/c", revision=revision)}
    ),
    st.sampled_from(["one", "two"]),
    st.sampled_from(["1" * 40, "2" * 40]),
)
_receipts = st.builds(
    lambda diff_id, blobs: Receipt(key=SHA["a"], diff_id=diff_id, size=1, blobs=tuple(blobs)),
    st.sampled_from(_DIGESTS),
    st.lists(
        st.builds(
            Blob, encoding=st.sampled_from(["gzip:6:1", "zstd:9:1"]), digest=st.just(_DIGESTS[0]), size=st.just(1)
        ),
        unique=True,
        max_size=2,
    ),
)
_images = st.builds(
    lambda digest, layers, manifest: LockedImage(
        platform="linux/amd64",
        settings="s",
        base=LockedBase(reference="a/base:1", digest=digest),
        layers=tuple(layers),
        manifest=manifest,
    ),
    st.sampled_from(_DIGESTS),
    st.lists(st.sampled_from(["weights/a@1", "weights/b@2", "links/x@pending"]), unique=True),
    st.sampled_from([None, *_DIGESTS]),
)
_names = st.sampled_from(["x", "y", "z"])
_facts = st.builds(Facts, size=st.just(1), addnet=st.sampled_from([None, SHA["a"]]))
_locks = st.builds(
    Lock,
    layers=st.dictionaries(_names, _layers),
    files=st.dictionaries(st.just(SHA["c"]), _facts),
    receipts=st.dictionaries(st.just(SHA["a"]), _receipts),
    images=st.dictionaries(_names, _images),
)


@given(_locks)
def test_a_lock_merged_with_itself(lock: Lock) -> None:
    merged = merge(lock, lock, {})
    bases = {image.base.digest for image in lock.images.values() if image.base}
    if len(bases) < 2:
        assert (merged.lock, merged.clashes) == (lock, ())


@given(_locks, _locks)
def test_both_sides_see_the_same_clashes(ours: Lock, theirs: Lock) -> None:
    declared = {"x": "one", "y": "one"}
    here, there = merge(ours, theirs, declared), merge(theirs, ours, declared)
    assert {c.entry for c in here.clashes} == {c.entry for c in there.clashes}
    assert here.lock.layers.keys() == ours.layers.keys() | theirs.layers.keys()
    assert here.lock.receipts.keys() == there.lock.receipts.keys()
    if not here.clashes:
        assert here.lock.receipts == there.lock.receipts
        assert here.lock.files == there.lock.files
        fitting = {name: layer for name, layer in here.lock.layers.items() if layer.declaration == declared.get(name)}
        assert fitting == {n: la for n, la in there.lock.layers.items() if la.declaration == declared.get(n)}


@given(_locks, _locks)
def test_no_manifest_is_kept_that_one_side_denies(ours: Lock, theirs: Lock) -> None:
    for name, image in merge(ours, theirs, {}).lock.images.items():
        said = {lock.images[name].manifest for lock in (ours, theirs) if name in lock.images} - {None}
        assert image.manifest is None or said == {image.manifest}


def test_facts_that_contradict_each_other() -> None:
    ours = Lock(files={SHA["a"]: Facts(size=1)})
    with pytest.raises(LockError, match="size is 1 and 2"):
        merge(ours, replace(ours, files={SHA["a"]: Facts(size=2)}), {})


def test_sides_of_a_text() -> None:
    text = (
        "a\n<<<<<<< ours\nb\n||||||| base\nc\n=======\nd\n>>>>>>> theirs\ne\n<<<<<<< ours\n=======\nf\n>>>>>>> theirs"
    )
    assert sides(text) == ("a\nb\ne\n", "a\nd\ne\nf\n")
    assert conflicted(text) and not any(map(conflicted, sides(text)))
