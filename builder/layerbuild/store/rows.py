"""Rows of a store that tell of files which are not there any more."""

from __future__ import annotations

import os
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


def _file(store: Store, sha256: str) -> Path:
    return store.root / "files" / sha256[:2] / sha256


def _changed(path: Path, marks: list[object]) -> bool:
    try:
        found = Marks.of(path.stat())
    except OSError:
        # A disk that is not mounted comes back.
        return False
    return marks != list(asdict(found).values())
