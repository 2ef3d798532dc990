"""The lock as it was at a revision of the git repository that the project lies in."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from layerbuild.errors import LockError, UsageError
from layerbuild.lockmodel import Lock
from layerbuild.lockparse import parse
from layerbuild.project import LOCKFILE
from layerbuild.sources.gitcommand import Failure, Git


def lock_at(root: Path, revision: str, environ: Mapping[str, str]) -> Lock | None:
    """The lock of the project at `root` as `revision` has it, None where that has none.

    The blob is read as git holds it, past filters and text conversions; nothing is fetched.

    Args:
        revision: whatever git takes for a commit: a branch, a tag, `HEAD~3`.

    Raises:
        UsageError: the project lies in no git repository, or that knows no such commit.
        LockError: the lock of that commit cannot be read.
        SourceError: git cannot be run.
    """
    git = Git(environ, within=str(root))
    inside = git.run("rev-parse", "--show-prefix")
    if isinstance(inside, Failure):
        raise UsageError(
            f"{root} lies in no git repository",
            cause=inside.said,
            hint="name no revision, or commit the project to git first",
        )
    commit = _commit(git, revision)
    path = f"{os.fsdecode(inside).removesuffix(chr(10))}{LOCKFILE}"
    listed = git.run("--literal-pathspecs", "ls-tree", "--full-tree", "-z", commit, "--", path)
    if isinstance(listed, Failure):
        raise LockError(f"git cannot list {path} at {revision}", cause=listed.said, hint="run 'git fsck'")
    if not listed:
        return None
    blob = git.run("cat-file", "blob", listed.split()[2].decode())
    if isinstance(blob, Failure):
        hint = "run 'git fsck'; a clone without blobs must fetch them first"
        raise LockError(f"git cannot read {path} at {revision}", cause=blob.said, hint=hint)
    try:
        return parse(blob.decode().replace("\r\n", "\n"), f"{LOCKFILE} at {revision}")
    except UnicodeDecodeError as error:
        said = str(error)
    except LockError as error:
        said = str(error.message if error.cause is None else f"{error.message}: {error.cause}")
    raise LockError(
        f"{LOCKFILE} at {revision} cannot be read", cause=said, hint="compare with a revision whose lock is whole"
    )


def _commit(git: Git, revision: str) -> str:
    """The commit's id: from here on no text of the user reaches git."""
    found: bytes | Failure = b""
    if revision and not revision.startswith("-"):
        found = git.run("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    if isinstance(found, Failure) or not re.fullmatch(rb"[0-9a-f]{40,64}\n", found):
        raise UsageError(
            f"git knows no commit {revision!r} here",
            hint="name a branch, a tag or a commit; a shallow clone has only the newest ones, "
            "'git fetch --unshallow' brings the others",
        )
    return found.decode().strip()
