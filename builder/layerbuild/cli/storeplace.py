"""What `layerbuild store` and `layerbuild gc` share: a store without a project, and how its things are told of."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from layerbuild import project
from layerbuild.audit.findings import printable
from layerbuild.care import KINDS, LARGE, Item
from layerbuild.cli.display import progress_for, size
from layerbuild.errors import UsageError
from layerbuild.execute.station import Station

_DAY = 86400


def station(options: Mapping[str, Any]) -> Station:
    """This machine, wherever the command runs."""
    return Station(Path.cwd(), progress_for(options), os.environ)


def own_lock(options: Mapping[str, Any]) -> list[Path]:
    """The lock of the project where the command runs, if there is one.

    Raises:
        UsageError: a project was named, and is none.
    """
    named = options.get("project")
    try:
        lock = project.find_root(Path(named or ".").absolute()) / project.LOCKFILE
    except UsageError:
        if named:
            raise
        return []
    return [lock] if lock.exists() else []


def as_json(item: Item) -> dict[str, Any]:
    """For programs."""
    used = datetime.fromtimestamp(item.used_ns / 1e9, timezone.utc).isoformat(timespec="seconds")
    title = {"title": item.title} if item.title else {}
    return {"kind": item.kind, "name": item.name, "size": item.size, "last_used": used, **title}


def title(item: Item) -> str:
    """A thing in one line, for people."""
    return f"{printable(item.title)[:60]} {item.name[:12]}" if item.title else item.name[:12]


def ago(seconds: float) -> str:
    """When something was, for people: `today`, `3 days ago`."""
    days = int((time.time() - seconds) // _DAY)
    if days < 1:
        return "today"
    if days < 60:
        return "yesterday" if days == 1 else f"{days} days ago"
    return f"{days // 30} months ago"


def by_kind(items: Iterable[Item]) -> dict[str, list[Item]]:
    """Things by what they are; the kind that takes most first, and in it the largest."""
    found: dict[str, list[Item]] = {}
    for item in items:
        found.setdefault(KINDS[item.kind], []).append(item)
    for group in found.values():
        group.sort(key=lambda item: (-item.size, item.name))
    return dict(sorted(found.items(), key=lambda pair: -total(pair[1])))


def total(items: Iterable[Item]) -> int:
    """Bytes."""
    return sum(item.size for item in items)


def rows(items: Iterable[Item], *, listed: int | None = None) -> list[list[str]]:
    """Lines of a table: number, size, last use, and what it is; large things have a line of their own.

    Args:
        listed: how many of one kind have one; None for all of `LARGE` bytes and more.
    """
    found: list[list[str]] = []
    for kind, group in by_kind(items).items():
        found.append([kind, str(len(group)), size(total(group)), ""])
        large = [item for item in group if item.size >= LARGE][:listed]
        found += [[f"  {title(item)}", "", size(item.size), ago(item.used_ns / 1e9)] for item in large]
    return found


def counted(number: int, one: str, many: str) -> str:
    """`1 project`, `3 projects`."""
    return f"{number} {one if number == 1 else many}"


def paths(locks: Sequence[Path]) -> list[str]:
    """The projects that locks belong to, as a terminal may get them."""
    return [printable(str(lock.parent)) for lock in locks]
