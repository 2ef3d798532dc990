"""Contents by their digests: from the store, a local file or the source that the lock names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar, cast

from layerbuild.errors import ContentMismatch, LockError
from layerbuild.lockmodel import Lock
from layerbuild.model import Content, Pin, PinnedFile, PinRequest, sha256_hex
from layerbuild.progress import Progress
from layerbuild.sources import Context, source_for
from layerbuild.store import Store
from layerbuild.webui.safetensors import MAX_HEADER, PREFIX

if TYPE_CHECKING:
    from layerbuild.sources.git import GitSource

T = TypeVar("T")
R = TypeVar("R")
PARALLEL = 4


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a content can be had: a file of a pin. `name` is for people."""

    name: str
    pin: Pin
    file: PinnedFile


class Contents:
    """What the lock pins, on demand. Safe to share between threads."""

    def __init__(self, store: Store, context: Context, lock: Lock, progress: Progress) -> None:
        self.store = store
        self._context = context
        self._progress = progress
        self._origins: dict[str, Origin] = {}
        self._names: dict[str, list[str]] = {}
        self._trees: dict[str, tuple[str, Pin]] = {}
        self._sizes = {sha256: facts.size for sha256, facts in lock.files.items()}
        self._headers = {f.header_sha256: (sha256, f.header_size or 0) for sha256, f in lock.files.items()}
        for name, layer in lock.layers.items():
            for pin in layer.pins.values():
                self._names.setdefault(pin.source, []).append(name)
                if pin.listing:
                    self._trees[pin.listing] = (name, pin)
                for file in pin.files:
                    self._origins.setdefault(file.content.id, Origin(name=name, pin=pin, file=file))

    # --- what kinds ask (kinds.base.Knowledge) -----------------------------------------------------

    def size(self, content: Content) -> int | None:
        """Bytes of a content: by its pin, the lock's facts, or what the store has seen."""
        if content.size is not None:
            return content.size
        origin = self._origins.get(content.id)
        if origin is not None and origin.file.content.size is not None:
            return origin.file.content.size
        known = self._sizes.get(content.sha256 or "")
        return known if known is not None else self.store.size(content)

    def document(self, sha256: str) -> bytes:
        """A git listing or a safetensors header, fetched again if it is not in the store."""
        content = Content(size=None, sha256=sha256)
        if not self.store.has(content):
            self._fetch_document(sha256)
        return self.store.document(sha256)

    # --- bytes ---------------------------------------------------------------------------------------

    def open(self, content: Content, offset: int = 0) -> Iterator[bytes]:
        """Bytes of a content that `ensure` has seen to."""
        return self.store.open(content, offset)

    def missing(self, contents: Iterable[Content]) -> list[Content]:
        """Those that are not on this machine, each once."""
        unique = {content.id: content for content in contents}
        return [content for content in unique.values() if not self.store.has(content)]

    def ensure(self, contents: Iterable[Content]) -> None:
        """Fetch what is missing, several at a time.

        Raises:
            SourceError: something cannot be had, or is not what was pinned.
            LockError: the lock does not say where it comes from.
        """
        origins = [self._origin(content) for content in self.missing(contents)]
        local: dict[str, list[Origin]] = {}
        for origin in origins:
            if origin.pin.source.startswith("file:"):
                local.setdefault(origin.pin.source, []).append(origin)
        jobs = [partial(self._look_at_local, wanted) for wanted in local.values()]
        jobs += [partial(self._fetch, origin) for origin in origins if not origin.pin.source.startswith("file:")]
        in_threads(lambda job: job(), jobs)

    def ensure_tree(self, listing: str, blobs: Sequence[Content]) -> None:
        """The blobs of a git tree, from one git process."""
        missing = self.missing(blobs)
        if not missing:
            return
        name, pin = self._tree(listing)
        with self._progress.task(f"git {name}", sum(c.size or 0 for c in missing)) as task:
            for content, chunks in self._git(pin).open_many(pin, missing):
                self.store.add(chunks, content, name=f"a file of {pin.source}", advance=task.advance)

    def _origin(self, content: Content) -> Origin:
        origin = self._origins.get(content.id)
        if origin is None:
            raise LockError(
                f"the lock does not say where {content.id} comes from",
                hint="run 'layerbuild lock', and review the change",
            )
        return origin

    def _fetch(self, origin: Origin) -> None:
        source = source_for(origin.pin.source, self._context)
        file = origin.file
        size = self.size(file.content)
        with self._progress.task(f"fetch {origin.name} {file.path}", size) as task:
            self.store.add(
                source.open(origin.pin, file),
                replace(file.content, size=size),
                name=f"{origin.name} ({file.path})",
                advance=task.advance,
                scan_header=file.path.lower().endswith(".safetensors"),
            )

    def _look_at_local(self, origins: Sequence[Origin]) -> None:
        """Local files are used where they lie: seeing that they are the pinned ones is all there is to do.

        Args:
            origins: of one source, a file or a directory.
        """
        uri = origins[0].pin.source
        found = source_for(uri, self._context).resolve(PinRequest(uri=uri))
        by_path = {file.path: file.content for file in found.files}
        for origin in origins:
            now = by_path.get(origin.file.path)
            if now is None or now.sha256 != origin.file.content.sha256:
                updates = " ".join(f"--update {name}" for name in self._names[uri])
                raise ContentMismatch(
                    f"{origin.name}: {uri} ({origin.file.path}) has changed since it was locked",
                    cause=f"its sha256 is {now.sha256 if now else 'unknown'}, locked is {origin.file.content.sha256}",
                    hint=f"run 'layerbuild lock {updates}' if that is right",
                )

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
        if self.store.has(content):
            return read_exactly(self.store.open(content, offset), length)
        origin = self._origin(content)
        source = source_for(origin.pin.source, self._context)
        return read_exactly(source.open(origin.pin, origin.file, offset=offset, length=length), length)

    def _tree(self, listing: str) -> tuple[str, Pin]:
        if listing not in self._trees:
            raise LockError(
                f"the lock does not say where the tree {listing[:16]} comes from", hint="run 'layerbuild lock'"
            )
        return self._trees[listing]

    def _git(self, pin: Pin) -> GitSource:
        return cast("GitSource", source_for(pin.source, self._context))


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


def in_threads(work: Callable[[T], R], items: Sequence[T], *, parallel: int = PARALLEL) -> list[R]:
    """`work` on every item, several at a time, results in order. The first failure ends it.

    An interrupt does not wait for what is under way: nothing there is visible before it is complete.

    Raises:
        LayerbuildError: the first failure.
    """
    if not items:
        return []
    pool = ThreadPoolExecutor(max_workers=min(parallel, len(items)))
    futures = [pool.submit(work, item) for item in items]
    try:
        for future in as_completed(futures):
            future.result()
    except KeyboardInterrupt:
        pool.shutdown(cancel_futures=True, wait=False)
        raise
    except BaseException:
        pool.shutdown(cancel_futures=True)
        raise
    pool.shutdown()
    return [future.result() for future in futures]
