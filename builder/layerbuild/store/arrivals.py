"""What comes into the store: passed on, hashed and written in one pass, and kept only if it is what was expected.

What is fetched and breaks off stays as a beginning, `partial/ID`, from which the next run goes on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path

from layerbuild.digests import CHUNK, Digester, GitBlob, SafetensorsScan, feed
from layerbuild.errors import ContentMismatch, Damaged
from layerbuild.model import Content, Facts, sha256_hex
from layerbuild.store.database import Database
from layerbuild.store.disk import Disk
from layerbuild.store.reading import Advance, compare, drain, limited, read
from layerbuild.store.usage import Usage

NAMED = 1024 * 1024
"""Bytes from which on it is remembered what a content was called."""


class Arrivals(Database):
    """The part of a store that takes files in.

    Raises:
        StoreError: `root` cannot be used.
    """

    def __init__(self, root: Path) -> None:
        self._disk = Disk(root)
        super().__init__(root)

    @property
    def usage(self) -> Usage:
        """Who uses the store: this one."""
        return self._disk.usage

    def close(self) -> None:
        """See `Database.close`."""
        super().close()
        self._disk.usage.leave()

    def add(
        self, chunks: Iterable[bytes], expected: Content, *, name: str, advance: Advance, scan_header: bool = False
    ) -> Content:
        """Take `chunks` in, if they are what was expected. See `arriving`.

        Args:
            advance: is told how many bytes came.
            scan_header: learn the safetensors facts too.

        Returns:
            The content, with sha256 and size.
        """
        scan = SafetensorsScan() if scan_header else None
        return drain(self.arriving(chunks, expected, name=name, scan=scan), advance)

    def arriving(
        self,
        chunks: Iterable[bytes],
        expected: Content,
        *,
        name: str,
        scan: SafetensorsScan | None = None,
        keep: bool = True,
    ) -> Generator[bytes, None, Content]:
        """Passes `chunks` on as they come, and takes them in. Facts are learnt in the same pass.

        Whoever is given the bytes must not believe them before the end: only then are they known to be
        what was expected.

        Args:
            expected: size and digests, as far as they are known.
            name: of the file, for messages.
            scan: learns the safetensors facts.
            keep: a copy in the store; else only what was learnt stays.

        Returns:
            The content, with sha256 and size.

        Raises:
            ContentMismatch: size or digest differ; nothing is kept.
            StoreError: the disk is full or fails; nothing is kept.
        """
        # git's digest begins with the size: where nobody knows that, the bytes are read again at the end.
        nameless = expected.git_blob is not None and expected.size is None
        temporary = self._disk.temporary() if keep or nameless else None
        try:
            content = yield from self._taken(chunks, expected, name=name, scan=scan, path=temporary)
            if temporary is not None:
                self._disk.keep(temporary, self._disk.file(content.sha256 or ""))
                self._name(content, name)
            self._learn(content, scan)
            return content
        finally:
            if temporary is not None:
                temporary.unlink(missing_ok=True)

    def fetching(
        self,
        opened: Callable[[int], Iterator[bytes]],
        expected: Content,
        *,
        name: str,
        scan: SafetensorsScan | None = None,
    ) -> Generator[bytes, None, Content]:
        """As `arriving`; and where the bytes break off, what came stays. The next one, in another process too, goes
        on from there: the beginning is read and hashed again. The caller holds the content (`locked`).

        Args:
            opened: gives the bytes from an offset on.

        Raises:
            Damaged: what an earlier run left was not the beginning of it, and is removed.
            ContentMismatch: size or digest differ; nothing is kept.
            StoreError: the disk is full or fails.
        """
        with self._disk.partial(expected.id, expected.size) as (path, held):
            try:
                chunks = _continued(path, held, opened)
                content = yield from self._taken(chunks, expected, name=name, scan=scan, path=path, held=held)
            except ContentMismatch as error:
                path.unlink(missing_ok=True)
                if not held:
                    raise
                raise Damaged(
                    f"what an earlier run kept of {name} is of no use, and has been removed",
                    cause=error.cause or error.message,
                    hint="run the command again: it will be fetched from the start",
                ) from None
            self._disk.keep(path, self._disk.file(content.sha256 or ""))
        self._name(content, name)
        self._learn(content, scan)
        return content

    def _taken(
        self,
        chunks: Iterable[bytes],
        expected: Content,
        *,
        name: str,
        scan: SafetensorsScan | None,
        path: Path | None,
        held: int = 0,
    ) -> Generator[bytes, None, Content]:
        """Passes `chunks` on, held against what was expected, and written to `path`, which has `held` bytes already."""
        whole = hashlib.sha256()
        git = GitBlob(expected.size) if expected.git_blob and expected.size is not None else None
        digesters: list[Digester] = [whole, *(d for d in (git, scan) if d is not None)]
        large = expected.size is None or expected.size > CHUNK
        passed = feed(limited(chunks, expected, name), digesters, threads=large)
        size = 0
        for chunk in passed if path is None else self._disk.written(path, passed, held=held):
            size += len(chunk)
            yield chunk
        if git is None and expected.git_blob is not None and path is not None:
            git = GitBlob(size)
            for chunk in read(path, 0):
                git.update(chunk)
        content = Content(size=size, sha256=whole.hexdigest(), git_blob=git.hexdigest() if git else None)
        compare(content, expected, name)
        if content.git_blob is not None:
            values = (content.git_blob, content.sha256, size)
            self.query("INSERT OR REPLACE INTO git_blobs VALUES (?, ?, ?)", *values)
        return content

    def _name(self, content: Content, name: str) -> None:
        if (content.size or 0) >= NAMED:
            self.remember_name(content.sha256 or "", name)

    def _learn(self, content: Content, scan: SafetensorsScan | None) -> None:
        assert content.sha256 is not None and content.size is not None
        if scan is None:
            self.put_facts(content.sha256, Facts(size=content.size, git_blob=content.git_blob))
            return
        facts = scan.facts(content.size, content.git_blob)
        self.put_facts(content.sha256, facts)
        if facts.safetensors and scan.header is not None and facts.metadata is None:
            self.add_document(scan.header)

    def add_document(self, data: bytes) -> str:
        """Keep a small text; returns its sha256."""
        content = Content(size=len(data), sha256=sha256_hex(data))
        if not self._disk.present(self._disk.file(content.sha256 or "")):
            self.add([data], content, name="document", advance=lambda _: None)
        return content.sha256 or ""


def _continued(path: Path, held: int, opened: Callable[[int], Iterator[bytes]]) -> Iterator[bytes]:
    """The first `held` bytes from `path`, the others from where they are fetched."""
    if held:
        yield from read(path, 0)
    yield from opened(held)
