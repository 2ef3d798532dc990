"""Cares for a store: says what is there and who needs it, removes what nobody needs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from layerbuild.care import Choice, Item, Policy, choose
from layerbuild.errors import UsageError
from layerbuild.execute.roots import Needs, Roots, read_roots
from layerbuild.progress import Progress
from layerbuild.store import Store
from layerbuild.store.inventory import Inventory
from layerbuild.store.rows import prune
from layerbuild.store.usage import others_since

_ROUNDS = 8
"""How often it is chosen anew what goes. Locks that are written all the time are left to the next collection."""


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What is in a store, and who needs it.

    Attributes:
        cutoff_ns: what was used since then may be in use; nanoseconds since 1970.
        needs: ids of items, by lock.
    """

    cutoff_ns: int
    roots: Roots
    needs: Mapping[Path, frozenset[str]]
    items: tuple[Item, ...]

    @property
    def needed(self) -> frozenset[str]:
        """Ids of what any lock needs."""
        return frozenset().union(*self.needs.values())

    def needed_by(self, item: Item) -> list[Path]:
        """The locks that need it."""
        return [lock for lock, needs in self.needs.items() if item.id in needs]


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What the user wants of a garbage collection: as in `care.Policy`.

    Attributes:
        roots: locks that count besides those of the projects that used the store.
        forget: locks of projects that used the store, and keep nothing any more.
    """

    roots: Sequence[Path] = ()
    forget: Sequence[Path] = ()
    keep_since_ns: int | None = None
    keep_count: int | None = None
    max_size: int | None = None
    even_needed: bool = False
    everything: bool = False
    dry_run: bool = False


@dataclass(frozen=True, kw_only=True)
class Collected:
    """What a garbage collection did, or would do.

    Attributes:
        removed: what went, or would.
        spared: what was chosen, and came into use meanwhile.
    """

    survey: Survey
    choice: Choice
    removed: tuple[Item, ...]
    spared: tuple[Item, ...]

    @property
    def freed(self) -> int:
        """Bytes."""
        return sum(item.size for item in self.removed)

    @property
    def left(self) -> int:
        """Bytes."""
        return self.choice.left + sum(item.size for item in self.spared)


def survey(store: Store, roots: Sequence[Path] = (), *, forget: Sequence[Path] = ()) -> Survey:
    """Looks at a store, and makes nothing in it look used. For `roots` and `forget` see `Wishes`.

    Raises:
        LockError, StoreError: a lock that was named or the store cannot be read.
    """
    # First: who ends later has either written a lock by the time that locks are read, or still lives now.
    cutoff = min([time.time_ns(), *others_since(store.root, own=store.usage)])
    found, inventory = read_roots(store, roots, cutoff_ns=cutoff, forget=forget), Inventory(store)
    items = tuple(inventory.items())
    needs = Needs(store, inventory)
    return Survey(
        cutoff_ns=cutoff,
        roots=found,
        needs={path: needs.of(lock, path.parent) for path, lock in found.locks.items()},
        items=items,
    )


def collect(store: Store, wishes: Wishes, progress: Progress) -> Collected:
    """Removes what nobody needs. Where a lock is written meanwhile, what is left is chosen anew.

    Raises:
        UsageError: no lock is known, and so it would be all; or a project to be forgotten is not known.
        LockError, StoreError: a lock or the store cannot be read, or something cannot be removed.
    """
    _expect_known(store, wishes.forget)
    inventory, removed = Inventory(store), list[Item]()
    with inventory.alone(lambda: progress.note("waiting for another layerbuild that cares for this store")):
        for _ in range(_ROUNDS):
            seen, choice = _chosen(store, wishes, progress)
            if wishes.dry_run:
                return Collected(survey=seen, choice=choice, removed=choice.remove, spared=())
            still = partial(seen.roots.unchanged, store, wishes.roots)
            removed += _remove(inventory, choice, seen, still, progress)
            if still():
                break
        prune(store)
        for path in (*seen.roots.gone, *wishes.forget):
            store.forget_project(path)
    gone = {item.id for item in removed}
    spared = tuple(item for item in choice.remove if item.id not in gone)
    return Collected(survey=seen, choice=choice, removed=tuple(removed), spared=spared)


def _expect_known(store: Store, forget: Sequence[Path]) -> None:
    known = store.projects()
    for path in forget:
        if path not in known:
            raise UsageError(
                f"no project at {path.parent} has used the store at {store.root}",
                hint="'layerbuild store' lists those that have",
            )


def _chosen(store: Store, wishes: Wishes, progress: Progress) -> tuple[Survey, Choice]:
    with progress.task("look at the store"):
        seen = survey(store, wishes.roots, forget=wishes.forget)
    for error in seen.roots.unreadable.values():
        raise error
    if not seen.roots.locks and not wishes.everything and seen.items:
        raise UsageError(
            f"no project is known that uses the store at {store.root}: everything in it would go",
            hint="name locks with --root LOCKFILE, run a command in your projects, or empty it with --all",
        )
    policy = Policy(
        cutoff_ns=seen.cutoff_ns,
        keep_since_ns=wishes.keep_since_ns,
        keep_count=wishes.keep_count,
        max_size=wishes.max_size,
        even_needed=wishes.even_needed,
        everything=wishes.everything,
    )
    return seen, choose(seen.items, seen.needed, policy)


def _remove(
    inventory: Inventory, choice: Choice, seen: Survey, still: Callable[[], bool], progress: Progress
) -> list[Item]:
    with progress.task("remove what nobody needs", choice.freed) as task:
        advance: Callable[[Item], None] = lambda item: task.advance(item.size)  # noqa: E731
        return inventory.remove(choice.remove, seen.cutoff_ns, advance, still=still)
