"""What a store may forget. Decisions only: `store.inventory` says what is there, `execute.care` carries this out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Literal

from layerbuild.errors import UsageError

Kind = Literal["files", "built", "bytecode", "documents", "layers", "git", "beginnings"]

KINDS: Mapping[Kind, str] = {
    "files": "models and other files that were fetched",
    "built": "wheels that were built here",
    "bytecode": "bytecode of Python sources",
    "documents": "headers of models, listings of wheels",
    "layers": "compressed layers, documents of base images",
    "git": "git repositories",
    "beginnings": "downloads that broke off",
}
"""What lies in a store, and what it is called."""

Reason = Literal["unneeded", "needed", "in use", "recent", "built here", "fits"]

LARGE = 1024 * 1024
"""Bytes from which on a thing counts for `--keep-last N`, and has a line of its own in lists."""

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_SIZES = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_DURATION = re.compile(r"(\d{1,9})([smhdw])")
_SIZE = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Item:
    """One thing in a store.

    Attributes:
        name: a file's sha256, a layer's digest without its algorithm, a repository's directory.
        size: bytes.
        used_ns: when it was last used, in nanoseconds since 1970.
        title: what it was called when it came; empty where nobody knows.
    """

    kind: Kind
    name: str
    size: int
    used_ns: int
    title: str = ""

    @property
    def id(self) -> str:
        """What `Root.needs` calls it: `file:`, `blob:`, `git:` or `partial:` and the name."""
        place = {"layers": "blob", "git": "git", "beginnings": "partial"}.get(self.kind, "file")
        return f"{place}:{self.name}"


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What is to be forgotten.

    Attributes:
        cutoff_ns: what was used since then may be in use. Nanoseconds since 1970.
        keep_since_ns: what was used since then stays; None where that is nobody's wish.
        keep_count: what was used since the N-th last of the large things that nobody needs stays; None as before.
        max_size: bytes that may stay; None for any number. No more is removed than that takes.
        even_needed: also what locks need, after all else; the other wishes hold for that, too.
        everything: also what was built here and cannot be fetched.
    """

    cutoff_ns: int
    keep_since_ns: int | None = None
    keep_count: int | None = None
    max_size: int | None = None
    even_needed: bool = False
    everything: bool = False


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What goes, in the order in which it goes, and why the rest stays."""

    remove: tuple[Item, ...]
    kept: Mapping[Reason, tuple[Item, ...]]

    @property
    def freed(self) -> int:
        """Bytes."""
        return sum(item.size for item in self.remove)

    @property
    def left(self) -> int:
        """Bytes."""
        return sum(item.size for items in self.kept.values() for item in items)


def choose(items: Iterable[Item], needed: AbstractSet[str], policy: Policy) -> Choice:
    """What a store forgets: first what nobody needs, the least recently used first.

    Args:
        needed: by the locks; ids of items.
    """
    everything = sorted(items, key=lambda item: (item.used_ns, item.id))
    since = _since([item for item in everything if item.id not in needed], policy)
    sorted_out = [(item, _reason(item, needed, policy, since)) for item in everything]
    candidates = [item for item, reason in sorted_out if reason == "unneeded"]
    if policy.even_needed:
        candidates += [item for item, reason in sorted_out if reason == "needed" and not _kept(item, policy, since)]
    going = _least(candidates, sum(item.size for item in everything), policy.max_size)
    gone = {item.id for item in going}
    kept: dict[Reason, list[Item]] = {}
    for item, reason in sorted_out:
        if item.id not in gone:
            kept.setdefault("fits" if reason == "unneeded" else reason, []).append(item)
    return Choice(remove=tuple(going), kept={reason: tuple(left) for reason, left in kept.items()})


def _since(unneeded: Sequence[Item], policy: Policy) -> int | None:
    """From when on whatever was used stays."""
    found = [] if policy.keep_since_ns is None else [policy.keep_since_ns]
    if policy.keep_count:
        large = [item.used_ns for item in unneeded if item.size >= LARGE]
        found.append(large[-policy.keep_count] if len(large) >= policy.keep_count else 0)
    return min(found, default=None)


def _reason(item: Item, needed: AbstractSet[str], policy: Policy, since: int | None) -> Reason:
    if item.used_ns >= policy.cutoff_ns:
        return "in use"
    if item.id in needed:
        return "needed"
    return _kept(item, policy, since) or "unneeded"


def _kept(item: Item, policy: Policy, since: int | None) -> Reason | None:
    """Why a thing stays that no lock keeps."""
    if item.kind == "built" and not policy.everything:
        return "built here"
    return "recent" if since is not None and item.used_ns >= since else None


def _least(candidates: Sequence[Item], total: int, limit: int | None) -> list[Item]:
    """The first of them without which the whole is no larger than `limit`; all, where there is none."""
    if limit is None:
        return list(candidates)
    going: list[Item] = []
    for item in candidates:
        if total <= limit:
            break
        going.append(item)
        total -= item.size
    return going


def parse_keep(text: str, now: float) -> tuple[int | None, int | None]:
    """`Policy.keep_since_ns` and `Policy.keep_count` of a duration as `30d`, or a number.

    Raises:
        UsageError: it is neither.
    """
    if text.isascii() and text.isdigit() and len(text) < 10:
        return None, int(text)
    match = _DURATION.fullmatch(text)
    if match is None:
        raise UsageError(
            f"--keep-last {text[:40]!r} is no duration and no number",
            hint="write 12h, 30d or 8w (s, m, h, d, w), or how many of the large ones shall stay, for example 5",
        )
    return int((now - int(match[1]) * _UNITS[match[2]]) * 1_000_000_000), None


def parse_size(text: str) -> int:
    """Bytes of `20G`, `500MiB`, `1.5T` or `1000`. Units are powers of 1024.

    Raises:
        UsageError: it is no size.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise UsageError(f"--max-size {text[:40]!r} is no size", hint="write 20G, 500M or 1.5T")
    return int(float(match[1]) * _SIZES[match[2].lower()])
