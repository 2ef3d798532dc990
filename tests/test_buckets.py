"""More models than layer slots: every file in one layer, and a new model moves at most one of them."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerbuild.buckets import LARGEST, SLOTS, Buckets, choose, groups

_MIB = 1024 * 1024


def _sha(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def _sizes(sizes: list[int | None]) -> dict[str, int | None]:
    return {_sha(number): size for number, size in enumerate(sizes)}


_usual = st.lists(st.one_of(st.integers(0, 300 * _MIB), st.integers(_MIB, 7000 * _MIB)), min_size=65, max_size=160)


def _holds(sizes: dict[str, int | None], buckets: Buckets) -> None:
    made = groups(sizes, buckets)
    assert sorted(sha for files in made.values() for sha in files) == sorted(sizes)
    assert len(made) <= SLOTS
    for name, files in made.items():
        if name not in sizes:
            assert sum(sizes[sha] or 0 for sha in files) <= LARGEST
        else:
            assert files == [name]


@given(_usual)
@settings(max_examples=120)
def test_every_file_is_in_one_layer_of_few(listed: list[int]) -> None:
    sizes = _sizes(list(listed))
    try:
        buckets = choose(sizes, None)
    except ValueError:
        # Only where not even even layers would do.
        assert sum(sorted(listed)[: len(listed) - SLOTS]) > LARGEST / 4
        return
    _holds(sizes, buckets)
    assert choose(sizes, buckets) == buckets
    assert choose(dict(reversed(sizes.items())), None) == buckets


@given(st.lists(st.integers(0, 200 * _MIB), min_size=66, max_size=120), st.integers(0, 6000 * _MIB))
@settings(max_examples=120)
def test_new_model_changes_at_most_one_bucket(listed: list[int], new: int) -> None:
    sizes = _sizes(list(listed))
    buckets = choose(sizes, None)
    more = {**sizes, _sha(10**6): new}
    if choose(more, buckets) != buckets:
        return
    before, after = groups(sizes, buckets), groups(more, buckets)
    assert sum(before.get(name) != after.get(name) for name in {*before, *after}) == 1


def test_kept_is_left_only_when_it_does_not_fit() -> None:
    small = _sizes([_MIB] * 100)
    odd = Buckets(threshold=2 * _MIB, bits=3)
    assert choose(small, odd) == odd
    # A bucket that overflows, or too many layers, need another way.
    assert choose(small, Buckets(threshold=0, bits=3)) != Buckets(threshold=0, bits=3)
    fat = Buckets(threshold=LARGEST, bits=0)
    assert choose(_sizes([LARGEST // 50] * 100), fat) != fat


def test_file_of_unknown_size_stays_alone() -> None:
    sizes = _sizes([None, *[_MIB] * 80])
    made = groups(sizes, choose(sizes, None))
    assert made[_sha(0)] == [_sha(0)]


def test_bucket_is_named_by_the_leading_bits() -> None:
    sizes = {"f" * 64: 1, "0" * 64: 1, "8" + "0" * 63: 1}
    assert set(groups(sizes, Buckets(threshold=2, bits=1))) == {"00", "01"}
    assert set(groups(sizes, Buckets(threshold=2, bits=4))) == {"00", "08", "0f"}
    assert set(groups(sizes, Buckets(threshold=2, bits=0))) == {"00"}


def test_what_fits_nowhere_is_refused() -> None:
    with pytest.raises(ValueError, match="do not fit into 64 layers"):
        choose(_sizes([5 * 1024 * _MIB] * 65), None)
    with pytest.raises(ValueError, match="do not fit"):
        choose(_sizes([None] * 65), None)
