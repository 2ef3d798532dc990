"""Puts the rooms together: project, lock, store, sources, registries."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from layerbuild import locktext
from layerbuild.baseimage import BaseSource, directories, open_base
from layerbuild.declarations import Declarations, root_of
from layerbuild.errors import LayerbuildError, Problem, ProjectError
from layerbuild.execute.build import Builder, BuiltImage, parse_base
from layerbuild.execute.station import Station
from layerbuild.image import BaseImage
from layerbuild.lockmodel import Lock, LockedBase
from layerbuild.model import Directory, sha256_hex
from layerbuild.progress import Progress
from layerbuild.project import LOCKFILE
from layerbuild.registry.manifests import config_of, read_object
from layerbuild.store import Store


class Workspace(Declarations, Station):
    """Everything that works with a project: this machine, and its declarations and lock. Parts are made when they are
    first used.

    Args:
        start: a directory of the project, or below it.
        progress, environ, insecure, offline: see `Station`.

    Raises:
        UsageError: there is no such directory, or no project.
    """

    def __init__(
        self,
        start: str | os.PathLike[str],
        progress: Progress,
        environ: Mapping[str, str],
        *,
        insecure: Sequence[str] = (),
        offline: bool = False,
    ) -> None:
        root = root_of(start)
        Declarations.__init__(self, root, environ)
        Station.__init__(self, root, progress, environ, insecure=insecure, offline=offline)

    @cached_property
    def store(self) -> Store:
        """See `Station.store`. It learns that this project uses it: what its lock needs is no garbage."""
        store = self.open_store()
        store.remember_project(self.root.resolve() / LOCKFILE)
        return store

    def builder(self, lock: Lock, *, keep: bool = True) -> Builder:
        """What builds images from `lock`. See `Station.contents`."""
        return Builder(
            images=self.images,
            lock=lock,
            contents=self.contents(lock, keep=keep),
            progress=self.progress,
            fetch_base=self.fetch_base,
        )

    # --- bases and destinations ------------------------------------------------------------------

    def open_base(self, reference: str) -> BaseSource:
        """A base image's source."""
        # Clients are made when one is asked for: what is at hand needs none.
        return open_base(reference, client_for=lambda host: self.clients(host), project=self.root)  # noqa: PLW0108

    def open_image(self, reference: str) -> BaseSource:
        """An image that a command line names. A relative directory is relative to where the command runs."""
        return open_base(reference, client_for=self.clients, project=Path.cwd())

    def resolve_base(self, reference: str, platform: str) -> str:
        """Digest of the base's manifest for a platform."""
        return self.open_base(reference).resolve(platform)

    def fetch_base(self, base: LockedBase) -> BaseImage:
        """The base's documents by their locked digest, kept in the store."""
        manifest = self._document(base.digest, lambda: self.open_base(base.reference).manifest(base.digest))
        described = config_of(read_object(manifest, base.reference), base.reference)
        config = self._document(described.digest, lambda: self.open_base(base.reference).config(manifest))
        return parse_base(base, manifest, config)

    def base_at_hand(self, base: LockedBase) -> BaseImage | None:
        """The base by documents that this machine has, in its store or in a layout; None where it lacks one."""
        try:
            local = self.open_base(base.reference).host is None
            if not local:
                manifest = self._stored(base.digest)
                described = config_of(read_object(manifest, base.reference), base.reference) if manifest else None
                local = described is not None and self._stored(described.digest) is not None
            return self.fetch_base(base) if local else None
        except LayerbuildError as error:
            self.progress.note(error.brief)
            return None

    def _document(self, digest: str, fetch: Callable[[], bytes]) -> bytes:
        data = self._stored(digest)
        if data is None:
            data = fetch()
            self.store.add_blob([data])
        return data

    def _stored(self, digest: str) -> bytes | None:
        """A document that the store has, undamaged."""
        path = self.store.blob_path(digest)
        data = path.read_bytes() if path is not None else b""
        return data if f"sha256:{sha256_hex(data)}" == digest else None

    def inspect_base(self, base: LockedBase, paths: Sequence[str]) -> dict[str, Directory | None]:
        """The base's directories at `paths`.

        Raises:
            ProjectError: one of them is a file or a link there: a layer would replace it.
        """
        source = self.open_base(base.reference)
        with self.progress.task(f"look at the directories of {base.reference}"):
            found = directories(source, source.manifest(base.digest), paths)
        problems = []
        result: dict[str, Directory | None] = {}
        for path, what in found.items():
            if what is None or isinstance(what, Directory):
                result[path] = what
            else:
                leads = f" to {what.target}" if what.target else ""
                message = f"/{path} is a {what.type}{leads} there, and a layer needs it as a directory"
                hint = "name the directory that it leads to, choose another place, or use another base"
                problems.append(Problem(file=base.reference, message=message, hint=hint))
        if problems:
            raise ProjectError(problems)
        return result

    # --- the lock, written -------------------------------------------------------------------------

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """One writer of this project's lock at a time, across processes."""
        name = sha256_hex(os.fsencode(self.root.resolve()))[:32]
        (self.store.root / "locks").mkdir(exist_ok=True)
        with (self.store.root / "locks" / name).open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.progress.note("waiting for another layerbuild that writes this project's lock")
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def record(
        self, builder: Builder, built: Sequence[BuiltImage], *, frozen: bool | None, receipts_out: str | None = None
    ) -> bool:
        """Add receipts and facts to the lock, unless nothing was built, or it is frozen (None: where the environment
        says `CI`). Returns whether a byte changed.

        With `receipts_out`, the lock with these receipts is written to that file, too.

        The lock is read anew: another process may have added to it meanwhile.
        """
        if receipts_out is not None and built:
            locktext.write(Path(receipts_out), builder.record(built))
        if frozen is None:
            frozen = frozen_by_default(self.environ)
        if frozen or not built:
            return False
        with self.writing():
            now = self.lock()
            if (now.layers, now.unlocked) != (builder.lock.layers, builder.lock.unlocked):
                self.progress.note("the lock was changed meanwhile: receipts stay in the store, and out of it")
                return False
            receipts = {**now.receipts, **builder.lock.receipts}
            images, indexes = {**builder.lock.images, **now.images}, {**builder.lock.indexes, **now.indexes}
            builder.lock = replace(builder.lock, receipts=receipts, images=images, indexes=indexes)
            recorded = builder.record(built)
            return recorded != now and locktext.write(self.project.lockfile, recorded)


def frozen_by_default(environ: Mapping[str, str]) -> bool:
    """In CI the lock is left alone."""
    return environ.get("CI", "").lower() not in ("", "0", "false")
