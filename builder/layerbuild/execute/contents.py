"""Contents by their digests: from the store, a local file or the source that the lock names."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from layerbuild.digests import SafetensorsScan
from layerbuild.errors import ContentMismatch, Damaged, LockError, SourceError
from layerbuild.execute.bytecode import Bytecode
from layerbuild.execute.origins import Origin, Origins
from layerbuild.execute.parallel import in_threads
from layerbuild.execute.wheelhouse import Wheelhouse
from layerbuild.formats import Formats
from layerbuild.lockmodel import Lock
from layerbuild.model import LARGE, Content, Pin, sha256_hex
from layerbuild.progress import Progress
from layerbuild.sources import Context, source_for
from layerbuild.sources.base import counted
from layerbuild.sources.file import FileSource
from layerbuild.store import Store
from layerbuild.store.reading import compare
from layerbuild.webui.modeltypes import is_safetensors
from layerbuild.webui.safetensors import MAX_HEADER, PREFIX, invalid

if TYPE_CHECKING:
    from layerbuild.sources.git import GitSource
    from layerbuild.wheels.inspection import Wheel


Passing = Generator[bytes, None, Content]
"""Bytes on their way; what they were comes at their end."""


class Contents:
    """What the lock pins, on demand. Safe to share between threads.

    Attributes:
        keep: what is fetched on the way stays in the store.
        wanted: sha256 of models whose facts an image waits for: learnt whenever their bytes pass by.
        formats: what contents must be, before a layer that holds them is accepted.
        compiler: makes bytecode of sources.
    """

    def __init__(self, store: Store, context: Context, lock: Lock, progress: Progress, *, keep: bool = True) -> None:
        self.store = store
        self.keep = keep
        self.wanted: frozenset[str] = frozenset()
        self.formats = Formats()
        self.compiler = Bytecode(store, progress, self.verified)
        self._context = context
        self._progress = progress
        self._origins = Origins(lock, context)
        self.wheelhouse = Wheelhouse(store)
        self._names: dict[str, list[str]] = {}
        self._trees: dict[str, tuple[str, Pin]] = {}
        self._sizes = {sha256: facts.size for sha256, facts in lock.files.items()}
        self._headers = {f.header_sha256: (sha256, f.header_size or 0) for sha256, f in lock.files.items()}
        for name, layer in lock.layers.items():
            for pin in layer.pins.values():
                self._names.setdefault(pin.source, []).append(name)
                if pin.listing:
                    self._trees[pin.listing] = (name, pin)

    # --- what kinds ask (kinds.base.Knowledge) -----------------------------------------------------

    def size(self, content: Content) -> int | None:
        """Bytes of a content: by its pin, the lock's facts, or what the store has seen."""
        if content.size is not None:
            return content.size
        for origin in self._origins.of(content):
            if origin.file.content.size is not None:
                return origin.file.content.size
        known = self._sizes.get(content.sha256 or "")
        return known if known is not None else self.store.size(content)

    def document(self, sha256: str) -> bytes:
        """A git listing or a safetensors header, fetched again if it is not in the store."""
        content = Content(size=None, sha256=sha256)
        if not self.store.has(content):
            self._fetch_document(sha256)
        return self.store.document(sha256)

    def wheel(self, sha256: str) -> Wheel:
        """What is in a wheel. It is fetched if nobody has looked into it on this machine.

        Raises:
            SourceError: it cannot be had, or is no wheel.
            StoreError, LockError: as `open`.
        """
        content = Content(size=None, sha256=sha256)
        pinned = self.origin(content).file
        return self.wheelhouse.wheel(pinned.content, pinned.path, lambda: self.ensure([content]))

    def at_hand(self, wheels: Iterable[str]) -> bool:
        """Whether somebody has looked into all of these wheels on this machine."""
        return all(self.wheelhouse.is_known(sha256) for sha256 in wheels)

    def bytecode(
        self, python: str, sources: Sequence[tuple[str, Content]], *, listing: str | None = None
    ) -> Mapping[str, Content]:
        """Bytecode of sources, made if it is not here. Sources are fetched for it.

        Raises:
            BytecodeError: there is nothing to compile with, or something cannot be compiled.
            SourceError, StoreError, LockError: a source cannot be had.
        """

        def fetch(contents: Sequence[Content]) -> None:
            if listing is not None:
                self.ensure_tree(listing, contents)
            else:
                self.ensure(contents)

        return self.compiler.of(python, sources, fetch)

    # --- bytes ---------------------------------------------------------------------------------------

    def open(self, content: Content, offset: int = 0) -> Iterator[bytes]:
        """Bytes of a content from `offset` on: from this machine, else from its source, in one pass with
        being stored. Those of this machine are not hashed: whoever reads them checks the whole.

        Raises:
            SourceError: they cannot be had, or are not what was pinned.
            StoreError: they cannot be read or kept.
            LockError: the lock does not say where they come from.
        """
        if self.wheelhouse.place(content):
            yield from _from(offset, self.verified(content))
            return
        if not offset and not self.store.has(content):
            yield from self._arriving(content)
            return
        if not self.store.has(content):
            if not self.keep:
                self.origin(content)
                yield from self._origins.open(self._origins.of(content), offset=offset)
                return
            self.ensure([content])
        yield from self.store.open(content, offset)

    def verified(self, content: Content, offset: int = 0) -> Iterator[bytes]:
        """The bytes of a content, held against its pin on the way, wherever they come from.

        Args:
            offset: 0; what begins elsewhere cannot be verified, and is read as by `open`.

        Raises:
            Damaged: this machine's copy is not what it was.
            SourceError, StoreError, LockError: as `open`.
        """
        if offset:
            yield from self.open(content, offset)
        elif (place := self.wheelhouse.place(content)) is not None:
            self.ensure([place.archive])
            yield from self.wheelhouse.read(place, content)
        elif self.store.has(content):
            yield from self._valid(content, lambda scan: self.store.verified(content, scan))
        else:
            yield from self._arriving(content)

    def missing(self, contents: Iterable[Content]) -> list[Content]:
        """Those that are not on this machine, each once; of what is part of an archive, the archive."""
        places = ((self.wheelhouse.place(content), content) for content in contents)
        unique = {(place.archive if place else c).id: place.archive if place else c for place, c in places}
        return [content for content in unique.values() if not self.store.has(content)]

    def learn(self, content: Content) -> None:
        """Read a model whose facts nobody has learnt while its bytes passed by; fetch it if it is not here.

        Raises:
            SourceError, StoreError, LockError: as `open`.
        """
        if not self.learnt(content):
            self._drain(lambda: self.verified(content), f"read {(content.sha256 or '')[:12]}", content.size)

    def learnt(self, content: Content) -> bool:
        """Whether all is known that can be learnt from a model."""
        facts = self.store.facts(content.sha256 or "")
        return facts is not None and (facts.safetensors is False or bool(facts.safetensors and facts.addnet))

    def ensure(self, contents: Iterable[Content]) -> None:
        """Fetch what is missing, several at a time.

        Raises:
            SourceError: something cannot be had, or is not what was pinned.
            LockError: the lock does not say where it comes from.
        """
        missing = self.missing(contents)
        for content in missing:
            self.origin(content)
        in_threads(self._fetch, missing)

    def ensure_small(self, contents: Iterable[Content]) -> None:
        """Fetch what is missing of the small files, where waiting for each would take longer than their bytes.
        Large ones are fetched while they are read. Raises as `ensure`."""
        self.ensure(content for content in contents if (self.size(content) or 0) < LARGE)

    def ensure_tree(self, listing: str, blobs: Sequence[Content]) -> None:
        """The blobs of a git tree, from one git process."""
        if not self.missing(blobs):
            return
        name, pin = self._tree(listing)
        with self._locked(Content(size=None, sha256=listing), name):
            missing = self.missing(blobs)
            with self._progress.task(f"git {name}", sum(c.size or 0 for c in missing)) as task:
                for content, chunks in self._git(pin).open_many(pin, missing):
                    arriving = counted(chunks, self._progress.tally)
                    self.store.add(arriving, content, name=f"a file of {pin.source}", advance=task.advance)

    def _locked(self, content: Content, what: str) -> AbstractContextManager[None]:
        return self.store.locked(content, lambda: self._progress.note(f"{what}: waiting for another run to fetch it"))

    def origin(self, content: Content) -> Origin:
        """Where a content can be had.

        Raises:
            LockError: the lock does not say.
        """
        return self._origins.first(content)

    def _fetch(self, content: Content) -> None:
        origin = self.origin(content)
        what = f"fetch {origin.name} {origin.file.path}"
        self._drain(lambda: self._arriving(content, keep=True), what, self.size(content))

    def _drain(self, opened: Callable[[], Iterator[bytes]], what: str, size: int | None) -> None:
        """Has the bytes pass by. What was damaged here is had anew, once."""
        try:
            self._count(opened(), what, size)
        except Damaged as error:
            self._progress.note(f"{error.message}: making it anew")
            self._count(opened(), what, size)

    def _count(self, chunks: Iterator[bytes], what: str, size: int | None) -> None:
        with self._progress.task(what, size) as task:
            for chunk in chunks:
                task.advance(len(chunk))

    def _arriving(self, content: Content, *, keep: bool | None = None) -> Iterator[bytes]:
        """All bytes of a content that is not here, from its source. Two that want the same share one download."""
        origin = self.origin(content)
        keep = self.keep if keep is None else keep
        what = f"{origin.name} ({origin.file.path})"
        if not keep:
            yield from self._from_source(content, what, keep=False)
            return
        with self._locked(content, what):
            if self.store.has(content):
                yield from self._valid(content, lambda scan: self.store.verified(content, scan))
            else:
                yield from self._from_source(content, what, keep=True)

    def _from_source(self, content: Content, what: str, *, keep: bool) -> Iterator[bytes]:
        origins = self._origins.of(content)
        source = self._origins.source(origins[0])
        if isinstance(source, FileSource):
            begun = False
            try:
                for chunk in self._from_file(origins[0], source):
                    begun = True
                    yield chunk
                return
            except SourceError:
                if begun or len(origins) == 1:
                    raise
            origins = origins[1:]
        expected = replace(origins[0].file.content, size=self.size(content))

        def opened(offset: int) -> Iterator[bytes]:
            return counted(self._origins.open(origins, offset=offset), self._progress.tally)

        def passing(scan: SafetensorsScan | None) -> Passing:
            if keep:
                return self.store.fetching(opened, expected, name=what, scan=scan)
            return self.store.arriving(opened(0), expected, name=what, scan=scan, keep=False)

        yield from self._valid(expected, passing)

    def _from_file(self, origin: Origin, source: FileSource) -> Iterator[bytes]:
        """Local files are used where they lie: seeing that they are the pinned ones is all there is to do."""
        path, pinned = source.locate(origin.pin, origin.file), origin.file.content
        try:
            known = self.store.local_content(path)
            if known is not None:
                compare(known, pinned, origin.name)
            yield from self._valid(
                pinned, lambda scan: self.store.arriving_local(path, pinned, name=origin.name, scan=scan)
            )
        except ContentMismatch as error:
            uri = origin.pin.source
            updates = " ".join(f"--update {name}" for name in self._names[uri])
            raise ContentMismatch(
                f"{origin.name}: {uri} ({origin.file.path}) has changed since it was locked",
                cause=error.cause,
                hint=f"run 'layerbuild lock {updates}' if that is right",
            ) from None

    def _valid(self, content: Content, passing: Callable[[SafetensorsScan | None], Passing]) -> Iterator[bytes]:
        """The bytes that `passing` gives. A model's facts are learnt on the way, the digest behind the header only
        where an image needs it.

        Raises:
            SourceError: at their end: they should be a safetensors file, and are none.
        """
        origin = next(iter(self._origins.of(content)), None)
        named = self.formats.safetensors.get(content.id)
        if named is None and origin is not None and is_safetensors(origin.file.path):
            named = f"{origin.name} ({origin.file.path})"
        wanted = content.sha256 in self.wanted
        scan = SafetensorsScan(addnet=wanted) if wanted or named else None
        found = yield from passing(scan)
        fault = scan.fault(found.size or 0) if scan is not None and named else None
        if named and fault:
            raise invalid(named, fault)

    def _fetch_document(self, sha256: str) -> None:
        if sha256 in self._trees:
            _, pin = self._tree(sha256)
            self.store.add_document(self._git(pin).listing(pin))
        elif sha256 in self._headers:
            file_sha256, size = self._headers[sha256]
            data = self.read_range(Content(size=None, sha256=file_sha256), PREFIX, min(size, MAX_HEADER))
            if sha256_hex(data) != sha256:
                raise ContentMismatch(
                    f"the safetensors header of {file_sha256[:16]} is not the one in the lock",
                    hint="run 'layerbuild lock', and review what it changes",
                )
            self.store.add_document(data)

    def read_range(self, content: Content, offset: int, length: int) -> bytes:
        """A few bytes of a content, from this machine or from its source; not verified.

        Raises:
            SourceError: they cannot be had.
        """
        place = self.wheelhouse.place(content)
        if self.store.has(content) or (place is not None and self.store.has(place.archive)):
            chunks = self.open(content, offset)
            return read_exactly(chunks, length)
        self.origin(content)
        return read_exactly(self._origins.open(self._origins.of(content), offset=offset, length=length), length)

    def _tree(self, listing: str) -> tuple[str, Pin]:
        if listing not in self._trees:
            raise LockError(
                f"the lock does not say where the tree {listing[:16]} comes from", hint="run 'layerbuild lock'"
            )
        return self._trees[listing]

    def _git(self, pin: Pin) -> GitSource:
        return cast("GitSource", source_for(pin.source, self._context))


def _from(offset: int, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """What follows after `offset` bytes."""
    for chunk in chunks:
        if offset < len(chunk):
            yield chunk[offset:]
        offset = max(0, offset - len(chunk))


def read_exactly(chunks: Iterator[bytes], length: int) -> bytes:
    """The first `length` bytes; fewer where there are fewer. Closes the iterator."""
    data = bytearray()
    for chunk in chunks:
        data += chunk[: length - len(data)]
        if len(data) >= length:
            break
    close = getattr(chunks, "close", None)
    if close is not None:
        close()
    return bytes(data)
