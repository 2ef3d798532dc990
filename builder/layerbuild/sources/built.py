"""`built+https://`: a wheel that is built from the source archive at an address.

Its pin has two files: the wheel, with the digest that it had when it was first built, and the archive. Building runs
code of the archive's authors, in an environment that uv makes for it, without any login of the user's. Build
requirements are chosen as of the pin's date. What comes out is packed anew, so that neither times nor the order of
files nor a compressor are part of its digest; it may still be another wheel elsewhere, and then it is refused.
"""

from __future__ import annotations

import hashlib
import io
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from layerbuild.bytecode import find
from layerbuild.errors import ContentMismatch, SourceError
from layerbuild.model import MTIME, Pin, PinnedFile
from layerbuild.sources import uv
from layerbuild.sources.base import Context, Request, require_online, shown, verified
from layerbuild.sources.web import WebSource
from layerbuild.wheels import archive, inspection

SCHEME = "built+"
_MAX_WHEEL = 256 * 1024 * 1024
"""Bytes of a wheel that is built here."""

_TIME = (1980, 1, 2, 0, 0, 0)
_CHUNK = 1024 * 1024


class BuiltSource:
    """Builds wheels, and reads the archives that they are built from."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._web = WebSource(context)

    def resolve(self, request: Request) -> Pin:
        """Nothing is pinned by such an address alone: see `build`."""
        raise SourceError(
            f"{shown(request.uri)} cannot be declared",
            cause="it says where a wheel was built from, in a lock",
            hint="name the package under 'requirements' and 'build' of a layer of kind python",
        )

    def build(self, source: Pin, *, python: str, constraints: tuple[str, ...], date: int) -> Pin:
        """The pin of the wheel that is built from a pinned archive. The wheel is kept.

        Args:
            python: version of the Python that builds it, `3.X`.
            constraints: what versions its build requirements may have.
            date: Unix seconds; what was published later is no build requirement.

        Raises:
            UsageError: uv is not installed.
            BytecodeError: no Python of that version is here.
            SourceError: it cannot be had or built.
        """
        pin = replace(
            source, source=f"{SCHEME}{source.source}", version=python, constraints=constraints, date=date, mirrors=()
        )
        name, data = self._wheel(pin, source.files[0])
        content = self._context.keep_built(iter([data]), name)
        return replace(pin, files=(PinnedFile(path=name, content=content), *source.files))

    def open(self, pin: Pin, file: PinnedFile, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """See `Source.open`. A wheel is built anew, if it is not here any more.

        Raises:
            ContentMismatch: it comes out different from what is pinned.
            BytecodeError, UsageError, SourceError: as `build`.
        """
        of_archive = replace(pin, source=pin.source.removeprefix(SCHEME))
        if not file.path.endswith(".whl") or len(pin.files) != 2:
            yield from self._web.open(of_archive, file, offset=offset, length=length)
            return
        name, data = self._wheel(pin, pin.files[1])
        if hashlib.sha256(data).hexdigest() != file.content.sha256:
            raise ContentMismatch(
                f"{name} is not reproducible: built anew it is another wheel",
                cause=f"its sha256 is {hashlib.sha256(data).hexdigest()}, {file.content.sha256} is pinned",
                hint="build where the wheel is in the store, push to where its layer is already, or pin it anew with "
                "'layerbuild lock --update NAME'",
            )
        data = data[offset : None if length is None else offset + length]
        for start in range(0, len(data), _CHUNK):
            yield data[start : start + _CHUNK]

    def _wheel(self, pin: Pin, source: PinnedFile) -> tuple[str, bytes]:
        """Name and bytes of the wheel, built and packed anew."""
        what = shown(pin.source.removeprefix(SCHEME))
        require_online(self._context, f"the wheel that is built from {what}")
        interpreter = find(pin.version or "")
        with (
            tempfile.TemporaryDirectory(prefix="layerbuild-") as name,
            self._context.progress.task(f"build {source.path}"),
        ):
            directory = Path(name)
            (directory / "in").mkdir()
            place = directory / "in" / Path(source.path).name
            with place.open("wb") as file:
                fetched = self._web.open(replace(pin, source=pin.source.removeprefix(SCHEME)), source)
                for chunk in verified(fetched, source.content, what=what):
                    file.write(chunk)
            (directory / "constraints.txt").write_text("".join(f"{line}\n" for line in pin.constraints))
            uv.run(
                self._context.environ,
                *("build", "--quiet", "--wheel", "--out-dir", "out", "--no-create-gitignore"),
                *("--python", str(interpreter.path), "--build-constraints", "constraints.txt"),
                *("--exclude-newer", _stamp(pin.date or 0), str(place.relative_to(directory))),
                directory=directory,
                what=f"{what} cannot be built",
                alone=True,
                further={"SOURCE_DATE_EPOCH": str(MTIME), "PYTHONHASHSEED": "0"},
            )
            return _packed(directory / "out", what)


def _stamp(date: int) -> str:
    return datetime.fromtimestamp(date, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _packed(directory: Path, what: str) -> tuple[str, bytes]:
    """The one wheel of a directory: files in the order of their names, of one time, not compressed."""
    made = sorted(directory.glob("*.whl"))
    if len(made) != 1 or made[0].stat().st_size > _MAX_WHEEL:
        raise SourceError(
            f"{what} was built, and gave {len(made)} wheels, or one that is too large",
            hint="name packages that have wheels, or a wheel by its address",
        )
    stream = io.BytesIO()
    with made[0].open("rb") as file, zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as packed:
        inspection.inspect(file, made[0].name)
        members = archive.members(file, what=made[0].name)
        if sum(member.size for member in members.values()) > _MAX_WHEEL:
            raise SourceError(
                f"{what} was built, and gave a wheel that is too large",
                hint="name packages that have wheels, or a wheel by its address",
            )
        for path in sorted(members, key=str.encode):
            info = zipfile.ZipInfo(path, _TIME)
            info.create_system, info.external_attr = 3, (0o100755 if members[path].executable else 0o100644) << 16
            packed.writestr(info, b"".join(archive.read(file, members[path], what=path)))
    return made[0].name, stream.getvalue()
