"""What a wheel holds: its files with their digests, held against its own RECORD, and what becomes scripts.

The result is a small document that follows from the wheel's bytes alone. With it a layer can be described without
the wheel.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO

from layerbuild.errors import SourceError
from layerbuild.model import canonical_json
from layerbuild.wheels import archive, record, scripts
from layerbuild.wheels.archive import Member
from layerbuild.wheels.names import normalized, of_wheel

REVISION = 1
"""Of the document."""

_MAX_METADATA = 64 * 1024 * 1024
"""Bytes of a RECORD or another of a wheel's own files, which are read as a whole."""

_MAX_SCRIPT = 1024 * 1024
_ASKS = b"#!python"
_CATEGORIES = frozenset({"purelib", "platlib", "headers", "scripts", "data"})
_SIGNATURES = ("RECORD.jws", "RECORD.p7s")


@dataclass(frozen=True, kw_only=True)
class WheelFile:
    """A file of a wheel, or what becomes of it; bytes, and whether anybody may run it."""

    sha256: str
    size: int
    executable: bool


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """What is in a wheel.

    Attributes:
        name, version: as the file name has them.
        files: by path in the archive, without RECORD and what signs it.
        scripts: by path in the archive, of files that ask for a Python by `#!python`: their bytes.
        entry_points: `module:attribute` of each script that is to be made, by name.
    """

    name: str
    version: str
    files: Mapping[str, WheelFile]
    scripts: Mapping[str, bytes]
    entry_points: Mapping[str, str]

    @property
    def stem(self) -> str:
        """What the names of its own directories begin with."""
        return f"{self.name}-{self.version}"

    def document(self) -> bytes:
        """Canonical JSON."""
        value = {
            "name": self.name,
            "version": self.version,
            "files": [[path, f.sha256, f.size, f.executable] for path, f in sorted(self.files.items())],
            "scripts": {path: base64.b64encode(data).decode() for path, data in self.scripts.items()},
            "entry_points": dict(self.entry_points),
        }
        return canonical_json(value).encode()


def from_document(data: bytes) -> Wheel:
    """The reverse of `Wheel.document`."""
    value = json.loads(data)
    return Wheel(
        name=value["name"],
        version=value["version"],
        files={
            path: WheelFile(sha256=sha256, size=size, executable=executable)
            for path, sha256, size, executable in value["files"]
        },
        scripts={path: base64.b64decode(text) for path, text in value["scripts"].items()},
        entry_points=value["entry_points"],
    )


def inspect(file: BinaryIO, filename: str) -> Wheel:
    """What is in the wheel that `file` holds. Files that its RECORD says nothing of are read and hashed.

    Raises:
        SourceError: it is no wheel, or not the one that its name says, or its RECORD contradicts what is there.
    """
    found = archive.members(file, what=filename)
    stem = _stem(found, filename)
    info = f"{stem}.dist-info"
    _check_version(_text(file, found, f"{info}/WHEEL", filename), filename)
    recorded = record.parse(_text(file, found, f"{info}/RECORD", filename), what=filename)
    files: dict[str, WheelFile] = {}
    own: dict[str, bytes] = {}
    for path, member in found.items():
        if path == f"{info}/RECORD" or path in (f"{info}/{name}" for name in _SIGNATURES):
            continue
        category = _category(path, stem, filename)
        files[path] = _file(file, path, member, recorded, filename)
        if category == "scripts" and member.size <= _MAX_SCRIPT:
            data = b"".join(archive.read(file, member, what=f"{path} of {filename}"))
            if data.startswith(_ASKS):
                own[path] = data
    missing = [path for path in recorded if path not in found and not path.endswith(".pyc")]
    if missing:
        raise SourceError(
            f"{filename} lacks {missing[0][:200]!r}, which its RECORD names",
            hint="whoever made it must make it anew",
        )
    points = f"{info}/entry_points.txt"
    listed = scripts.entry_points(_text(file, found, points, filename), what=filename) if points in found else {}
    name, _, version = stem.partition("-")
    return Wheel(name=name, version=version, files=files, scripts=own, entry_points=listed)


def _stem(found: Mapping[str, Member], filename: str) -> str:
    """What its `.dist-info` is called, which must fit the file's name."""
    name, version = of_wheel(filename)
    stems = {path.partition("/")[0].removesuffix(".dist-info") for path in found if ".dist-info/" in path}
    stems = {stem for stem in stems if f"{stem}.dist-info/WHEEL" in found}
    if len(stems) != 1:
        raise SourceError(
            f"{filename} is no wheel",
            cause=f"it has {len(stems)} directories NAME-VERSION.dist-info",
            hint="do not use this wheel: no installer would take it",
        )
    (stem,) = stems
    if normalized(stem.partition("-")[0]) != normalized(name) or "-" in stem.partition("-")[2]:
        raise SourceError(f"{filename} holds {stem[:200]}, and not {name} {version}", hint="do not use it")
    return stem


def _check_version(text: bytes, filename: str) -> None:
    for line in text.decode("utf-8", "replace").splitlines():
        key, _, value = line.partition(":")
        if key.strip().lower() == "wheel-version" and value.strip().partition(".")[0] == "1":
            return
    raise SourceError(
        f"{filename} is of a version of the wheel format that is not known here", hint="update layerbuild"
    )


def _category(path: str, stem: str, filename: str) -> str | None:
    """Where a file of the wheel's `.data` directory belongs; None for all others."""
    top, _, rest = path.partition("/")
    if top != f"{stem}.data":
        return None
    category, slash, _ = rest.partition("/")
    if category not in _CATEGORIES or not slash:
        raise SourceError(f"{filename} has a file that belongs nowhere: {path[:200]}", hint="do not use it")
    return category


def _file(
    file: BinaryIO, path: str, member: Member, recorded: Mapping[str, record.Recorded], filename: str
) -> WheelFile:
    """A file as its RECORD has it. Its digest is held against its bytes whenever these are read."""
    said = recorded.get(path)
    if said is not None and said.size is not None and said.size != member.size:
        raise SourceError(
            f"{path[:200]} of {filename} is not what its RECORD says",
            cause=f"it has {member.size} bytes, RECORD says {said.size}",
            hint="whoever made it must make it anew",
        )
    if said is not None and said.sha256 is not None:
        return WheelFile(sha256=said.sha256, size=member.size, executable=member.executable)
    digest = hashlib.sha256()
    for chunk in archive.read(file, member, what=f"{path} of {filename}"):
        digest.update(chunk)
    return WheelFile(sha256=digest.hexdigest(), size=member.size, executable=member.executable)


def _text(file: BinaryIO, found: Mapping[str, Member], path: str, filename: str) -> bytes:
    member = found.get(path)
    if member is None or member.size > _MAX_METADATA:
        raise SourceError(
            f"{filename} is no wheel",
            cause=f"{path} is not there, or is very large",
            hint="do not use this wheel: no installer would take it",
        )
    return b"".join(archive.read(file, member, what=f"{path} of {filename}"))
