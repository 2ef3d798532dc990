"""What other people and machines have put into the lock: the sides of a merge, and receipts of another machine."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layerbuild import lockparse, locktext
from layerbuild.errors import LockError, UsageError
from layerbuild.kinds.requests import declaration_digest, requests
from layerbuild.lockmerge import Clash, conflicted, merge, record, sides
from layerbuild.lockmodel import Lock
from layerbuild.workspace import Workspace


def settled(workspace: Workspace, update: Collection[str], *, everything: bool) -> Lock | None:
    """The lock that there is. Conflict markers in it are resolved as far as both sides agree.

    Args:
        update: names that are resolved anew, whatever the sides say.
        everything: all are.

    Raises:
        LockError: the sides say different things, and nothing tells which is right.
    """
    path = workspace.project.lockfile
    text = locktext.read_text(path)
    if text is None or not conflicted(text):
        return workspace.lock_or_none()
    ours, theirs = (
        lockparse.parse(side, f"{path.name}, {whose} side")
        for side, whose in zip(sides(text), ("our", "their"), strict=True)
    )
    uses = [use for image in workspace.images for use in image.uses]
    merged = merge(ours, theirs, {use.pin_key: declaration_digest(requests(use.layer)) for use in uses})
    left = [clash for clash in merged.clashes if not _chosen(clash, update, everything)]
    if left:
        names = " ".join(f"--update {clash.name}" for clash in left if clash.name)
        lines = "\n".join(f"  {clash}" for clash in left)
        raise LockError(
            f"the two sides of {path.name} say different things:\n{lines}",
            hint=(f"choose anew with 'layerbuild lock {names}', or " if names else "")
            + "leave one side of them in the file, and run 'layerbuild lock' again",
        )
    workspace.progress.note(f"{path.name} held conflict markers: what both sides agree on is kept")
    return merged.lock


def _chosen(clash: Clash, update: Collection[str], everything: bool) -> bool:
    # an entry of a matrix is chosen by the name of its layer, too
    return clash.name is not None and (everything or bool({clash.name, clash.name.partition("[")[0]} & {*update}))


@dataclass(frozen=True, kw_only=True)
class TakenOver:
    """What came out of another lock: how many receipts, and whether a byte of this lock is another now."""

    receipts: int
    changed: bool

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {"changed": self.changed, "receipts": self.receipts}


def take_over(workspace: Workspace, path: Path) -> TakenOver:
    """Receipts, facts and manifests out of a file that `--receipts-out` wrote.

    Raises:
        UsageError: there is no such file.
        LockError: it is damaged, of another lock, or contradicts this one.
    """
    recorded = locktext.read(path)
    if recorded is None:
        raise UsageError(f"there is no file {path}", hint="'layerbuild build --receipts-out FILE' writes one")
    with workspace.writing():
        old = workspace.lock()
        new = record(old, recorded)
        changed = locktext.write(workspace.project.lockfile, new)
    return TakenOver(receipts=len(new.receipts.keys() - old.receipts.keys()), changed=changed)
