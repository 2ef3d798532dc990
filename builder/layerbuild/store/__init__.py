"""This machine's cache: files by sha256, compressed blobs by digest, receipts and facts in SQLite.

Files enter through a temporary name and a rename, so that whatever lies under its digest is whole.
Local files are not copied: the store remembers where they lie and by which marks they are the same
(device, inode, size, mtime, ctime). Everything here can be deleted; it only costs time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

from layerbuild.digests import CHUNK, Digester, GitBlob, SafetensorsScan, feed
from layerbuild.errors import Damaged, LockError, StoreError
from layerbuild.model import Content, Facts, sha256_hex
from layerbuild.store.database import Database
from layerbuild.store.disk import Disk
from layerbuild.store.local import LocalFiles
from layerbuild.store.reading import Advance, compare, damaged, drain, limited, read, size_of, unreadable


class Store(Database):
    """The cache at `root`. Safe to share between threads, and between processes.

    Raises:
        StoreError: `root` cannot be used.
    """

    def __init__(self, root: Path) -> None:
        self._disk = Disk(root)
        super().__init__(root)
        self._local_files = LocalFiles(self)

    # --- files ---------------------------------------------------------------------------------

    def sha256_of(self, content: Content) -> str | None:
        """sha256 of a content that may be named by its git blob only; None if nobody knows."""
        if content.sha256 is not None:
            return content.sha256
        rows = self.query("SELECT sha256 FROM git_blobs WHERE git_blob = ?", content.git_blob)
        return str(rows[0][0]) if rows else None

    def has(self, content: Content) -> bool:
        """Whether the bytes are on this machine, in the store or where a local file lies unchanged."""
        sha256 = self.sha256_of(content)
        return sha256 is not None and (self._disk.file(sha256).exists() or self._local_files.path(sha256) is not None)

    def size(self, content: Content) -> int | None:
        """Bytes of a content, if anybody ever told."""
        if content.size is not None:
            return content.size
        if content.git_blob is not None:
            rows = self.query("SELECT size FROM git_blobs WHERE git_blob = ?", content.git_blob)
            if rows:
                return int(str(rows[0][0]))
        facts = self.facts(content.sha256) if content.sha256 else None
        return facts.size if facts else None

    def open(self, content: Content, offset: int = 0) -> Iterator[bytes]:
        """The bytes from `offset` on, in chunks of `CHUNK`.

        Raises:
            StoreError: they are not on this machine, or cannot be read.
            ContentMismatch: a local file changed since it was looked at.
        """
        sha256 = self.sha256_of(content)
        if sha256 is not None:
            stored = self._disk.file(sha256)
            if stored.exists():
                return self._read_stored(stored, sha256, offset)
            local = self._local_files.path(sha256)
            if local is not None:
                return self._local_files.read(local, sha256, offset)
        raise StoreError(f"{content.id} is not in the store", hint="run the command again: it will be fetched")

    def file(self, content: Content) -> BinaryIO:
        """The bytes as an open file, not verified: the store's own, or where a local file lies.

        Raises:
            StoreError: they are not on this machine, or cannot be read.
        """
        sha256 = self.sha256_of(content) or ""
        stored = self._disk.file(sha256)
        path = stored if stored.exists() else self._local_files.path(sha256)
        if path is None:
            raise StoreError(f"{content.id} is not in the store", hint="run the command again: it will be fetched")
        try:
            return path.open("rb")
        except OSError as error:
            raise unreadable(path, error) from None

    def _read_stored(self, path: Path, sha256: str, offset: int) -> Iterator[bytes]:
        if size_of(path) > CHUNK:
            return read(path, offset)
        data = b"".join(read(path, 0))
        if sha256_hex(data) != sha256:
            path.unlink(missing_ok=True)
            raise damaged(path)
        return iter([data[offset:]] if data[offset:] else [])

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
        whole = hashlib.sha256()
        git = GitBlob(expected.size) if expected.git_blob and expected.size is not None else None
        digesters: list[Digester] = [whole, *(d for d in (git, scan) if d is not None)]
        large = expected.size is None or expected.size > CHUNK
        passed = feed(limited(chunks, expected, name), digesters, threads=large)
        # git's digest begins with the size: where nobody knows that, the bytes are read again at the end.
        nameless = expected.git_blob is not None and git is None
        temporary = self._disk.temporary() if keep or nameless else None
        size = 0
        try:
            for chunk in passed if temporary is None else self._disk.written(temporary, passed):
                size += len(chunk)
                yield chunk
            if nameless and temporary is not None:
                git = GitBlob(size)
                for chunk in read(temporary, 0):
                    git.update(chunk)
            content = Content(size=size, sha256=whole.hexdigest(), git_blob=git.hexdigest() if git else None)
            compare(content, expected, name)
            if temporary is not None:
                self._disk.keep(temporary, self._disk.file(content.sha256 or ""))
            if content.git_blob is not None:
                values = (content.git_blob, content.sha256, size)
                self.query("INSERT OR REPLACE INTO git_blobs VALUES (?, ?, ?)", *values)
            self._learn(content, scan)
            return content
        finally:
            if temporary is not None:
                temporary.unlink(missing_ok=True)

    def arriving_local(
        self, path: Path, expected: Content, *, name: str, scan: SafetensorsScan | None = None
    ) -> Generator[bytes, None, Content]:
        """Passes the bytes of a file outside the store on, and remembers where they lie. See `arriving`.

        Raises:
            ContentMismatch: it is not what was expected; where it lies is remembered all the same.
            StoreError: it cannot be read.
        """
        content = yield from self._local_files.passing(path.resolve(), scan)
        self._learn(content, scan)
        compare(content, expected, name)
        return content

    def locked(self, content: Content, waiting: Callable[[], None]) -> AbstractContextManager[None]:
        """Holds a content against everybody else who would bring it here; see `Disk.locked`."""
        return self._disk.locked(content.id, waiting)

    def _learn(self, content: Content, scan: SafetensorsScan | None) -> None:
        assert content.sha256 is not None and content.size is not None
        if scan is None:
            self.put_facts(content.sha256, Facts(size=content.size, git_blob=content.git_blob))
            return
        facts = scan.facts(content.size, content.git_blob)
        self.put_facts(content.sha256, facts)
        if facts.safetensors and scan.header is not None and facts.metadata is None:
            self.add_document(scan.header)

    def verified(self, content: Content, scan: SafetensorsScan | None = None) -> Generator[bytes, None, Content]:
        """Passes the bytes of a content that is here on, and holds them against their name.

        A receipt made from bytes that a disk has changed would be wrong for ever.

        Args:
            scan: learns the safetensors facts.

        Raises:
            Damaged: they are not what they were; they are forgotten.
            LockError: they are right, and of another size than `content` says.
            StoreError: they cannot be read.
        """
        sha256 = self.sha256_of(content) or ""
        whole, size = hashlib.sha256(), 0
        digesters: list[Digester] = [whole] if scan is None else [whole, scan]
        for chunk in feed(self.open(content), digesters, threads=(content.size or 0) > CHUNK):
            size += len(chunk)
            yield chunk
        if whole.hexdigest() != sha256:
            self.discard(sha256)
            raise Damaged(
                f"{content.id} is damaged on this machine",
                cause=f"its bytes have sha256 {whole.hexdigest()}; the store has forgotten it",
                hint="run the command again: it will be fetched, or the local file looked at anew",
            )
        if content.size is not None and size != content.size:
            raise LockError(
                f"{content.id} has {size} bytes, the lock says {content.size}",
                cause="the lock was edited by hand",
                hint="restore it from git, or take the pin anew with 'layerbuild lock --update NAME'",
            )
        found = Content(size=size, sha256=sha256)
        if scan is not None:
            self._learn(found, scan)
        return found

    def discard(self, sha256: str) -> None:
        """Forget a content that turned out to be damaged: the copy here, and where it lies elsewhere."""
        self._disk.file(sha256).unlink(missing_ok=True)
        self._local_files.forget(sha256)

    def local_content(self, path: Path) -> Content | None:
        """What a file outside the store holds, if that is known without reading it.

        Raises:
            StoreError: it cannot be looked at.
        """
        return self._local_files.known(path.resolve())

    def hash_local(self, path: Path, advance: Advance = lambda _: None) -> Content:
        """sha256 and size of a file where it lies; read only if it changed since it was last read.

        Its safetensors facts are learnt in the same pass.

        Raises:
            StoreError: it cannot be read.
            ContentMismatch: it changed while it was read.
        """
        content, scan = self._local_files.hash(path, advance)
        if scan is not None:
            self._learn(content, scan)
        return content

    # --- documents, blobs ------------------------------------------------------------------------

    def add_document(self, data: bytes) -> str:
        """Keep a small text; returns its sha256."""
        content = Content(size=len(data), sha256=sha256_hex(data))
        if not self._disk.file(content.sha256 or "").exists():
            self.add([data], content, name="document", advance=lambda _: None)
        return content.sha256 or ""

    def document(self, sha256: str) -> bytes:
        """A small text by its digest.

        Raises:
            StoreError: it is not here, or was damaged.
        """
        data = b"".join(self.open(Content(size=None, sha256=sha256)))
        if sha256_hex(data) != sha256:
            self.discard(sha256)
            raise damaged(self._disk.file(sha256))
        return data

    def blob_path(self, digest: str) -> Path | None:
        """Where a compressed blob lies, None if it is not here."""
        path = self._disk.blob(digest)
        return path if path.exists() else None

    def open_blob(self, digest: str, offset: int = 0) -> Iterator[bytes]:
        """A compressed blob's bytes from `offset` on.

        Raises:
            StoreError: it cannot be read; or, after the last byte of a whole one, it was damaged and is gone.
        """
        path, whole = self._disk.blob(digest), hashlib.sha256()
        for chunk in read(path, offset):
            whole.update(chunk)
            yield chunk
        if not offset and f"sha256:{whole.hexdigest()}" != digest:
            path.unlink(missing_ok=True)
            raise damaged(path)

    def add_blob(self, chunks: Iterable[bytes]) -> tuple[str, int]:
        """Keep a blob; returns its digest and its size in bytes."""
        temporary = self._disk.temporary()
        try:
            whole = hashlib.sha256()
            size = sum(len(chunk) for chunk in self._disk.written(temporary, feed(chunks, [whole], threads=False)))
            digest = f"sha256:{whole.hexdigest()}"
            self._disk.keep(temporary, self._disk.blob(digest))
            return digest, size
        finally:
            temporary.unlink(missing_ok=True)
