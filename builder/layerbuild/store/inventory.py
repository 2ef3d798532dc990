"""What lies in a store, without using it; and how things leave it.

Nothing here makes a file look used. A thing is removed only if nobody can be using it: see `usage`.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from layerbuild.care import Item, Kind
from layerbuild.errors import StoreError
from layerbuild.model import sha256_hex
from layerbuild.store import Store
from layerbuild.store.locks import hold, locked, try_hold
from layerbuild.store.usage import others_since

_AT_ONCE = 64
"""Things that are removed while nobody else begins to use one."""

_TRASH = "trash"

_LARGEST_DOCUMENT = 256 * 1024 * 1024


class Inventory:
    """The things in a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._root = store.root

    def items(self) -> list[Item]:
        """All of them.

        Raises:
            StoreError: the store cannot be read.
        """
        try:
            return list(self._items())
        except OSError as error:
            raise StoreError(
                f"the store at {self._root} cannot be read", cause=error.strerror, hint="check who owns its files"
            ) from None

    def _items(self) -> Iterator[Item]:
        kinds = self._kinds()
        titles = {str(sha256): str(name) for sha256, name in self._store.query("SELECT sha256, name FROM names")}
        for path, stat in _below(self._root / "files", "*/*"):
            name = path.name
            kind = kinds.get(name, "files")
            yield Item(kind=kind, name=name, size=stat.st_size, used_ns=stat.st_mtime_ns, title=titles.get(name, ""))
        for path, stat in _below(self._root / "blobs", "*/*"):
            yield Item(kind="layers", name=path.name, size=stat.st_size, used_ns=stat.st_mtime_ns)
        for path, stat in _below(self._root / "git", "*/HEAD"):
            yield Item(kind="git", name=path.parent.name, size=_size_below(path.parent), used_ns=stat.st_mtime_ns)
        for path, stat in _below(self._root / "partial", "*"):
            yield Item(kind="beginnings", name=path.name, size=stat.st_size, used_ns=stat.st_mtime_ns)

    def _kinds(self) -> dict[str, Kind]:
        """Of files that are not just files."""
        found: dict[str, Kind] = {}
        tables: tuple[tuple[Kind, str], ...] = (
            ("bytecode", "SELECT sha256 FROM bytecode WHERE sha256 IS NOT NULL"),
            ("documents", "SELECT sha256 FROM derived"),
            ("documents", "SELECT json_extract(value, '$.header_sha256') FROM facts"),
            ("built", "SELECT sha256 FROM built"),
        )
        for kind, sql in tables:
            found |= {str(row[0]): kind for row in self._store.query(sql)}
        return found

    def path(self, item: Item) -> Path:
        """Where it lies."""
        place, _, name = item.id.partition(":")
        if place == "git":
            return self._root / "git" / name
        if place == "partial":
            return self._root / "partial" / name
        return self._root / f"{place}s" / name[:2] / name

    def document(self, sha256: str) -> bytes | None:
        """A whole small file; None where it is not here, or is not what it was."""
        return self._read(self._root / "files" / sha256[:2] / sha256, sha256)

    def blob(self, sha256: str) -> bytes | None:
        """As `document`, of a blob."""
        return self._read(self._root / "blobs" / sha256[:2] / sha256, sha256)

    def _read(self, path: Path, sha256: str) -> bytes | None:
        with contextlib.suppress(OSError):
            if path.stat().st_size <= _LARGEST_DOCUMENT:
                data = path.read_bytes()
                return data if sha256_hex(data) == sha256 else None
        return None

    # --- leaving ---------------------------------------------------------------------------------

    @contextlib.contextmanager
    def alone(self, waiting: Callable[[], None]) -> Iterator[None]:
        """One that cleans up at a time.

        Args:
            waiting: called once, before another one is waited for.
        """
        with locked(self._root, "care.lock", waiting=waiting):
            self._empty_trash()
            yield
            self._empty_trash()

    def remove(
        self,
        items: Sequence[Item],
        cutoff_ns: int,
        advance: Callable[[Item], None],
        *,
        still: Callable[[], bool] = lambda: True,
    ) -> list[Item]:
        """Removes what was not used since `cutoff_ns`. The caller is `alone`.

        Args:
            advance: is told of each thing that went.
            still: whether all of them may go; once it is False, nothing more goes.

        Returns:
            What went.

        Raises:
            StoreError: something cannot be removed. What went before it is gone.
        """
        gone: list[Item] = []
        for start in range(0, len(items), _AT_ONCE):
            try:
                with self._store.usage.alone():
                    if not still():
                        break
                    # Who came since may have a clock that is behind.
                    cutoff_ns = min([cutoff_ns, *others_since(self._root, own=self._store.usage)])
                    went = [item for item in items[start : start + _AT_ONCE] if self._take(item, cutoff_ns)]
            except OSError as error:
                raise StoreError(
                    f"{error.filename} cannot be removed", cause=error.strerror, hint="check who owns the store's files"
                ) from None
            for item in went:
                advance(item)
            gone += went
            self._empty_trash()
        return gone

    def discard(self, item: Item, damaged: Callable[[Path], bool]) -> None:
        """Removes a thing whoever uses it, if it is damaged. The caller is `alone`.

        Raises:
            StoreError: it cannot be removed.
        """
        path = self.path(item)
        try:
            if item.kind != "git":
                if damaged(path):
                    path.unlink(missing_ok=True)
                return
            # A git at work in it would go on in what is thrown away.
            descriptor = hold(path.with_suffix(".lock"), lambda: None)
            try:
                if damaged(path):
                    self._throw_away(path)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise StoreError(
                f"{path} cannot be removed", cause=error.strerror, hint="check who owns the store's files"
            ) from None

    def _throw_away(self, path: Path) -> None:
        trash = self._root / _TRASH
        trash.mkdir(exist_ok=True)
        path.rename(trash / secrets.token_hex(8))

    def _take(self, item: Item, cutoff_ns: int) -> bool:
        path = self.path(item)
        try:
            if item.kind == "git":
                return self._take_repository(path, cutoff_ns)
            if path.stat().st_mtime_ns >= cutoff_ns:
                return False
            path.unlink()
        except FileNotFoundError:
            return False
        return True

    def _take_repository(self, path: Path, cutoff_ns: int) -> bool:
        # A git that outlived its layerbuild still holds this.
        with try_hold(path.with_suffix(".lock")) as held:
            if not held or (path / "HEAD").stat().st_mtime_ns >= cutoff_ns:
                return False
            self._throw_away(path)
        return True

    def _empty_trash(self) -> None:
        """Also what a killed run had taken out already."""
        if (self._root / _TRASH).exists():
            shutil.rmtree(self._root / _TRASH, ignore_errors=True)


def _below(directory: Path, pattern: str) -> Iterator[tuple[Path, os.stat_result]]:
    for path in sorted(directory.glob(pattern)):
        with contextlib.suppress(FileNotFoundError):
            if path.is_file():
                yield path, path.stat()


def _size_below(directory: Path) -> int:
    total = 0
    for path in directory.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += path.lstat().st_size
    return total
