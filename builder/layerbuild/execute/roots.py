"""What locks need of a store: the roots of garbage collection."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from layerbuild import lockparse, locktext
from layerbuild.errors import LayerbuildError, LockError, SourceError
from layerbuild.execute.wheelhouse import listing_name
from layerbuild.lockmodel import Lock, key_of_line
from layerbuild.model import Content, Pin
from layerbuild.registry.manifests import config_of, read_object
from layerbuild.sources import git
from layerbuild.store import Store
from layerbuild.store.inventory import Inventory
from layerbuild.store.local import Marks
from layerbuild.wheels import inspection

_KEY_DIGITS = 16
"""Of a layer's key, in the list of an image."""


@dataclass(frozen=True, kw_only=True)
class Roots:
    """Locks that keep things in a store.

    Attributes:
        locks: by the path of their file.
        gone: locks of projects that used the store, which are not there any more.
        unreadable: locks of projects that used the store, of which nobody knows what they need.
        marks: by which it shows that a lock was written since, came or went.
    """

    locks: Mapping[Path, Lock]
    gone: tuple[Path, ...]
    unreadable: Mapping[Path, LockError]
    marks: Mapping[Path, Marks | None]

    def unchanged(self, store: Store, named: Sequence[Path]) -> bool:
        """Whether no lock was written since they were read, neither of these nor of another project."""
        return all(self.marks.get(path) == found for path, found in _marks(store, named).items())


def read_roots(store: Store, named: Sequence[Path] = (), *, cutoff_ns: int, forget: Sequence[Path] = ()) -> Roots:
    """The locks of the projects that used the store, and those that the user names besides.

    Args:
        cutoff_ns: a project that used the store since then may be about to write its first lock. Nanoseconds since
            1970.
        forget: locks that do not count as those of projects.

    Raises:
        LockError: one that was named is not there, or cannot be read.
    """
    locks: dict[Path, Lock] = {}
    gone: list[Path] = []
    unreadable: dict[Path, LockError] = {}
    seen = _marks(store, named)
    for path, used in store.projects().items():
        if path in forget:
            continue
        try:
            lock = _read(path)
            if lock is None:
                _expect_mounted(path, store.mount_of(path))
        except LockError as error:
            unreadable[path] = error
            continue
        if lock is not None:
            locks[path] = lock
        elif used * 1e9 < cutoff_ns:
            gone.append(path)
    for path in named:
        lock = _read(path.resolve())
        if lock is None:
            raise LockError(f"there is no lock at {path}", hint="name a lockfile.yaml after --root")
        locks[path.resolve()] = lock
    return Roots(locks=locks, gone=tuple(gone), unreadable=unreadable, marks=seen)


def _marks(store: Store, named: Sequence[Path]) -> dict[Path, Marks | None]:
    found: dict[Path, Marks | None] = {}
    for path in (*store.projects(), *(path.resolve() for path in named)):
        found[path] = None
        with contextlib.suppress(OSError):
            found[path] = Marks.of(path.stat())
    return found


_LEAVE_OUT = "'layerbuild gc --forget DIR' if that project is not needed any more"


def _read(path: Path) -> Lock | None:
    try:
        text = locktext.read_text(path)
        return None if text is None else lockparse.parse(text, str(path))
    except LayerbuildError as error:
        raise LockError(
            f"nobody knows what {path} needs of the store: it cannot be read",
            cause=error.brief,
            hint=f"mend it, or run {_LEAVE_OUT}",
        ) from None


def _expect_mounted(path: Path, mount: Path | None) -> None:
    if mount is not None and not os.path.ismount(mount):
        raise LockError(
            f"nobody knows what {path} needs of the store: it is not there",
            cause=f"it was on a disk at {mount}, which is not mounted now",
            hint=f"mount it, or run {_LEAVE_OUT}",
        )


class Needs:
    """Finds out what locks need; what is asked of the store for all of them is asked once."""

    def __init__(self, store: Store, inventory: Inventory) -> None:
        self._store = store
        self._inventory = inventory
        self._git_blobs = {str(blob): str(sha256) for blob, sha256 in _rows(store, "git_blob, sha256", "git_blobs")}
        self._bytecode: dict[str, list[str]] = {}
        for source, sha256 in _rows(store, "source, sha256", "bytecode"):
            if sha256:
                self._bytecode.setdefault(str(source), []).append(str(sha256))
        joined = "receipts JOIN blobs USING (diff_id)"
        self._blobs = [(str(key), str(digest)) for key, digest in _rows(store, "receipts.key, blobs.digest", joined)]

    def of(self, lock: Lock, project: Path) -> frozenset[str]:
        """Ids of items, see `care.Item.id`.

        Args:
            project: directory that relative addresses are relative to.
        """
        files: set[str] = set()
        found: set[str] = set()
        for layer in lock.layers.values():
            for pin in layer.pins.values():
                files.update(self._pinned(pin))
                found.update(f"partial:{file.content.id.replace(':', '-')}" for file in pin.files)
                if pin.tree is not None:
                    found.update(f"git:{name}" for name in _repositories(pin, project))
        files.update(self._headers(files | set(lock.files), lock))
        files.update([code for source in self._sources(files) for code in self._bytecode.get(source, ())])
        found.update(f"file:{sha256}" for sha256 in files)
        found.update(f"blob:{digest.removeprefix('sha256:')}" for digest in self._layers(lock))
        return frozenset(found)

    def _pinned(self, pin: Pin) -> Iterator[str]:
        contents = [file.content for file in pin.files]
        if pin.listing is not None:
            yield pin.listing
            contents += _listed(self._inventory.document(pin.listing))
        for content in contents:
            sha256 = content.sha256 or self._git_blobs.get(content.git_blob or "")
            if sha256 is not None:
                yield sha256

    def _headers(self, files: Iterable[str], lock: Lock) -> Iterator[str]:
        """Documents about files: safetensors headers that are too long for a lock, listings of wheels."""
        for sha256 in files:
            for facts in (lock.files.get(sha256), self._store.facts(sha256)):
                if facts is not None and facts.header_sha256 is not None:
                    yield facts.header_sha256
            listing = self._store.derived(listing_name(sha256))
            if listing is not None:
                yield listing

    def _sources(self, files: Iterable[str]) -> Iterator[str]:
        """Files that may have bytecode: these, and those in wheels among them."""
        for sha256 in files:
            yield sha256
            listing = self._store.derived(listing_name(sha256))
            data = None if listing is None else self._inventory.document(listing)
            if data is not None:
                yield from (file.sha256 for file in inspection.from_document(data).files.values())

    def _layers(self, lock: Lock) -> Iterator[str]:
        """Digests of compressed layers, and of the documents of base images."""
        for receipt in lock.receipts.values():
            yield from (blob.digest for blob in receipt.blobs)
        used = {key_of_line(line) for image in lock.images.values() for line in image.layers}
        used.update(key[:_KEY_DIGITS] for key in lock.receipts)
        yield from (digest for key, digest in self._blobs if key[:_KEY_DIGITS] in used)
        for base in (image.base for image in lock.images.values() if image.base is not None):
            yield base.digest
            manifest = self._inventory.blob(base.digest.removeprefix("sha256:"))
            # Of what is no manifest, nobody has fetched a config.
            with contextlib.suppress(SourceError):
                if manifest is not None:
                    yield config_of(read_object(manifest, base.reference), base.reference).digest


def _rows(store: Store, columns: str, tables: str) -> list[tuple[object, ...]]:
    return store.query(f"SELECT {columns} FROM {tables}")  # noqa: S608  # no input in it


def _repositories(pin: Pin, project: Path) -> list[str]:
    try:
        return git.cache_names(pin, project)
    except SourceError:
        # No address that this layerbuild would read: then it has no copy either.
        return []


def _listed(document: bytes | None) -> list[Content]:
    """Blobs of a git tree, by its listing."""
    try:
        value = json.loads(document or b"[]")
    except (ValueError, RecursionError):
        value = None
    # A lock may name anything as a listing.
    items = value if isinstance(value, list) else ()
    return [Content(size=None, git_blob=str(item.get("blob"))) for item in items if isinstance(item, dict)]
