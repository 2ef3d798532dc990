"""Holds what lies in a store against its names, and sets right what is not.

A file, a layer and a git object have names that their bytes give them. What a disk has changed is found so, and
removed: whoever needs it fetches it anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from layerbuild.care import Item
from layerbuild.digests import CHUNK
from layerbuild.errors import BrokenDatabase, StoreError, UsageError
from layerbuild.execute.parallel import in_threads
from layerbuild.progress import Progress, Task
from layerbuild.sources.gitcommand import Failure, Git
from layerbuild.store import Store
from layerbuild.store.inventory import Inventory
from layerbuild.store.locks import locked
from layerbuild.store.rows import dangling, prune, restore, salvaged
from layerbuild.store.usage import others_since


@dataclass(frozen=True, kw_only=True)
class Damage:
    """One thing that is not what its name says, and why."""

    item: Item
    cause: str


@dataclass(frozen=True, kw_only=True)
class Checkup:
    """What a store is like.

    Attributes:
        items: everything that was looked at.
        dangling: how many rows tell of what is not there, by table.
    """

    items: tuple[Item, ...]
    damaged: tuple[Damage, ...]
    dangling: Mapping[str, int]


def check(store: Store, environ: Mapping[str, str], progress: Progress) -> Checkup:
    """Reads and hashes everything, several at a time. Nothing is changed, and nothing looks used after it.

    Args:
        environ: of the git command.

    Raises:
        StoreError: the store cannot be read; BrokenDatabase: what it remembers is damaged.
    """
    store.check()
    inventory = Inventory(store)
    # Of a beginning nobody can say what it should be before it is whole.
    items = [item for item in inventory.items() if item.kind != "beginnings"]
    items.sort(key=lambda item: -item.size)
    with progress.task("verify the store", sum(item.size for item in items)) as task:
        causes = in_threads(
            lambda item: _fault(inventory.path(item), item, environ, task), items, parallel=os.cpu_count() or 1
        )
    damaged = [Damage(item=item, cause=cause) for item, cause in zip(items, causes, strict=True) if cause]
    rows = {table: len(found) for table, found in dangling(store).items()}
    return Checkup(items=tuple(items), damaged=tuple(damaged), dangling=rows)


def repair(store: Store, found: Checkup, environ: Mapping[str, str], progress: Progress) -> int:
    """Removes what is still damaged, and the rows of what is not there; returns how many rows.

    What is damaged is removed whoever uses it: nobody can use it for anything. Since it was looked at, somebody may
    have had it anew.

    Args:
        environ: of the git command.

    Raises:
        StoreError: something cannot be removed.
    """
    inventory = Inventory(store)
    with inventory.alone(lambda: progress.note("waiting for another layerbuild that cares for this store")):
        for item in (damage.item for damage in found.damaged):
            with progress.task(f"look at {item.name[:12]} again", item.size) as task:
                inventory.discard(item, lambda path: bool(_fault(path, item, environ, task)))  # noqa: B023
        return prune(store)


def renew_database(root: Path) -> int:
    """Removes what the store at `root` remembers, but for what nobody else knows: projects, and what was built here.

    Returns:
        How many projects are still known.

    Raises:
        UsageError: somebody uses it.
        StoreError: it cannot be removed.
    """
    with locked(root, "store.lock", waiting=lambda: None):
        if others_since(root):
            raise UsageError(
                f"the database of the store at {root} is damaged, and another layerbuild uses it",
                hint="end the other one, then run 'layerbuild store repair' again",
            )
        saved = salvaged(root / "store.db")
        try:
            for name in ("store.db", "store.db-wal", "store.db-shm"):
                (root / name).unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(
                f"{root / name} cannot be removed", cause=error.strerror, hint="check who owns the store's files"
            ) from None
    with contextlib.closing(Store(root)) as store:
        restore(store, saved)
        return len(store.projects())


def is_sound(root: Path) -> bool:
    """Whether what the store at `root` remembers can be read.

    Raises:
        StoreError: the store cannot be used at all.
    """
    try:
        with contextlib.closing(Store(root)) as store:
            store.check()
    except BrokenDatabase:
        return False
    return True


def _fault(path: Path, item: Item, environ: Mapping[str, str], task: Task) -> str:
    """Why a thing is not what its name says; empty where it is, or has gone meanwhile."""
    if item.kind == "git":
        return _git_fault(path, item, environ, task)
    whole, size = hashlib.sha256(), 0
    try:
        with path.open("rb", buffering=0) as file:
            while chunk := file.read(CHUNK):
                whole.update(chunk)
                size += len(chunk)
                task.advance(len(chunk))
    except FileNotFoundError:
        return ""
    except OSError as error:
        return error.strerror or type(error).__name__
    return "" if whole.hexdigest() == item.name else f"its {size} bytes have sha256 {whole.hexdigest()[:16]}…"


def _git_fault(path: Path, item: Item, environ: Mapping[str, str], task: Task) -> str:
    said = Git(environ, str(path)).run("fsck", "--full", "--no-progress", "--no-dangling")
    task.advance(item.size)
    return said.said if isinstance(said, Failure) and path.exists() else ""
