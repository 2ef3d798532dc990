"""Files within the wheels of the store.

A file is read where it lies, and held against the digest by which a layer wants it: nothing is ever unpacked to
disk. What is in a wheel is found out once, and kept as a document.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass

from layerbuild.errors import SourceError
from layerbuild.model import Content
from layerbuild.store import Store
from layerbuild.wheels import archive, inspection
from layerbuild.wheels.archive import Member
from layerbuild.wheels.inspection import Wheel


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a file lies: the archive that has it, its path there, and what the archive is called."""

    archive: Content
    path: str
    name: str


class Wheelhouse:
    """Archives of a store. Safe to share between threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._guard = threading.Lock()
        self._wheels: dict[str, Wheel] = {}
        self._places: dict[str, Place] = {}
        self._members: dict[str, Mapping[str, Member]] = {}

    def wheel(self, content: Content, filename: str, fetch: Callable[[], None]) -> Wheel:
        """What is in a wheel.

        Args:
            fetch: brings it into the store; asked only where nobody has looked into it yet.

        Raises:
            SourceError: it is no wheel, or cannot be had.
            StoreError: it cannot be read.
        """
        sha256 = content.sha256 or ""
        with self._guard:
            found = self._wheels.get(sha256)
        if found is None:
            found = self._looked_into(content, filename, fetch)
            with self._guard:
                self._wheels[sha256] = found
            files = {path: Content(size=file.size, sha256=file.sha256) for path, file in found.files.items()}
            self._placed(content, files, filename)
        return found

    def is_known(self, sha256: str) -> bool:
        """Whether somebody has looked into a wheel on this machine."""
        document = self._store.derived(listing_name(sha256))
        return document is not None and self._store.has(Content(size=None, sha256=document))

    def _looked_into(self, content: Content, filename: str, fetch: Callable[[], None]) -> Wheel:
        name = listing_name(content.sha256 or "")
        known = self._store.derived(name)
        if known is not None and self._store.has(Content(size=None, sha256=known)):
            return inspection.from_document(self._store.document(known))
        fetch()
        for _ in self._store.verified(content):
            pass
        with self._store.file(content) as file:
            wheel = inspection.inspect(file, filename)
        self._store.put_derived(name, self._store.add_document(wheel.document()))
        return wheel

    def _placed(self, archived: Content, files: Mapping[str, Content], name: str) -> None:
        with self._guard:
            for path, content in files.items():
                self._places.setdefault(content.id, Place(archive=archived, path=path, name=name))

    def place(self, content: Content) -> Place | None:
        """Where a file lies that is part of an archive; None for all others."""
        with self._guard:
            return self._places.get(content.id)

    def read(self, place: Place, content: Content) -> Generator[bytes, None, Content]:
        """Passes the bytes of a file on, and holds them against its digest. Its archive is in the store.

        Raises:
            Damaged: the archive is not what it was; it is forgotten.
            SourceError: whoever made the archive recorded another digest.
            StoreError: it cannot be read.
        """
        digest = hashlib.sha256()
        try:
            for chunk in self._chunks(place):
                digest.update(chunk)
                yield chunk
            if digest.hexdigest() == content.sha256:
                return content
            cause = f"its sha256 is {digest.hexdigest()}, RECORD says {content.sha256}"
        except SourceError as error:
            cause = error.brief
        for _ in self._store.verified(place.archive):
            pass
        raise SourceError(
            f"{place.path} of {place.name} is not what its RECORD says",
            cause=cause,
            hint="whoever made it must make it anew",
        )

    def _chunks(self, place: Place) -> Iterator[bytes]:
        what = f"{place.path} of {place.name}"
        with self._store.file(place.archive) as file:
            sha256 = place.archive.sha256 or ""
            with self._guard:
                members = self._members.get(sha256)
            if members is None:
                members = archive.members(file, what=place.name)
                with self._guard:
                    self._members[sha256] = members
            yield from archive.read(file, members[place.path], what=what)


def listing_name(sha256: str) -> str:
    """Under which the store remembers what is in a wheel; see `Database.derived`."""
    return f"wheel {inspection.REVISION} {sha256}"
