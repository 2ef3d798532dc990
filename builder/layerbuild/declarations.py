"""A project's files, read only: declarations, lock, chosen images. Light to import."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

from layerbuild import images, lockparse, locktext, project, selection
from layerbuild.errors import LockError, UsageError
from layerbuild.images import ImageDeclaration
from layerbuild.locked import drift, refuse
from layerbuild.lockmodel import Lock
from layerbuild.model import sha256_hex


def root_of(start: str | os.PathLike[str]) -> Path:
    """The project that a directory lies in.

    Raises:
        UsageError: there is none, or no such directory.
    """
    directory = Path(start).absolute()
    if not directory.is_dir():
        raise UsageError(f"{directory} is not a directory", hint="name one with --project DIR, or leave it out")
    return project.find_root(directory)


class Declarations:
    """Parts are read when they are first asked for.

    Args:
        environ: of the git that is asked for earlier locks.
    """

    def __init__(self, root: Path, environ: Mapping[str, str]) -> None:
        self.root = root
        self.environ = environ
        self._parsed: dict[str, Lock] = {}

    @cached_property
    def project(self) -> project.Project:
        """The project's declarations."""
        return project.load(self.root)

    @cached_property
    def images(self) -> tuple[ImageDeclaration, ...]:
        """Every image of the project."""
        return images.expand(self.project)

    def select(
        self, patterns: Sequence[str], *, labels: Sequence[str] = (), changed_since: str | None = None
    ) -> tuple[ImageDeclaration, ...]:
        """The images that a command means: see `selection.select`, and `selection.changed` since a git revision.

        Raises:
            UsageError: nothing matches, or there is no such revision. That nothing changed is no error.
            DriftError: what changed is asked of a lock that does not stand for the declarations.
        """
        chosen = selection.select(self.images, patterns, labels)
        if changed_since is None:
            return chosen
        from layerbuild import lockhistory  # noqa: PLC0415  # git is asked by few commands

        now = self.lock()
        drifted = drift(self.images, now)
        if drifted:
            refuse({"": drifted})
        return selection.changed(chosen, now, lockhistory.lock_at(self.root, changed_since, self.environ))

    def lock_or_none(self) -> Lock | None:
        """The lock, if there is one. Read each time, because others may write it, and parsed where it is another."""
        path = self.root / project.LOCKFILE
        text = locktext.read_text(path)
        if text is None:
            return None
        digest = sha256_hex(text.encode())
        if digest not in self._parsed:
            self._parsed = {digest: lockparse.parse(text, path.name)}
        return self._parsed[digest]

    def lock(self) -> Lock:
        """The lock.

        Raises:
            LockError: there is none.
        """
        found = self.lock_or_none()
        if found is None:
            raise LockError(f"there is no {project.LOCKFILE} in {self.root}", hint="run 'layerbuild lock' first")
        return found
