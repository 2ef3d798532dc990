"""`file:PATH`: a file or a directory of this machine, relative to the project or absolute.

The pin keeps the path as it was written, never an absolute one: a lock is shared, a machine's
directories are not. A directory gives all of its files, at any depth.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from layerbuild.errors import AccessDenied, NotFound, SourceError
from layerbuild.model import Pin, PinnedFile
from layerbuild.paths import safe_relative
from layerbuild.sources.base import Context, Request, agree, declared, mismatch, one_file_only, select, shown
from layerbuild.wire import BLOCK


class FileSource:
    """Reads local files. Paths are taken literally: no percent-encoding, no `~`."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def resolve(self, request: Request) -> Pin:
        """See `Source.resolve`. Every file is hashed, or remembered by the store.

        Raises:
            NotFound: nothing is there, or a wanted name is not.
            AccessDenied: it may not be read.
            ContentMismatch: declared sha256 or size differ.
            SourceError: an unsafe name, or something that is neither file nor directory.
        """
        path = self._locate(request.uri)
        try:
            if path.is_dir():
                return self._directory(request, path)
            one_file_only(request)
            _require_regular(path, request.uri)
            content = self._context.hash_file(path)
        except OSError as error:
            raise _unreadable(request.uri, error) from None
        agree(request, content, who="the file")
        name = safe_relative(path.name, origin=shown(request.uri))
        return Pin(source=request.uri, files=(PinnedFile(path=name, content=content),))

    def open(self, pin: Pin, file: PinnedFile, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """See `Source.open`.

        Raises:
            NotFound, AccessDenied: it cannot be read any more.
            ContentMismatch: its size is not the pinned one.
        """
        path, what = self._pinned(pin, file)
        try:
            yield from _read(path, what, file, offset, length)
        except OSError as error:
            raise _unreadable(what, error) from None

    def locate(self, pin: Pin, file: PinnedFile) -> Path:
        """Where a pinned file lies: local files are used there, and not copied.

        Raises:
            NotFound, AccessDenied: it cannot be read any more.
        """
        return self._pinned(pin, file)[0]

    def _pinned(self, pin: Pin, file: PinnedFile) -> tuple[Path, str]:
        path = self._locate(pin.source)
        what = shown(pin.source)
        try:
            if path.is_dir():
                what = f"{what}: {file.path}"
                path = path / safe_relative(file.path, origin="the lock")
            _require_regular(path, what)
        except OSError as error:
            raise _unreadable(what, error) from None
        return path, what

    def _locate(self, uri: str) -> Path:
        path = uri.partition(":")[2]
        if path.startswith("//"):
            host, slash, rest = path[2:].partition("/")
            if host not in ("", "localhost") or not slash:
                raise SourceError(
                    f"{shown(uri)} names a file of another machine",
                    hint="write file:PATH for a path relative to the project, file:/PATH for an absolute one",
                )
            path = "/" + rest
        if not path or "\0" in path:
            raise SourceError(f"{shown(uri)} names no file", hint="write file:PATH")
        return self._context.project / path

    def _directory(self, request: Request, top: Path) -> Pin:
        what = shown(request.uri)
        if request.absent or declared(request) != (None, None):
            raise SourceError(
                f"{what} is a directory", cause="`sha256`, `size` and `absent` do not apply to one", hint="remove them"
            )
        names = sorted(_walk(top))
        chosen = select(names, request.files, what=what)
        if not chosen:
            raise NotFound(f"{what} has no files that the declaration wants", hint="check the path and `files`")
        files = []
        for name in chosen:
            safe_relative(name, origin=what)
            _require_regular(top / name, f"{what}: {name}")
            files.append(PinnedFile(path=name, content=self._context.hash_file(top / name)))
        return Pin(source=request.uri, files=tuple(files))


def _walk(top: Path) -> Iterator[str]:
    """Names of everything below `top` that is not a directory, and of links to directories."""

    def fail(error: OSError) -> None:
        raise error

    for directory, below, names in os.walk(top, onerror=fail):
        at = Path(directory)
        for name in names + [b for b in below if (at / b).is_symlink()]:
            yield (at / name).relative_to(top).as_posix()


def _require_regular(path: Path, what: str) -> None:
    if not path.exists():
        link = path.is_symlink()
        raise NotFound(
            f"{shown(what)} does not exist",
            cause=f"{path} is a link to nothing" if link else f"there is no {path}",
            hint="check the path; a relative one starts at the project's directory",
        )
    if path.is_dir():
        raise SourceError(
            f"{shown(what)} is a link to a directory",
            hint="declare that directory by itself, or leave the link out with `files: ['!NAME']`",
        )
    if not path.is_file():
        raise SourceError(f"{shown(what)} is neither a file nor a directory", hint="only files can go into a layer")


def _read(path: Path, what: str, file: PinnedFile, offset: int, length: int | None) -> Iterator[bytes]:
    with path.open("rb") as stream:
        actual = os.fstat(stream.fileno()).st_size
        size = actual if file.content.size is None else file.content.size
        if actual != size:
            raise mismatch(what, f"it has {actual} bytes, {size} are pinned")
        stream.seek(offset)
        left = max(0, size - offset) if length is None else min(length, max(0, size - offset))
        while left:
            block = stream.read(min(BLOCK, left))
            if not block:
                raise mismatch(what, "it became shorter while it was read")
            left -= len(block)
            yield block


def _unreadable(what: str, error: OSError) -> SourceError:
    if isinstance(error, PermissionError):
        return AccessDenied(
            f"{shown(what)} cannot be read", cause=error.strerror, hint="make it readable for your user"
        )
    if isinstance(error, FileNotFoundError):
        return NotFound(f"{shown(what)} does not exist any more", hint="put it back, or change the declaration")
    return SourceError(
        f"{shown(what)} cannot be read",
        cause=error.strerror or type(error).__name__,
        hint="check that it is a file, and who may read it",
    )
