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

from layerbuild.digests import CHUNK, Digester, SafetensorsScan, feed
from layerbuild.errors import Damaged, LockError, StoreError
from layerbuild.model import Content, sha256_hex
from layerbuild.store.arrivals import Arrivals
from layerbuild.store.local import LocalFiles
from layerbuild.store.reading import Advance, compare, damaged, read, size_of, unreadable


class Store(Arrivals):
    """The cache at `root`. Safe to share between threads, and between processes.

    Raises:
        StoreError: `root` cannot be used.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._local_files = LocalFiles(self)

    def present(self, path: Path) -> bool:
        """Whether there is such a file of the store; if so, it stays as long as the store is open."""
        return self._disk.present(path)

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
        return sha256 is not None and (
            self.present(self._disk.file(sha256)) or self._local_files.path(sha256) is not None
        )

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
            if self.present(stored):
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
        path = stored if self.present(stored) else self._local_files.path(sha256)
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

    def locked_layer(self, key: str, place: str, waiting: Callable[[], None]) -> AbstractContextManager[None]:
        """Holds a layer against everybody else who would make it while sending it to `place`; see `Disk.locked`."""
        return self._disk.locked(f"layer-{sha256_hex(f'{place} {key}'.encode())}", waiting)

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
        return path if self.present(path) else None

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
