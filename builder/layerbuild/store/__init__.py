"""This machine's cache: files by sha256, compressed blobs by digest, receipts and facts in SQLite.

Files enter through a temporary name and a rename, so that whatever lies under its digest is whole.
Local files are not copied: the store remembers where they lie and by which marks they are the same
(device, inode, size, mtime, ctime). Everything here can be deleted; it only costs time.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from layerbuild.digests import CHUNK, Digester, GitBlob, SafetensorsScan, feed
from layerbuild.errors import StoreError
from layerbuild.model import Content, Facts, sha256_hex
from layerbuild.store.database import Database, unusable
from layerbuild.store.local import Advance, LocalFiles
from layerbuild.store.reading import compare, damaged, limited, read, size_of

_ABANDONED = 3600
"""Seconds without a byte after which a temporary file belongs to nobody."""


class Store(Database):
    """The cache at `root`. Safe to share between threads, and between processes.

    Raises:
        StoreError: `root` cannot be used.
    """

    def __init__(self, root: Path) -> None:
        try:
            for name in ("files", "blobs", "tmp"):
                (root / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unusable(root, error.strerror or type(error).__name__) from None
        super().__init__(root)
        self._local_files = LocalFiles(self)
        self._sweep()

    def _sweep(self) -> None:
        """Remove what an interrupted run left. A file that is still being written is young."""
        for leftover in (self.root / "tmp").iterdir():
            with contextlib.suppress(FileNotFoundError):
                if time.time() - leftover.stat().st_mtime > _ABANDONED:
                    leftover.unlink()

    # --- files ---------------------------------------------------------------------------------

    def _file(self, sha256: str) -> Path:
        return self.root / "files" / sha256[:2] / sha256

    def sha256_of(self, content: Content) -> str | None:
        """sha256 of a content that may be named by its git blob only; None if nobody knows."""
        if content.sha256 is not None:
            return content.sha256
        rows = self.query("SELECT sha256 FROM git_blobs WHERE git_blob = ?", content.git_blob)
        return str(rows[0][0]) if rows else None

    def has(self, content: Content) -> bool:
        """Whether the bytes are on this machine, in the store or where a local file lies unchanged."""
        sha256 = self.sha256_of(content)
        return sha256 is not None and (self._file(sha256).exists() or self._local_files.path(sha256) is not None)

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
            stored = self._file(sha256)
            if stored.exists():
                return self._read_stored(stored, sha256, offset)
            local = self._local_files.path(sha256)
            if local is not None:
                return self._local_files.read(local, sha256, offset)
        raise StoreError(f"{content.id} is not in the store", hint="run the command again: it will be fetched")

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
        """Take `chunks` in, if they are what was expected. Facts are learnt in the same pass.

        Args:
            expected: size and digests, as far as they are known.
            name: of the file, for messages.
            advance: is told how many bytes came.
            scan_header: learn the safetensors facts too.

        Returns:
            The content, with sha256 and size.

        Raises:
            ContentMismatch: size or digest differ; nothing is kept.
            StoreError: the disk is full or fails; nothing is kept.
        """
        temporary = self._temporary()
        try:
            whole = hashlib.sha256()
            digesters: list[Digester] = [whole]
            git = GitBlob(expected.size) if expected.git_blob and expected.size is not None else None
            scan = SafetensorsScan() if scan_header else None
            digesters += [d for d in (git, scan) if d is not None]
            large = expected.size is None or expected.size > CHUNK
            size = self._receive(temporary, feed(limited(chunks, expected, name), digesters, threads=large), advance)
            if expected.git_blob and git is None:
                # git's digest begins with the size, which nobody knew before.
                git = GitBlob(size)
                for chunk in read(temporary, 0):
                    git.update(chunk)
            content = Content(size=size, sha256=whole.hexdigest(), git_blob=git.hexdigest() if git else None)
            compare(content, expected, name)
            self._keep(temporary, self._file(content.sha256 or ""))
            if content.git_blob is not None:
                values = (content.git_blob, content.sha256, size)
                self.query("INSERT OR REPLACE INTO git_blobs VALUES (?, ?, ?)", *values)
            self._learn(content, scan)
            return content
        finally:
            temporary.unlink(missing_ok=True)

    def _receive(self, temporary: Path, chunks: Iterable[bytes], advance: Advance) -> int:
        size = 0
        try:
            # Buffered: what an unbuffered file takes may be less than it was given, on a disk that gets full.
            with temporary.open("wb") as file:
                for chunk in chunks:
                    file.write(chunk)
                    size += len(chunk)
                    advance(len(chunk))
                if size > CHUNK:
                    # A smaller file is hashed again whenever it is read; see `open`.
                    file.flush()
                    os.fsync(file.fileno())
        except OSError as error:
            raise StoreError(
                f"the store at {self.root} cannot take {size} bytes more",
                cause=error.strerror,
                hint="make room on its disk",
            ) from None
        return size

    def _temporary(self) -> Path:
        try:
            handle, name = tempfile.mkstemp(dir=self.root / "tmp")
        except OSError as error:
            raise unusable(self.root, error.strerror or type(error).__name__) from None
        os.close(handle)
        return Path(name)

    def _keep(self, temporary: Path, final: Path) -> None:
        try:
            final.parent.mkdir(exist_ok=True)
            temporary.chmod(0o644)
            temporary.replace(final)
        except OSError as error:
            raise StoreError(f"{final} cannot be written", cause=error.strerror) from None

    def _learn(self, content: Content, scan: SafetensorsScan | None) -> None:
        assert content.sha256 is not None and content.size is not None
        if scan is None:
            self.put_facts(content.sha256, Facts(size=content.size, git_blob=content.git_blob))
            return
        facts = scan.facts(content.size, content.git_blob)
        self.put_facts(content.sha256, facts)
        if scan.header is not None and facts.metadata is None:
            self.add_document(scan.header)

    def scan(self, content: Content, advance: Advance) -> None:
        """Read a content that is here once more, for safetensors facts that nobody has learnt yet."""
        scan, size = SafetensorsScan(), 0
        for chunk in feed(self.open(content), [scan]):
            size += len(chunk)
            advance(len(chunk))
        self._learn(Content(size=size, sha256=self.sha256_of(content)), scan)

    def discard(self, sha256: str) -> None:
        """Forget a content that turned out to be damaged: the copy here, and where it lies elsewhere."""
        self._file(sha256).unlink(missing_ok=True)
        self._local_files.forget(sha256)

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
        if not self._file(content.sha256 or "").exists():
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
            raise damaged(self._file(sha256))
        return data

    def blob_path(self, digest: str) -> Path | None:
        """Where a compressed blob lies, None if it is not here."""
        path = self._blob(digest)
        return path if path.exists() else None

    def open_blob(self, digest: str, offset: int = 0) -> Iterator[bytes]:
        """A compressed blob's bytes from `offset` on.

        Raises:
            StoreError: it cannot be read; or, after the last byte of a whole one, it was damaged and is gone.
        """
        path, whole = self._blob(digest), hashlib.sha256()
        for chunk in read(path, offset):
            whole.update(chunk)
            yield chunk
        if not offset and f"sha256:{whole.hexdigest()}" != digest:
            path.unlink(missing_ok=True)
            raise damaged(path)

    def _blob(self, digest: str) -> Path:
        value = digest.removeprefix("sha256:")
        return self.root / "blobs" / value[:2] / value

    def add_blob(self, chunks: Iterable[bytes]) -> tuple[str, int]:
        """Keep a blob; returns its digest and its size in bytes."""
        temporary = self._temporary()
        try:
            whole = hashlib.sha256()
            size = self._receive(temporary, feed(chunks, [whole], threads=False), lambda _: None)
            digest = f"sha256:{whole.hexdigest()}"
            self._keep(temporary, self._blob(digest))
            return digest, size
        finally:
            temporary.unlink(missing_ok=True)
