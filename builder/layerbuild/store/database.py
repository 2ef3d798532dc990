"""What the store remembers, in SQLite: receipts, facts, names of blobs, bytecode, pushes, marks of local files, what
registries take, and which projects use it.

WAL mode, one connection that threads take in turn; every statement is its own transaction, so that
parallel writers lose nothing. Nothing in it is precious: a damaged file is removed and learnt anew.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
import weakref
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

from layerbuild.errors import BrokenDatabase, StoreError
from layerbuild.model import Blob, Content, Facts, Receipt
from layerbuild.store.locks import locked

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
CREATE TABLE IF NOT EXISTS bytecode (
    source TEXT, path TEXT, setting TEXT, sha256 TEXT, size INTEGER, PRIMARY KEY (source, path, setting));
CREATE TABLE IF NOT EXISTS pushed (host TEXT, repository TEXT, digest TEXT, PRIMARY KEY (host, digest, repository));
CREATE TABLE IF NOT EXISTS derived (name TEXT PRIMARY KEY, sha256 TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS registries (
    host TEXT, name TEXT, value INTEGER NOT NULL, learnt REAL NOT NULL, PRIMARY KEY (host, name));
CREATE TABLE IF NOT EXISTS projects (lock BLOB PRIMARY KEY, used REAL NOT NULL);
CREATE TABLE IF NOT EXISTS mounts (lock BLOB PRIMARY KEY, mount BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS names (sha256 TEXT PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS built (sha256 TEXT PRIMARY KEY);
"""

_VERSION = 6
"""Of the tables above."""

_LONGEST_NAME = 200

_WEEK = 7 * 24 * 3600
"""Seconds for which it is believed what a registry did: whoever runs it may have changed it since."""


@dataclass(frozen=True, kw_only=True)
class KnownBytecode:
    """What a Python source became: `content` is None where it is no valid one, and has no bytecode."""

    content: Content | None


class Database:
    """The tables at `root/store.db`.

    Raises:
        StoreError: it cannot be used, is damaged, or was made by a newer layerbuild.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._turn = threading.Lock()
        try:
            # Of two that make a database at once, SQLite lets one wait and refuses the other.
            with locked(root, "store.lock", waiting=lambda: None):
                self._connection = _connect(root / "store.db")
                # Closed with its owner: whoever opens a store need not think of it.
                self._closing = weakref.finalize(self, self._connection.close)
                self._make_tables()
        except sqlite3.Error as error:
            raise self._broken(error) from None

    def _make_tables(self) -> None:
        version = int(self._connection.execute("PRAGMA user_version").fetchone()[0])
        if version > _VERSION:
            raise StoreError(
                f"the store at {self.root} was made by a newer layerbuild",
                cause=f"its version is {version}, {_VERSION} is known here",
                hint="update layerbuild, or name another directory with LAYERBUILD_STORE",
            )
        if version < _VERSION:
            self._connection.executescript(f"{_SCHEMA}PRAGMA user_version = {_VERSION};")

    def _broken(self, error: sqlite3.Error) -> StoreError:
        """What SQLite says. A damaged database holds nothing that cannot be learnt again."""
        if isinstance(error, sqlite3.OperationalError):
            return unusable(self.root, str(error))
        path = self.root / "store.db"
        return BrokenDatabase(
            f"{path} is damaged",
            cause=str(error),
            hint="let 'layerbuild store repair' remove it: what it held is learnt again",
        )

    def query(self, sql: str, *arguments: object) -> list[tuple[object, ...]]:
        """Rows of one statement."""
        try:
            with self._turn:
                return self._connection.execute(sql, arguments).fetchall()
        except sqlite3.Error as error:
            raise self._broken(error) from None

    def check(self) -> None:
        """Reads all of it.

        Raises:
            BrokenDatabase: it is damaged.
        """
        found = self.query("PRAGMA integrity_check(1)")
        if found != [("ok",)]:
            raise self._broken(sqlite3.DatabaseError(str(found[0][0])))

    def close(self) -> None:
        """Close the database; the store is of no use after that."""
        self._closing()

    def facts(self, sha256: str) -> Facts | None:
        """What was learnt from a file's content."""
        rows = self.query("SELECT value FROM facts WHERE sha256 = ?", sha256)
        return Facts(**json.loads(str(rows[0][0]))) if rows else None

    def put_facts(self, sha256: str, facts: Facts) -> None:
        """Remember facts; what was known and is not contradicted stays."""
        new = json.dumps({k: v for k, v in asdict(facts).items() if v is not None})
        sql = "INSERT INTO facts VALUES (?, ?) ON CONFLICT (sha256) DO UPDATE SET value = json_patch(value, ?)"
        self.query(sql, sha256, new, new)

    def bytecode(self, source: str, path: str, setting: str) -> KnownBytecode | None:
        """What a source at a path became; None where nobody has compiled it here.

        Args:
            source: its sha256.
            setting: by `pyc.setting`.
        """
        sql = "SELECT sha256, size FROM bytecode WHERE source = ? AND path = ? AND setting = ?"
        rows = self.query(sql, source, path, setting)
        if not rows:
            return None
        sha256, size = rows[0]
        return KnownBytecode(content=Content(sha256=str(sha256), size=int(str(size))) if sha256 else None)

    def put_bytecode(self, source: str, path: str, setting: str, content: Content | None) -> None:
        """Remember what a source at a path became: nothing, where it is no valid one."""
        sha256, size = (content.sha256, content.size) if content else (None, None)
        self.query("INSERT OR REPLACE INTO bytecode VALUES (?, ?, ?, ?, ?)", source, path, setting, sha256, size)

    def receipt(self, key: str) -> Receipt | None:
        """What a key became here, with every blob that is known of it."""
        rows = self.query("SELECT diff_id, size FROM receipts WHERE key = ?", key)
        if not rows:
            return None
        diff_id = str(rows[0][0])
        blobs = self.query("SELECT encoding, digest, size FROM blobs WHERE diff_id = ? ORDER BY encoding", diff_id)
        return Receipt(
            key=key,
            diff_id=diff_id,
            size=int(str(rows[0][1])),
            blobs=tuple(Blob(encoding=str(e), digest=str(d), size=int(str(s))) for e, d, s in blobs),
        )

    def put_receipt(self, receipt: Receipt) -> None:
        """Remember what a key became. The caller has made the layer and seen it."""
        self.query("INSERT OR REPLACE INTO receipts VALUES (?, ?, ?)", receipt.key, receipt.diff_id, receipt.size)
        for blob in receipt.blobs:
            values = (receipt.diff_id, blob.encoding, blob.digest, blob.size)
            self.query("INSERT OR REPLACE INTO blobs VALUES (?, ?, ?, ?)", *values)

    def derived(self, name: str) -> str | None:
        """sha256 of what was made here of something else, by what it was made of, and how."""
        rows = self.query("SELECT sha256 FROM derived WHERE name = ?", name)
        return str(rows[0][0]) if rows else None

    def put_derived(self, name: str, sha256: str) -> None:
        """Remember what was made; it is in the store."""
        self.query("INSERT OR REPLACE INTO derived VALUES (?, ?)", name, sha256)

    def forget_blobs(self, key_prefix: str) -> None:
        """Forget how the layers whose keys begin with these 16 digits were compressed."""
        made = "SELECT diff_id FROM receipts WHERE substr(key, 1, 16) = ?"
        self.query(f"DELETE FROM blobs WHERE diff_id IN ({made})", key_prefix)  # noqa: S608  # no input in it

    def pushed_to(self, host: str, digest: str) -> list[str]:
        """Repositories of a registry to which a blob was pushed from here."""
        rows = self.query(
            "SELECT repository FROM pushed WHERE host = ? AND digest = ? ORDER BY repository", host, digest
        )
        return [str(row[0]) for row in rows]

    def remember_push(self, host: str, repository: str, digest: str) -> None:
        """A blob is in a repository of a registry now."""
        self.query("INSERT OR IGNORE INTO pushed VALUES (?, ?, ?)", host, repository, digest)

    def remember_project(self, lock: Path) -> None:
        """The project whose lock is, or will be, at this absolute path uses the store now."""
        mount = next(place for place in lock.parents if os.path.ismount(place))
        self.query("INSERT OR REPLACE INTO mounts VALUES (?, ?)", os.fsencode(lock), os.fsencode(mount))
        self.query("INSERT OR REPLACE INTO projects VALUES (?, ?)", os.fsencode(lock), time.time())

    def forget_project(self, lock: Path) -> None:
        """What that project needs is needed by nobody because of it."""
        for table in ("projects", "mounts"):
            self.query(f"DELETE FROM {table} WHERE lock = ?", os.fsencode(lock))  # noqa: S608  # no input in it

    def mount_of(self, lock: Path) -> Path | None:
        """Where the file system was mounted that had the lock of a project; None where nobody looked."""
        rows = self.query("SELECT mount FROM mounts WHERE lock = ?", os.fsencode(lock))
        return Path(os.fsdecode(cast("bytes", rows[0][0]))) if rows else None

    def projects(self) -> dict[Path, float]:
        """The locks of all projects that used the store, and when each did last, in Unix seconds."""
        rows = self.query("SELECT lock, used FROM projects ORDER BY lock")
        return {Path(os.fsdecode(cast("bytes", lock))): float(str(used)) for lock, used in rows}

    def remember_name(self, sha256: str, name: str) -> None:
        """What a content was called when it came: for people."""
        self.query("INSERT OR REPLACE INTO names VALUES (?, ?)", sha256, name[:_LONGEST_NAME])

    def remember_built(self, sha256: str) -> None:
        """A content was made on this machine: nobody else may have it."""
        self.query("INSERT OR REPLACE INTO built VALUES (?)", sha256)

    def learnt(self, host: str) -> dict[str, int]:
        """What a registry did during the last week, by name: see `registry.manners`."""
        rows = self.query("SELECT name, value FROM registries WHERE host = ? AND abs(learnt - ?) < ?", host, *_now())
        return {str(name): int(str(value)) for name, value in rows}

    def learn(self, host: str, name: str, value: int) -> None:
        """A registry does so. What is older than a week is forgotten, of every registry."""
        now, week = _now()
        self.query("DELETE FROM registries WHERE abs(learnt - ?) >= ?", now, week)
        self.query("INSERT OR REPLACE INTO registries VALUES (?, ?, ?, ?)", host, name, value, now)


def _now() -> tuple[float, int]:
    return time.time(), _WEEK


def _connect(path: Path) -> sqlite3.Connection:
    try:
        return _opened(path, "NORMAL")
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise
        # What processes share of a database is a file, for which a full disk has no room: alone it works without.
        return _opened(path, "EXCLUSIVE")


def _opened(path: Path, locking: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
    try:
        connection.execute(f"PRAGMA locking_mode = {locking}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def unusable(root: Path, cause: str) -> StoreError:
    """The error for a store whose directory or disk does not play along."""
    hint = (
        "make the directory writable and room on its disk ('layerbuild gc'), or name another one with LAYERBUILD_STORE"
    )
    return StoreError(f"the store at {root} cannot be used", cause=cause, hint=hint)
