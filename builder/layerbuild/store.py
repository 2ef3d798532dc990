"""This machine's cache: files by sha256, compressed blobs by digest, receipts and facts in SQLite.

Files enter through a temporary name and a rename, so that whatever lies under its digest is whole.
Local files are not copied: the store remembers where they lie and by which marks they are the same
(device, inode, size, mtime, ctime). Everything here can be deleted; it only costs time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

from layerbuild.digests import CHUNK, Digester, GitBlob, SafetensorsScan, feed
from layerbuild.errors import ContentMismatch, StoreError
from layerbuild.model import Blob, Content, Facts, Receipt, sha256_hex

_SCHEMA = """
CREATE TABLE IF NOT EXISTS receipts (key TEXT PRIMARY KEY, diff_id TEXT NOT NULL, size INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS blobs (
    diff_id TEXT, encoding TEXT, digest TEXT NOT NULL, size INTEGER NOT NULL, PRIMARY KEY (diff_id, encoding));
CREATE TABLE IF NOT EXISTS facts (sha256 TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS git_blobs (git_blob TEXT PRIMARY KEY, sha256 TEXT NOT NULL, size INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS local_files (
    path BLOB PRIMARY KEY, sha256 TEXT NOT NULL, device INTEGER, inode INTEGER, size INTEGER, mtime_ns INTEGER,
    ctime_ns INTEGER, seen_ns INTEGER);
CREATE INDEX IF NOT EXISTS local_by_sha256 ON local_files (sha256);
CREATE TABLE IF NOT EXISTS pushed (host TEXT, repository TEXT, digest TEXT, PRIMARY KEY (host, digest, repository));
"""

_VERSION = 1
"""Of the tables above."""

_SAME_INSTANT_NS = 50_000_000
"""A file whose times are this close to when it was read could change again without showing it."""

_ABANDONED = 3600
"""Seconds without a byte after which a temporary file belongs to nobody."""

Advance = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class _Marks:
    """By what a local file is recognised."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, stat: os.stat_result) -> _Marks:
        # SQLite's integers have a sign, and stacked file systems use the highest bit of an inode number.
        device, inode = (number % 2**63 for number in (stat.st_dev, stat.st_ino))
        return cls(
            device=device,
            inode=inode,
            size=stat.st_size,
            mtime_ns=stat.st_mtime_ns,
            ctime_ns=stat.st_ctime_ns,
        )


class Store:
    """The cache at `root`. Safe to share between threads, and between processes.

    Raises:
        StoreError: `root` cannot be used.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._local = threading.local()
        try:
            for name in ("files", "blobs", "tmp"):
                (root / name).mkdir(parents=True, exist_ok=True)
            self._make_tables()
            self._sweep()
        except OSError as error:
            raise self._unusable(error.strerror or type(error).__name__) from None
        except sqlite3.Error as error:
            raise self._broken(error) from None

    def _make_tables(self) -> None:
        database = self._database()
        version = int(database.execute("PRAGMA user_version").fetchone()[0])
        if version > _VERSION:
            raise StoreError(
                f"the store at {self.root} was made by a newer layerbuild",
                cause=f"its version is {version}, {_VERSION} is known here",
                hint="update layerbuild, or name another directory with LAYERBUILD_STORE",
            )
        if version < _VERSION:
            database.executescript(f"{_SCHEMA}PRAGMA user_version = {_VERSION};")

    def _unusable(self, cause: str) -> StoreError:
        hint = "make the directory writable and room on its disk, or name another one with LAYERBUILD_STORE"
        return StoreError(f"the store at {self.root} cannot be used", cause=cause, hint=hint)

    def _broken(self, error: sqlite3.Error) -> StoreError:
        """What SQLite says. A damaged database holds nothing that cannot be learnt again."""
        if isinstance(error, sqlite3.OperationalError):
            return self._unusable(str(error))
        path = self.root / "store.db"
        return StoreError(
            f"{path} is damaged",
            cause=str(error),
            hint=f"remove it, and {path.name}-wal and {path.name}-shm beside it: what it held is learnt again",
        )

    def _sweep(self) -> None:
        """Remove what an interrupted run left. A file that is still being written is young."""
        for leftover in (self.root / "tmp").iterdir():
            with contextlib.suppress(FileNotFoundError):
                if time.time() - leftover.stat().st_mtime > _ABANDONED:
                    leftover.unlink()

    def _database(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = sqlite3.connect(self.root / "store.db", timeout=60, isolation_level=None)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            self._local.connection = connection
        return connection

    def _query(self, sql: str, *arguments: object) -> list[tuple[object, ...]]:
        try:
            return self._database().execute(sql, arguments).fetchall()
        except sqlite3.Error as error:
            raise self._broken(error) from None

    def close(self) -> None:
        """Close this thread's connection."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None

    # --- files ---------------------------------------------------------------------------------

    def _file(self, sha256: str) -> Path:
        return self.root / "files" / sha256[:2] / sha256

    def sha256_of(self, content: Content) -> str | None:
        """sha256 of a content that may be named by its git blob only; None if nobody knows."""
        if content.sha256 is not None:
            return content.sha256
        rows = self._query("SELECT sha256 FROM git_blobs WHERE git_blob = ?", content.git_blob)
        return str(rows[0][0]) if rows else None

    def has(self, content: Content) -> bool:
        """Whether the bytes are on this machine, in the store or where a local file lies unchanged."""
        sha256 = self.sha256_of(content)
        return sha256 is not None and (self._file(sha256).exists() or self._local_path(sha256) is not None)

    def size(self, content: Content) -> int | None:
        """Bytes of a content, if anybody ever told."""
        if content.size is not None:
            return content.size
        if content.git_blob is not None:
            rows = self._query("SELECT size FROM git_blobs WHERE git_blob = ?", content.git_blob)
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
            local = self._local_path(sha256)
            if local is not None:
                return self._read_local(local, sha256, offset)
        raise StoreError(f"{content.id} is not in the store", hint="run the command again: it will be fetched")

    def _read_stored(self, path: Path, sha256: str, offset: int) -> Iterator[bytes]:
        if _size(path) > CHUNK:
            return _read(path, offset)
        data = b"".join(_read(path, 0))
        if sha256_hex(data) != sha256:
            path.unlink(missing_ok=True)
            raise _damaged(path)
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
            size = self._receive(temporary, feed(_limited(chunks, expected, name), digesters, threads=large), advance)
            if expected.git_blob and git is None:
                # git's digest begins with the size, which nobody knew before.
                git = GitBlob(size)
                for chunk in _read(temporary, 0):
                    git.update(chunk)
            content = Content(size=size, sha256=whole.hexdigest(), git_blob=git.hexdigest() if git else None)
            _compare(content, expected, name)
            self._keep(temporary, self._file(content.sha256 or ""))
            if content.git_blob is not None:
                values = (content.git_blob, content.sha256, size)
                self._query("INSERT OR REPLACE INTO git_blobs VALUES (?, ?, ?)", *values)
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
            raise self._unusable(error.strerror or type(error).__name__) from None
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
        self._query("DELETE FROM local_files WHERE sha256 = ?", sha256)

    # --- local files ---------------------------------------------------------------------------

    def hash_local(self, path: Path, advance: Advance = lambda _: None) -> Content:
        """sha256 and size of a file where it lies; read only if it changed since it was last read.

        Its safetensors facts are learnt in the same pass.

        Raises:
            StoreError: it cannot be read.
            ContentMismatch: it changed while it was read.
        """
        path = path.resolve()
        try:
            marks = _Marks.of(path.stat())
            known = self._known_local(path, marks)
            if known is not None:
                return Content(size=marks.size, sha256=known)
            seen = time.time_ns()
            whole, scan = hashlib.sha256(), SafetensorsScan()
            for chunk in feed(_read(path, 0), [whole, scan], threads=marks.size > CHUNK):
                advance(len(chunk))
            if _Marks.of(path.stat()) != marks:
                raise ContentMismatch(
                    f"{path} changed while it was read", hint="run the command again when it is complete"
                )
        except OSError as error:
            raise StoreError(f"{path} cannot be read", cause=error.strerror) from None
        content = Content(size=marks.size, sha256=whole.hexdigest())
        values = (os.fsencode(path), content.sha256, *asdict(marks).values(), seen)
        self._query("INSERT OR REPLACE INTO local_files VALUES (?, ?, ?, ?, ?, ?, ?, ?)", *values)
        self._learn(content, scan)
        return content

    def _known_local(self, path: Path, marks: _Marks) -> str | None:
        rows = self._query(
            "SELECT sha256, device, inode, size, mtime_ns, ctime_ns, seen_ns FROM local_files WHERE path = ?",
            os.fsencode(path),
        )
        if not rows:
            return None
        sha256, *stored, seen = rows[0]
        settled = max(marks.mtime_ns, marks.ctime_ns) + _SAME_INSTANT_NS < int(str(seen))
        return str(sha256) if settled and stored == list(asdict(marks).values()) else None

    def _local_path(self, sha256: str) -> Path | None:
        """Where a local file with this content lies, if it still looks the same."""
        rows = self._query(
            "SELECT path, device, inode, size, mtime_ns, ctime_ns FROM local_files WHERE sha256 = ?", sha256
        )
        for name, *stored in rows:
            path = Path(os.fsdecode(cast("bytes", name)))
            with contextlib.suppress(OSError):
                if stored == list(asdict(_Marks.of(path.stat())).values()):
                    return path
        return None

    def _read_local(self, path: Path, sha256: str, offset: int) -> Iterator[bytes]:
        try:
            before = _Marks.of(path.stat())
            if before.size > CHUNK:
                yield from _read(path, offset)
                if _Marks.of(path.stat()) != before:
                    raise ContentMismatch(f"{path} changed while it was read", hint="run 'layerbuild lock' again")
                return
        except OSError as error:
            raise _unreadable(path, error) from None
        # A change in the instant in which it was hashed leaves the same marks.
        data = b"".join(_read(path, 0))
        if sha256_hex(data) != sha256:
            self.discard(sha256)
            raise ContentMismatch(f"{path} has changed since it was hashed", hint="run 'layerbuild lock' again")
        if data[offset:]:
            yield data[offset:]

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
            raise _damaged(self._file(sha256))
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
        for chunk in _read(path, offset):
            whole.update(chunk)
            yield chunk
        if not offset and f"sha256:{whole.hexdigest()}" != digest:
            path.unlink(missing_ok=True)
            raise _damaged(path)

    def check_blob(self, digest: str) -> bool:
        """Whether a blob is what its name says; one that is not is removed."""
        whole = hashlib.sha256()
        for chunk in self.open_blob(digest):
            whole.update(chunk)
        right = f"sha256:{whole.hexdigest()}" == digest
        if not right:
            self._blob(digest).unlink(missing_ok=True)
        return right

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

    # --- receipts, facts -------------------------------------------------------------------------

    def facts(self, sha256: str) -> Facts | None:
        """What was learnt from a file's content."""
        rows = self._query("SELECT value FROM facts WHERE sha256 = ?", sha256)
        return Facts(**json.loads(str(rows[0][0]))) if rows else None

    def put_facts(self, sha256: str, facts: Facts) -> None:
        """Remember facts; what was known and is not contradicted stays."""
        new = json.dumps({k: v for k, v in asdict(facts).items() if v is not None})
        sql = "INSERT INTO facts VALUES (?, ?) ON CONFLICT (sha256) DO UPDATE SET value = json_patch(value, ?)"
        self._query(sql, sha256, new, new)

    def receipt(self, key: str) -> Receipt | None:
        """What a key became here, with every blob that is known of it."""
        rows = self._query("SELECT diff_id, size FROM receipts WHERE key = ?", key)
        if not rows:
            return None
        diff_id = str(rows[0][0])
        blobs = self._query("SELECT encoding, digest, size FROM blobs WHERE diff_id = ? ORDER BY encoding", diff_id)
        return Receipt(
            key=key,
            diff_id=diff_id,
            size=int(str(rows[0][1])),
            blobs=tuple(Blob(encoding=str(e), digest=str(d), size=int(str(s))) for e, d, s in blobs),
        )

    def put_receipt(self, receipt: Receipt) -> None:
        """Remember what a key became. The caller has made the layer and seen it."""
        self._query("INSERT OR REPLACE INTO receipts VALUES (?, ?, ?)", receipt.key, receipt.diff_id, receipt.size)
        for blob in receipt.blobs:
            values = (receipt.diff_id, blob.encoding, blob.digest, blob.size)
            self._query("INSERT OR REPLACE INTO blobs VALUES (?, ?, ?, ?)", *values)

    def forget_blobs(self, key_prefix: str) -> None:
        """Forget how the layers whose keys begin with these 16 digits were compressed."""
        made = "SELECT diff_id FROM receipts WHERE substr(key, 1, 16) = ?"
        self._query(f"DELETE FROM blobs WHERE diff_id IN ({made})", key_prefix)  # noqa: S608  # no input in it

    def pushed_to(self, host: str, digest: str) -> list[str]:
        """Repositories of a registry to which a blob was pushed from here."""
        rows = self._query(
            "SELECT repository FROM pushed WHERE host = ? AND digest = ? ORDER BY repository", host, digest
        )
        return [str(row[0]) for row in rows]

    def remember_push(self, host: str, repository: str, digest: str) -> None:
        """A blob is in a repository of a registry now."""
        self._query("INSERT OR IGNORE INTO pushed VALUES (?, ?, ?)", host, repository, digest)


def _read(path: Path, offset: int) -> Iterator[bytes]:
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(offset)
            while chunk := file.read(CHUNK):
                yield chunk
    except OSError as error:
        raise _unreadable(path, error) from None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: OSError) -> StoreError:
    return StoreError(f"{path} cannot be read", cause=error.strerror, hint="check its disk, and who may read it")


def _damaged(path: Path) -> StoreError:
    return StoreError(f"{path} was damaged, and has been removed", hint="run the command again: it will be made anew")


def _limited(chunks: Iterable[bytes], expected: Content, name: str) -> Iterator[bytes]:
    """Stops a source that sends more than was pinned before the disk is full of it."""
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if expected.size is not None and size > expected.size:
            raise ContentMismatch(
                f"{name} is longer than the {expected.size} bytes that were pinned",
                hint="the source has changed: run 'layerbuild lock --update NAME' if that is right",
            )
        yield chunk


def _compare(found: Content, expected: Content, name: str) -> None:
    pairs = (
        ("size", expected.size, found.size),
        ("sha256", expected.sha256, found.sha256),
        ("git blob", expected.git_blob, found.git_blob),
    )
    for what, wanted, got in pairs:
        if wanted is not None and got is not None and wanted != got:
            raise ContentMismatch(
                f"{name} is not what was pinned",
                cause=f"its {what} is {got}, pinned is {wanted}",
                hint="the source has changed or is damaged: check it, then 'layerbuild lock --update NAME'",
            )
