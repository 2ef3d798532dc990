"""`lockfile.yaml`: read with suspicion, written so that a change is a small diff.

Every section is a map in a fixed order, one line per thing that can change by itself, LF, no
aliases, no dates, no machine paths. Writing is atomic.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from layerbuild import yamlfile
from layerbuild.buckets import SLOTS, Buckets
from layerbuild.errors import LockError, ProjectError
from layerbuild.lockmodel import VERSION, Lock, LockedBase, LockedImage, LockedLayer
from layerbuild.model import Blob, Content, Directory, Facts, Pin, PinnedFile, Receipt
from layerbuild.paths import unsafe_reason

_HEAD = """\
# Written by layerbuild: pins, facts and receipts. Review it like code; change declarations instead.
"""

_HEX64 = re.compile(r"[0-9a-f]{64}")
_HEX16 = re.compile(r"[0-9a-f]{16}")
_HEX40 = re.compile(r"[0-9a-f]{40}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
T = TypeVar("T")


class _Flow(dict[str, Any]):
    """A mapping that is written on one line."""


class _FlowList(list[Any]):
    """A list that is written on one line."""


_Base: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _Dumper(_Base):  # type: ignore[misc]
    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_representer(_Flow, lambda d, v: d.represent_mapping("tag:yaml.org,2002:map", v.items(), flow_style=True))
_Dumper.add_representer(_FlowList, lambda d, v: d.represent_sequence("tag:yaml.org,2002:seq", v, flow_style=True))


def dump(lock: Lock) -> str:
    """The lock's text."""
    data: dict[str, Any] = {
        "version": VERSION,
        "layers": {name: _layer(layer) for name, layer in sorted(lock.layers.items())},
        "files": {sha: _facts(facts) for sha, facts in sorted(lock.files.items())},
        "receipts": {key: _receipt(receipt) for key, receipt in sorted(lock.receipts.items())},
        "images": {name: _image(image) for name, image in sorted(lock.images.items())},
        "unlocked": dict(sorted(lock.unlocked.items())),
    }
    body: str = yaml.dump(
        data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=2**31 - 1, default_flow_style=False
    )
    return _HEAD + body


def _some(**fields: Any) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value not in (None, (), [], {})}


def _layer(layer: LockedLayer) -> dict[str, Any]:
    return {"declaration": layer.declaration, "pins": {role: _pin(pin) for role, pin in sorted(layer.pins.items())}}


def _pin(pin: Pin) -> dict[str, Any]:
    files = [
        _Flow(path=f.path, **_some(size=f.content.size, sha256=f.content.sha256, git_blob=f.content.git_blob))
        for f in pin.files
    ]
    return {
        "source": pin.source,
        **_some(revision=pin.revision, ref=pin.ref, tree=pin.tree, listing=pin.listing, files=files),
        **_some(absent=_FlowList(sorted(pin.absent)), date=pin.date, version=pin.version),
    }


def _facts(facts: Facts) -> dict[str, Any]:
    fields = _some(
        size=facts.size,
        git_blob=facts.git_blob,
        header_size=facts.header_size,
        header_sha256=facts.header_sha256,
        addnet=facts.addnet,
        architecture=facts.architecture,
        metadata=facts.metadata,
    )
    if facts.safetensors is not None:
        fields["safetensors"] = facts.safetensors
    return _Flow(fields) if facts.safetensors is None else fields


def _receipt(receipt: Receipt) -> dict[str, Any]:
    blobs = [_Flow(encoding=b.encoding, digest=b.digest, size=b.size) for b in receipt.blobs]
    return {"diff_id": receipt.diff_id, "size": receipt.size, **_some(blobs=blobs)}


def _image(image: LockedImage) -> dict[str, Any]:
    fields: dict[str, Any] = {"platform": image.platform, "settings": image.settings}
    if image.base is not None:
        base: dict[str, Any] = {"reference": image.base.reference, "digest": image.base.digest}
        if image.base.directories:
            base["directories"] = {path: _directory(d) for path, d in sorted(image.base.directories.items())}
        fields["base"] = base
    if image.buckets is not None:
        fields["buckets"] = _Flow(threshold=image.buckets.threshold, bits=image.buckets.bits)
    fields["layers"] = list(image.layers)
    return {**fields, **_some(manifest=image.manifest)}


def _directory(directory: Directory | None) -> Any:
    return None if directory is None else f"{directory.mode:04o} {directory.uid}:{directory.gid}"


# --- reading ---------------------------------------------------------------------------------


def parse(text: str, name: str = "lockfile.yaml") -> Lock:
    """A lock from its text.

    Raises:
        LockError: it is not a lock, is of a newer version, or holds what no lock can hold.
    """
    if re.search(r"^(<{7}|={7}|>{7})", text, re.MULTILINE):
        raise LockError(
            f"{name} holds conflict markers of a merge",
            hint="take either side (git checkout --ours lockfile.yaml) and run 'layerbuild lock'",
        )
    try:
        document = yamlfile.parse(text, name)
    except ProjectError as error:
        raise LockError(f"{name} cannot be read", cause=str(error.problems[0]), hint=_RESTORE) from None
    reader = _Reader(document)
    data = reader.mapping((), document.data)
    version = data.get("version")
    if type(version) is not int or not 1 <= version <= VERSION:
        if type(version) is int and version > VERSION:
            raise LockError(f"{name} has version {version}, this layerbuild knows {VERSION}", hint="update layerbuild")
        raise reader.fail(("version",), f"the number {VERSION} is expected")
    reader.only((), data, {"version", "layers", "files", "receipts", "images", "unlocked"})
    return Lock(
        layers=reader.section("layers", reader.layer),
        files=reader.section("files", reader.facts),
        receipts=reader.section("receipts", reader.receipt),
        images=reader.section("images", reader.image),
        unlocked=reader.section("unlocked", reader.text),
    )


_RESTORE = "restore it from git, or delete it and run 'layerbuild lock'"
Path_ = tuple[str | int, ...]


class _Reader:
    """Takes the data apart; every doubt is a `LockError` with file, line and key."""

    def __init__(self, document: yamlfile.Document) -> None:
        self.document = document

    def fail(self, path: Path_, message: str) -> LockError:
        problem = self.document.problem(path, message)
        return LockError(f"the lock is damaged or was edited by hand: {problem}", hint=_RESTORE)

    def mapping(self, path: Path_, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self.fail(path, "a mapping is expected")
        return value

    def only(self, path: Path_, value: Mapping[str, Any], known: set[str]) -> None:
        for key in value:
            if key not in known:
                raise self.fail((*path, key), "unknown key")

    def section(self, name: str, read: Callable[[Path_, Any], T]) -> dict[str, T]:
        value = self.document.data.get(name)
        items = self.mapping((name,), {} if value is None else value)
        return {key: read((name, key), item) for key, item in items.items()}

    def text(self, path: Path_, value: Any) -> str:
        if not isinstance(value, str):
            raise self.fail(path, "text is expected")
        return value

    def number(self, path: Path_, value: Any) -> int:
        if type(value) is not int or not 0 <= value < 2**63:
            raise self.fail(path, "a whole number that is not negative is expected")
        return value

    def matching(self, pattern: re.Pattern[str], path: Path_, value: Any) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise self.fail(path, f"{str(value)[:80]!r} is no digest")
        return value

    def maybe(self, path: Path_, data: Mapping[str, Any], key: str, read: Callable[[Path_, Any], T]) -> T | None:
        return read((*path, key), data[key]) if key in data and data[key] is not None else None

    def hex64(self, path: Path_, value: Any) -> str:
        return self.matching(_HEX64, path, value)

    def hex40(self, path: Path_, value: Any) -> str:
        return self.matching(_HEX40, path, value)

    def digest(self, path: Path_, value: Any) -> str:
        return self.matching(_DIGEST, path, value)

    def items(self, path: Path_, value: Any, read: Callable[[Path_, Any], T]) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise self.fail(path, "a list is expected")
        return tuple(read((*path, i), item) for i, item in enumerate(value))

    def safe_path(self, path: Path_, value: Any) -> str:
        text = self.text(path, value)
        reason = unsafe_reason(text)
        if reason:
            raise self.fail(path, f"{text!r} cannot be a path in a layer: {reason}")
        return text

    def layer(self, path: Path_, value: Any) -> LockedLayer:
        data = self.mapping(path, value)
        self.only(path, data, {"declaration", "pins"})
        pins = self.mapping((*path, "pins"), data.get("pins"))
        return LockedLayer(
            declaration=self.hex64((*path, "declaration"), data.get("declaration")),
            pins={role: self.pin((*path, "pins", role), pin) for role, pin in pins.items()},
        )

    def pin(self, path: Path_, value: Any) -> Pin:
        data = self.mapping(path, value)
        self.only(path, data, {"source", "revision", "ref", "tree", "listing", "files", "absent", "date", "version"})
        files = self.items((*path, "files"), data.get("files", []), self.file)
        seen: set[str] = set()
        for i, file in enumerate(files):
            if file.path in seen:
                raise self.fail((*path, "files", i), f"{file.path!r} is listed twice")
            seen.add(file.path)
        return Pin(
            source=self.text((*path, "source"), data.get("source")),
            revision=self.maybe(path, data, "revision", self.hex40),
            ref=self.maybe(path, data, "ref", self.safe_path),
            tree=self.maybe(path, data, "tree", self.hex40),
            listing=self.maybe(path, data, "listing", self.hex64),
            files=files,
            absent=self.items((*path, "absent"), data.get("absent", []), self.safe_path),
            date=self.maybe(path, data, "date", self.number),
            version=self.maybe(path, data, "version", self.text),
        )

    def file(self, path: Path_, value: Any) -> PinnedFile:
        data = self.mapping(path, value)
        self.only(path, data, {"path", "size", "sha256", "git_blob"})
        content = Content(
            size=self.maybe(path, data, "size", self.number),
            sha256=self.maybe(path, data, "sha256", self.hex64),
            git_blob=self.maybe(path, data, "git_blob", self.hex40),
        )
        if content.sha256 is None and content.git_blob is None:
            raise self.fail(path, "a file without a digest")
        return PinnedFile(path=self.safe_path((*path, "path"), data.get("path")), content=content)

    def facts(self, path: Path_, value: Any) -> Facts:
        self.hex64(path, path[-1])
        data = self.mapping(path, value)
        known = {
            "size",
            "git_blob",
            "safetensors",
            "header_size",
            "header_sha256",
            "metadata",
            "addnet",
            "architecture",
        }
        self.only(path, data, known)
        safetensors = data.get("safetensors")
        if safetensors is not None and not isinstance(safetensors, bool):
            raise self.fail((*path, "safetensors"), "true or false is expected")
        return Facts(
            size=self.number((*path, "size"), data.get("size")),
            git_blob=self.maybe(path, data, "git_blob", self.hex40),
            safetensors=safetensors,
            header_size=self.maybe(path, data, "header_size", self.number),
            header_sha256=self.maybe(path, data, "header_sha256", self.hex64),
            metadata=self.maybe(path, data, "metadata", self.text),
            addnet=self.maybe(path, data, "addnet", self.hex64),
            architecture=self.maybe(path, data, "architecture", self.text),
        )

    def receipt(self, path: Path_, value: Any) -> Receipt:
        data = self.mapping(path, value)
        self.only(path, data, {"diff_id", "size", "blobs"})
        return Receipt(
            key=self.hex64(path, path[-1]),
            diff_id=self.digest((*path, "diff_id"), data.get("diff_id")),
            size=self.number((*path, "size"), data.get("size")),
            blobs=self.items((*path, "blobs"), data.get("blobs", []), self.blob),
        )

    def blob(self, path: Path_, value: Any) -> Blob:
        data = self.mapping(path, value)
        self.only(path, data, {"encoding", "digest", "size"})
        return Blob(
            encoding=self.text((*path, "encoding"), data.get("encoding")),
            digest=self.digest((*path, "digest"), data.get("digest")),
            size=self.number((*path, "size"), data.get("size")),
        )

    def image(self, path: Path_, value: Any) -> LockedImage:
        data = self.mapping(path, value)
        self.only(path, data, {"platform", "settings", "base", "buckets", "layers", "manifest"})
        return LockedImage(
            platform=self.text((*path, "platform"), data.get("platform")),
            settings=self.matching(_HEX16, (*path, "settings"), data.get("settings")),
            base=self.maybe(path, data, "base", self.base),
            buckets=self.maybe(path, data, "buckets", self.buckets),
            layers=self.items((*path, "layers"), data.get("layers"), self.text),
            manifest=self.maybe(path, data, "manifest", self.digest),
        )

    def buckets(self, path: Path_, value: Any) -> Buckets:
        data = self.mapping(path, value)
        self.only(path, data, {"threshold", "bits"})
        bits = self.number((*path, "bits"), data.get("bits"))
        if bits >= SLOTS.bit_length():
            raise self.fail((*path, "bits"), "more buckets than an image has layers")
        return Buckets(threshold=self.number((*path, "threshold"), data.get("threshold")), bits=bits)

    def base(self, path: Path_, value: Any) -> LockedBase:
        data = self.mapping(path, value)
        self.only(path, data, {"reference", "digest", "directories"})
        directories = self.mapping((*path, "directories"), data.get("directories", {}))
        return LockedBase(
            reference=self.text((*path, "reference"), data.get("reference")),
            digest=self.digest((*path, "digest"), data.get("digest")),
            directories={p: self.directory((*path, "directories", p), d) for p, d in directories.items()},
        )

    def directory(self, path: Path_, value: Any) -> Directory | None:
        name = self.safe_path(path, path[-1])
        if value is None:
            return None
        match = re.fullmatch(r"([0-7]{4}) ([0-9]{1,10}):([0-9]{1,10})", str(value))
        if match is None:
            raise self.fail(path, "mode and owner are expected, as in '0755 0:0'")
        return Directory(path=name, mode=int(match[1], 8), uid=int(match[2]), gid=int(match[3]))


def read(path: Path) -> Lock | None:
    """The lock at `path`, None where there is none.

    Raises:
        LockError: it cannot be read; see `parse`.
    """
    try:
        return parse(path.read_bytes().decode("utf-8").replace("\r\n", "\n"), path.name)
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise LockError(f"{path.name} cannot be read", cause=str(error), hint=_RESTORE) from None


def write(path: Path, lock: Lock) -> bool:
    """Write the lock atomically. Returns whether a byte changed; if none did, nothing is written."""
    data = dump(lock).encode()
    with contextlib.suppress(OSError):
        if path.read_bytes() == data:
            return False
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
            Path(temporary).chmod(mode)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise LockError(
            f"{path.name} cannot be written",
            cause=error.strerror,
            hint="make room, or make its directory writable; the lock that was there is untouched",
        ) from None
    return True
