"""`lock`: pins what declarations ask for, and says what moved."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from layerbuild import locktext
from layerbuild.advice import advise
from layerbuild.api import merging
from layerbuild.api.installs import installs, uncompilable
from layerbuild.api.options import LockOptions
from layerbuild.compose import ComposedImage, compose
from layerbuild.errors import DriftError, UsageError
from layerbuild.execute.lock import Locker
from layerbuild.execute.pinning import Options
from layerbuild.locked import RELOCK, drift
from layerbuild.lockmodel import Lock, forgetting
from layerbuild.similar import did_you_mean
from layerbuild.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class LockOutcome:
    """What `lock` did.

    Attributes:
        lock: as it is in the file now.
        changed: whether a byte of the file is another.
        added, moved, removed: layers by the names of their pins.
        advice: what somebody who starts these images may want to know, for people.
    """

    lock: Lock
    changed: bool
    added: tuple[str, ...]
    moved: tuple[str, ...]
    removed: tuple[str, ...]
    advice: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        layers = {"added": list(self.added), "moved": list(self.moved), "removed": list(self.removed)}
        unlocked = dict(self.lock.unlocked)
        return {"changed": self.changed, "layers": layers, "unlocked": unlocked, "advice": list(self.advice)}


@dataclass(frozen=True, kw_only=True)
class LockCheck:
    """Whether a lock stands for the declarations.

    Attributes:
        drift: everything by which it does not, for people.
        images: how many images there are.
    """

    lock: Lock
    drift: tuple[str, ...]
    images: int

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {"drift": list(self.drift), "unlocked": dict(self.lock.unlocked)}

    def refuse(self) -> None:
        """Raise if anything has drifted.

        Raises:
            DriftError: it has.
        """
        if self.drift:
            text = "\n".join(f"  {line}" for line in self.drift)
            raise DriftError(f"the lock has drifted:\n{text}", hint=RELOCK)


def relock(workspace: Workspace, options: LockOptions) -> LockOutcome:
    """Pin what is new, write the lock, and say what moved.

    Raises:
        LayerbuildError: a declaration is wrong, or a source cannot be had. The lock is as it was.
    """
    with workspace.writing():
        old = merging.settled(workspace, options.update, everything=options.update_all)
        labels = {
            name for image in (old or Lock()).images.values() for line in image.layers for name in _names_of(line)
        }
        _known_names(workspace, options.update)
        made = {name for image in workspace.images for name in (image.name, image.title)}
        _known_names(workspace, options.repack, {*labels, *made})
        new = _locker(workspace, old or Lock(), options).run()
        if options.facts:
            new = _with_facts(workspace, new, options)
        new = _without_blobs(workspace, new, frozenset(options.repack))
        composed = _composed(workspace, new)
        advice = [
            *map(str, advise(composed, new)),
            *installs(workspace.context, old or Lock(), new),
            *uncompilable(composed, workspace.builder(new)),
        ]
        changed = locktext.write(workspace.project.lockfile, new)
    before = old.layers if old else {}
    return LockOutcome(
        lock=new,
        changed=changed,
        added=tuple(sorted(set(new.layers) - set(before))),
        moved=tuple(sorted(name for name, layer in new.layers.items() if name in before and before[name] != layer)),
        removed=tuple(sorted(set(before) - set(new.layers))),
        advice=tuple(advice),
    )


def check(workspace: Workspace) -> LockCheck:
    """Hold the lock against the declarations, and its receipts against those of this machine. Changes nothing.

    Raises:
        LayerbuildError: a declaration is wrong, or there is no lock.
    """
    lock = workspace.lock()
    found = drift(workspace.images, lock)
    for key, receipt in lock.receipts.items():
        stored = workspace.store.receipt(key)
        if stored is not None and stored.diff_id != receipt.diff_id:
            found.append(f"the receipt {key[:16]} says {receipt.diff_id}, this machine made {stored.diff_id}")
    return LockCheck(lock=lock, drift=tuple(found), images=len(workspace.images))


def _with_facts(workspace: Workspace, lock: Lock, options: LockOptions) -> Lock:
    """The lock with the facts that its images wait for. What must be read for them is fetched.

    Raises:
        LayerbuildError: something cannot be had.
    """
    composed = _composed(workspace, lock)
    builder = workspace.builder(lock)
    builder.contents.wanted = frozenset(sha256 for image in composed for sha256 in image.pending)
    for error in builder.learn(composed).values():
        raise error
    return _locker(workspace, lock, replace(options, update=(), update_all=False)).run()


def _locker(workspace: Workspace, old: Lock, options: LockOptions) -> Locker:
    return Locker(
        images=workspace.images,
        old=old,
        store=workspace.store,
        context=workspace.context,
        progress=workspace.progress,
        resolve_base=workspace.resolve_base,
        inspect_base=workspace.inspect_base,
        options=Options(
            update=frozenset(options.update),
            update_all=options.update_all,
            keep_going=options.keep_going,
            inspect=options.inspect,
        ),
    )


def _known_names(workspace: Workspace, names: Sequence[str], labels: Collection[str] = ()) -> None:
    known = {*labels}
    known |= {name for image in workspace.images for use in image.uses for name in (use.name, use.pin_key)}
    known |= {image.recipe.base for image in workspace.images}
    for name in names:
        if name not in known:
            raise UsageError(
                f"no recipe uses a layer or base called {name!r}" + (", or makes such an image" if labels else ""),
                hint=f"names of layers stand in recipes, under 'layers'{did_you_mean(name, known)}",
            )


def _without_blobs(workspace: Workspace, lock: Lock, names: frozenset[str]) -> Lock:
    """Forgets how layers were compressed, here and in the lock, and the manifests that said so."""
    if not names:
        return lock
    touched = {
        line.rpartition("@")[2] for image in lock.images.values() for line in image.layers if names & _names_of(line)
    }
    for key in touched:
        workspace.store.forget_blobs(key)
    receipts = {k: replace(r, blobs=()) if k[:16] in touched else r for k, r in lock.receipts.items()}
    images = {
        name: replace(image, manifest=None)
        if names & {name, name.partition("@")[0]} or any(line.rpartition("@")[2] in touched for line in image.layers)
        else image
        for name, image in lock.images.items()
    }
    indexes = forgetting(lock.indexes, lock.images, images)
    return replace(lock, receipts=receipts, images=images, indexes=indexes)


def _composed(workspace: Workspace, lock: Lock) -> tuple[ComposedImage, ...]:
    """The images that the lock holds."""
    return compose([image for image in workspace.images if image.name in lock.images], lock)


def _names_of(line: str) -> set[str]:
    """A layer's label, and the declaration that the label begins with (`webui/BLIP`)."""
    label = line.partition("/")[2].rpartition("@")[0]
    return {label, label.partition("/")[0]}
