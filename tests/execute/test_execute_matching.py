"""Which layer is which: by digest, by key, in order, and what differs."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from layerbuild.execute.matching import Pair, Present, Wanted, config_differences, differences, match
from layerbuild.layering import ComposedLayer
from layerbuild.model import Descriptor, Instance

_TYPE = "application/vnd.oci.image.layer.v1.tar"


def _digest(letter: str) -> str:
    return f"sha256:{letter * 64}"


def _base(letter: str) -> Wanted:
    return Wanted(title=f"base {letter}", media_type=_TYPE, blobs={_digest(letter): 1}, diff_id=_digest(letter))


def _own(letter: str, *, known: bool = True) -> Wanted:
    instance = Instance(kind="files", revision=1, parts=(f'"{letter}"',), label=letter)
    layer = ComposedLayer(instance=instance, rank=0, kind="files", label=letter, algorithm="none")
    blobs = {_digest(letter): 1} if known else {}
    return Wanted(title=letter, media_type=_TYPE, blobs=blobs, diff_id=_digest(letter) if known else None, layer=layer)


def _present(letter: str, *, key: str | None = None, size: int = 1, diff_id: str | None = None) -> Present:
    descriptor = Descriptor(media_type=_TYPE, digest=_digest(letter), size=size)
    return Present(descriptor=descriptor, key=key, diff_id=diff_id or _digest(letter))


def _titles(pairs: Sequence[Pair]) -> list[tuple[str | None, str | None]]:
    return [
        (p.wanted.title if p.wanted else None, p.present.descriptor.digest[7] if p.present else None) for p in pairs
    ]


def test_equal_sides() -> None:
    wanted = [_base("a"), _own("b"), _own("c")]
    pairs, ordered = match(wanted, [_present("a"), _present("b", key=wanted[1].key), _present("c")])
    assert ordered and _titles(pairs) == [("base a", "a"), ("b", "b"), ("c", "c")]
    assert [line for pair in pairs for line in differences(pair)] == []


def test_a_blob_that_a_base_holds_twice_is_wanted_twice() -> None:
    wanted = [_base("a"), _own("b"), _base("a")]
    assert match(wanted, [_present("a"), _present("b"), _present("a")])[1]
    pairs, _ = match(wanted, [_present("a"), _present("b")])
    assert _titles(pairs)[-1] == ("base a", None) and list(differences(pairs[-1])) == ["base a is missing"]
    pairs, ordered = match(wanted, [_present("a"), _present("a"), _present("a"), _present("b")])
    assert _titles(pairs) == [("base a", "a"), ("base a", "a"), (None, "a"), ("b", "b")] and not ordered


def test_another_digest_is_found_by_its_key() -> None:
    wanted = [_own("a"), _own("b")]
    pairs, ordered = match(wanted, [_present("a"), _present("c", key=wanted[1].key)])
    assert ordered and _titles(pairs) == [("a", "a"), ("b", "c")]
    (line, unpacked) = differences(pairs[1])
    assert line == f"b is {_digest('c')}, its receipt says {_digest('b')}" and "diffID" in unpacked
    # The digest says more than the annotation.
    pairs, _ = match(wanted, [_present("b", key=wanted[0].key), _present("a", key=wanted[1].key)])
    assert _titles(pairs) == [("b", "b"), ("a", "a")]
    assert [list(differences(pair)) for pair in pairs] == [
        ["b is annotated as another layer"],
        ["a is annotated as another layer"],
    ]


@pytest.mark.parametrize("backwards", [False, True])
def test_order(backwards: bool) -> None:
    wanted = [_own(letter) for letter in "abcd"]
    present = [_present(letter) for letter in ("dcba" if backwards else "acd")]
    pairs, ordered = match(wanted, present)
    assert ordered is not backwards and len(pairs) == 4


def test_layers_without_a_receipt_are_found_by_key_alone() -> None:
    wanted = [_own("a", known=False), _base("b")]
    present = [_present("c", key=wanted[0].key), _present("d", key="0" * 64), _present("b", key="1" * 64)]
    pairs, _ = match(wanted, present)
    assert _titles(pairs) == [("a", "c"), (None, "d"), ("base b", "b")]
    assert list(differences(pairs[0])) == []
    assert list(differences(pairs[1])) == [f"layer {'d' * 12} is no layer of it ({_digest('d')}, 1 bytes)"]
    assert list(differences(pairs[2])) == ["base b is annotated as another layer"]


def test_nothing() -> None:
    assert match([], []) == ([], True)


def test_names_of_what_differs_in_configs() -> None:
    one = {"os": "linux", "config": {"Cmd": ["a"], "Env": ["A=b"]}, "rootfs": {}}
    assert config_differences(one, one) == []
    other = {"os": "linux", "config": {"Cmd": ["b"], "Env": ["A=b"], "User\n": "x"}, "\x1b" * 50: 1}
    assert config_differences(one, other) == [ascii("\x1b" * 40), "config.Cmd", "config.'User\\n'", "rootfs"]
    assert config_differences({"config": {}}, {"config": None}) == ["config"]
    assert config_differences({"config": {}}, {"config": 7}) == ["config"]
