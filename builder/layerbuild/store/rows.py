"""Rows of a store: those that tell of files which are not there any more, and those that a damage must not take."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from dataclasses import asdict
from pathlib import Path
from typing import cast

from layerbuild.store import Store
from layerbuild.store.local import Marks

_TABLES = {
    "bytecode": "SELECT rowid, sha256 FROM bytecode WHERE sha256 IS NOT NULL",
    "derived": "SELECT rowid, sha256 FROM derived",
    "names": "SELECT rowid, sha256 FROM names",
    "built": "SELECT rowid, sha256 FROM built",
}
"""Tables of what must lie in `files/`, or is of no use."""


def dangling(store: Store) -> dict[str, list[int]]:
    """Rows by their table: of stored files that are not there, of local files that have changed."""
    found = {
        table: [int(str(row)) for row, sha256 in store.query(sql) if not _file(store, str(sha256)).exists()]
        for table, sql in _TABLES.items()
    }
    local = "SELECT rowid, path, device, inode, size, mtime_ns, ctime_ns FROM local_files"
    found["local_files"] = [
        int(str(row))
        for row, path, *marks in store.query(local)
        if _changed(Path(os.fsdecode(cast("bytes", path))), marks)
    ]
    return {table: rows for table, rows in found.items() if rows}


def prune(store: Store) -> int:
    """Removes the rows that `dangling` finds; returns how many."""
    found = dangling(store)
    for table, rows in found.items():
        for row in rows:
            store.query(f"DELETE FROM {table} WHERE rowid = ?", row)  # noqa: S608  # no input in it
    return sum(map(len, found.values()))


# --- what outlives a damaged database ------------------------------------------------------------------

_PRECIOUS: dict[str, tuple[type, ...]] = {"projects": (bytes, float), "mounts": (bytes, bytes), "built": (str,)}
"""Tables that nothing else tells of, and what is in their columns: without them, garbage collection would take more."""

Rows = dict[str, list[tuple[object, ...]]]


def salvaged(path: Path) -> Rows:
    """What can still be read of the tables that nothing else tells of, in a damaged database that nobody uses."""
    found: Rows = {table: [] for table in _PRECIOUS}
    for table, types in _PRECIOUS.items():
        with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(path)) as connection:
            for row in connection.execute(f"SELECT * FROM {table}"):  # noqa: S608  # no input in it
                if tuple(map(type, row)) == types:
                    found[table].append(row)
    return found


def restore(store: Store, rows: Rows) -> None:
    """Puts into a new database what was salvaged."""
    for table, found in rows.items():
        for row in found:
            marks = ", ".join("?" * len(row))
            store.query(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", *row)  # noqa: S608  # no input in it


def _file(store: Store, sha256: str) -> Path:
    return store.root / "files" / sha256[:2] / sha256


def _changed(path: Path, marks: list[object]) -> bool:
    try:
        found = Marks.of(path.stat())
    except OSError:
        # A disk that is not mounted comes back.
        return False
    return marks != list(asdict(found).values())
