"""What a store forgets, and in which order: decisions only."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerbuild.care import KINDS, LARGE, Choice, Item, Kind, Policy, choose, parse_keep, parse_size
from layerbuild.errors import UsageError

_LATER = 10**9


def item(name: str, *, used: int = 0, size: int = LARGE, kind: Kind = "files") -> Item:
    return Item(kind=kind, name=name, size=size, used_ns=used)


def going(choice: Choice) -> list[str]:
    return [item.name for item in choice.remove]


def test_what_no_lock_needs_goes_and_the_rest_is_accounted_for() -> None:
    items = [item("new", used=3), item("old", used=1), item("wanted"), item("wheel", kind="built")]
    choice = choose(items, {"file:wanted"}, Policy(cutoff_ns=_LATER))
    assert going(choice) == ["old", "new"]
    assert {reason: [i.name for i in kept] for reason, kept in choice.kept.items()} == {
        "needed": ["wanted"],
        "built here": ["wheel"],
    }
    assert (choice.freed, choice.left) == (2 * LARGE, 2 * LARGE)


def test_what_was_used_since_somebody_began_stays_whatever_is_asked() -> None:
    items = [item("used", used=5), item("idle", used=4)]
    policy = Policy(cutoff_ns=5, everything=True, even_needed=True, max_size=0)
    assert going(choose(items, {"file:used"}, policy)) == ["idle"]


def test_a_name_counts_in_its_own_place_only() -> None:
    items = [item("a"), item("a", kind="layers"), item("a", kind="git"), item("a", kind="beginnings")]
    kept = choose(items, {"blob:a"}, Policy(cutoff_ns=_LATER)).kept["needed"]
    assert [i.kind for i in kept] == ["layers"]
    assert len({i.id for i in items}) == 4


def test_what_was_built_here_goes_when_all_shall() -> None:
    wheel = item("wheel", kind="built")
    assert going(choose([wheel], set(), Policy(cutoff_ns=_LATER, everything=True))) == ["wheel"]


def test_what_is_needed_goes_no_sooner_than_what_is_not() -> None:
    """A wheel that was built here, and what was used lately, stay for their own sake."""
    items = [item("wheel", kind="built"), item("old", used=1), item("new", used=3)]
    needed = {i.id for i in items}
    policy = Policy(cutoff_ns=_LATER, max_size=0, even_needed=True, keep_since_ns=2)
    assert going(choose(items, needed, policy)) == ["old"]
    assert going(choose(items, needed, replace(policy, keep_since_ns=None))) == ["old", "new"]
    assert going(choose(items, needed, replace(policy, keep_since_ns=None, everything=True)))[0] == "wheel"


def test_recently_used_stays() -> None:
    items = [item("a", used=1), item("b", used=2), item("c", used=3)]
    assert going(choose(items, set(), Policy(cutoff_ns=_LATER, keep_since_ns=2))) == ["a"]


@pytest.mark.parametrize(
    ("count", "expected"), [(1, ["a", "b", "small"]), (2, ["a"]), (3, []), (9, []), (0, ["a", "b", "small", "c"])]
)
def test_the_last_large_ones_stay_and_what_is_as_young(count: int, expected: list[str]) -> None:
    items = [item("a", used=1), item("b", used=2), item("small", used=3, size=1), item("c", used=4)]
    items.append(item("needed", used=9))
    choice = choose(items, {"file:needed"}, Policy(cutoff_ns=_LATER, keep_count=count))
    assert going(choice) == expected


def test_no_more_goes_than_the_limit_takes() -> None:
    items = [item("a", used=3, size=10), item("b", used=1, size=10), item("wanted", used=0, size=10)]
    limited = choose(items, {"file:wanted"}, Policy(cutoff_ns=_LATER, max_size=20))
    assert going(limited) == ["b"]
    assert [i.name for i in limited.kept["fits"]] == ["a"]
    # What a lock needs goes last, and only where that is asked for.
    assert going(choose(items, {"file:wanted"}, Policy(cutoff_ns=_LATER, max_size=5))) == ["b", "a"]
    everything = choose(items, {"file:wanted"}, Policy(cutoff_ns=_LATER, max_size=5, even_needed=True))
    assert going(everything) == ["b", "a", "wanted"]


_ITEMS = st.lists(
    st.builds(
        item,
        st.text("abc", min_size=1, max_size=3),
        used=st.integers(0, 20),
        size=st.integers(0, 3 * LARGE),
        kind=st.sampled_from(sorted(KINDS)),
    ),
    unique_by=lambda i: i.id,
)
_POLICIES = st.builds(
    Policy,
    cutoff_ns=st.integers(0, 25),
    keep_since_ns=st.none() | st.integers(0, 25),
    keep_count=st.none() | st.integers(0, 4),
    max_size=st.none() | st.integers(0, 8 * LARGE),
    everything=st.booleans(),
)


@given(items=_ITEMS, needed=st.sets(st.text("abc", min_size=1, max_size=3)), policy=_POLICIES)
def test_any_choice_spares_what_it_must_and_loses_nothing(items: list[Item], needed: set[str], policy: Policy) -> None:
    ids = {f"{place}:{name}" for name in needed for place in ("file", "blob")}
    choice = choose(items, ids, policy)
    left = [i for kept in choice.kept.values() for i in kept]
    assert sorted(i.id for i in (*choice.remove, *left)) == sorted(i.id for i in items)
    for gone in choice.remove:
        assert gone.id not in ids and gone.used_ns < policy.cutoff_ns
        assert policy.everything or gone.kind != "built"
        assert policy.keep_since_ns is None or gone.used_ns < policy.keep_since_ns
    if policy.max_size is not None and choice.remove:
        assert choice.left + choice.remove[-1].size > policy.max_size, "the last one did not have to go"


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("1000", 1000), ("20G", 20 << 30), ("1.5TiB", 3 << 39), ("500 mb", 500 << 20), ("7k", 7 << 10)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "G", "-1", "1e3", "1,5G", "5 P", "9" * 30])
def test_no_sizes(text: str) -> None:
    with pytest.raises(UsageError, match="is no size"):
        parse_size(text)


def test_durations_and_numbers() -> None:
    now = 10_000_000.0
    assert parse_keep("5", now) == (None, 5)
    for text, seconds in (("30d", 30 * 86400), ("12h", 43200), ("1w", 7 * 86400), ("90s", 90), ("2m", 120)):
        assert parse_keep(text, now) == ((10_000_000 - seconds) * 10**9, None)


@pytest.mark.parametrize("text", ["", "d", "-3", "3 days", "1.5d", "9" * 20, "٣"])
def test_no_durations(text: str) -> None:
    with pytest.raises(UsageError, match="no duration and no number"):
        parse_keep(text, 0.0)
