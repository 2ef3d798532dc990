"""Reads the text of a lock with suspicion: every doubt is a `LockError` with file, line and key."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, TypeVar

from layerbuild import yamlfile
from layerbuild.buckets import SLOTS, Buckets
from layerbuild.errors import LockError, ProjectError
from layerbuild.lockmerge import conflicted
from layerbuild.lockmodel import VERSION, Lock, LockedBase, LockedImage, LockedIndex, LockedLayer
from layerbuild.model import Blob, Content, Directory, Facts, Pin, PinnedFile, Receipt
from layerbuild.paths import unsafe_reason
from layerbuild.yamlfile import KeyPath

_HEX64 = re.compile(r"[0-9a-f]{64}")
_HEX16 = re.compile(r"[0-9a-f]{16}")
_HEX40 = re.compile(r"[0-9a-f]{40}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_PIN = {field.name for field in fields(Pin)}
T = TypeVar("T")


def parse(text: str, name: str = "lockfile.yaml") -> Lock:
    """A lock from its text.

    Raises:
        LockError: it is not a lock, is of a newer version, or holds what no lock can hold.
    """
    if conflicted(text):
        raise LockError(
            f"{name} holds conflict markers of a merge",
            hint="run 'layerbuild lock', which takes what both sides agree on, and names the rest",
        )
    try:
        document = yamlfile.parse(text, name)
    except ProjectError as error:
        raise LockError(f"{name} cannot be read", cause=str(error.problems[0]), hint=RESTORE) from None
    reader = _Reader(document)
    data = reader.mapping((), document.data)
    version = data.get("version")
    if type(version) is not int or not 1 <= version <= VERSION:
        if type(version) is int and version > VERSION:
            raise LockError(f"{name} has version {version}, this layerbuild knows {VERSION}", hint="update layerbuild")
        raise reader.fail(("version",), f"the number {VERSION} is expected")
    reader.only((), data, {"version", "layers", "files", "receipts", "images", "indexes", "unlocked"})
    return Lock(
        layers=reader.section("layers", reader.layer),
        files=reader.section("files", reader.facts),
        receipts=reader.section("receipts", reader.receipt),
        images=reader.section("images", reader.image),
        indexes=reader.section("indexes", reader.index),
        unlocked=reader.section("unlocked", reader.text),
    )


RESTORE = "restore it from git, or delete it and run 'layerbuild lock'"


class _Reader:
    """Takes the data apart; every doubt is a `LockError` with file, line and key."""

    def __init__(self, document: yamlfile.Document) -> None:
        self.document = document
        self._directories: dict[tuple[str | int, str], Directory] = {}

    def fail(self, path: KeyPath, message: str) -> LockError:
        problem = self.document.problem(path, message)
        return LockError(f"the lock is damaged or was edited by hand: {problem}", hint=RESTORE)

    def mapping(self, path: KeyPath, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self.fail(path, "a mapping is expected")
        return value

    def only(self, path: KeyPath, value: Mapping[str, Any], known: set[str]) -> None:
        for key in value:
            if key not in known:
                raise self.fail((*path, key), "unknown key")

    def section(self, name: str, read: Callable[[KeyPath, Any], T]) -> dict[str, T]:
        value = self.document.data.get(name)
        items = self.mapping((name,), {} if value is None else value)
        return {key: read((name, key), item) for key, item in items.items()}

    def text(self, path: KeyPath, value: Any) -> str:
        if not isinstance(value, str):
            raise self.fail(path, "text is expected")
        return value

    def number(self, path: KeyPath, value: Any) -> int:
        if type(value) is not int or not 0 <= value < 2**63:
            raise self.fail(path, "a whole number that is not negative is expected")
        return value

    def matching(self, pattern: re.Pattern[str], path: KeyPath, value: Any) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise self.fail(path, f"{str(value)[:80]!r} is no digest")
        return value

    def maybe(self, path: KeyPath, data: Mapping[str, Any], key: str, read: Callable[[KeyPath, Any], T]) -> T | None:
        return read((*path, key), data[key]) if key in data and data[key] is not None else None

    def hex64(self, path: KeyPath, value: Any) -> str:
        return self.matching(_HEX64, path, value)

    def hex40(self, path: KeyPath, value: Any) -> str:
        return self.matching(_HEX40, path, value)

    def digest(self, path: KeyPath, value: Any) -> str:
        return self.matching(_DIGEST, path, value)

    def items(self, path: KeyPath, value: Any, read: Callable[[KeyPath, Any], T]) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise self.fail(path, "a list is expected")
        return tuple(read((*path, i), item) for i, item in enumerate(value))

    def safe_path(self, path: KeyPath, value: Any) -> str:
        text = self.text(path, value)
        reason = unsafe_reason(text)
        if reason:
            raise self.fail(path, f"{text!r} cannot be a path in a layer: {reason}")
        return text

    def layer(self, path: KeyPath, value: Any) -> LockedLayer:
        data = self.mapping(path, value)
        self.only(path, data, {"declaration", "pins"})
        pins = self.mapping((*path, "pins"), data.get("pins"))
        return LockedLayer(
            declaration=self.hex64((*path, "declaration"), data.get("declaration")),
            pins={role: self.pin((*path, "pins", role), pin) for role, pin in pins.items()},
        )

    def pin(self, path: KeyPath, value: Any) -> Pin:
        data = self.mapping(path, value)
        self.only(path, data, _PIN)
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
            mirrors=self.items((*path, "mirrors"), data.get("mirrors", []), self.text),
            headers=self.headers((*path, "headers"), data.get("headers", {})),
            blob=self.maybe(path, data, "blob", self.digest),
            offset=self.maybe(path, data, "offset", self.number),
            constraints=self.items((*path, "constraints"), data.get("constraints", []), self.text),
        )

    def headers(self, path: KeyPath, value: Any) -> tuple[tuple[str, str], ...]:
        return tuple((name, self.text((*path, name), text)) for name, text in self.mapping(path, value).items())

    def file(self, path: KeyPath, value: Any) -> PinnedFile:
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

    def facts(self, path: KeyPath, value: Any) -> Facts:
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
            "pickle",
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
            pickle=self.maybe(path, data, "pickle", self.text),
        )

    def receipt(self, path: KeyPath, value: Any) -> Receipt:
        data = self.mapping(path, value)
        self.only(path, data, {"diff_id", "size", "blobs"})
        return Receipt(
            key=self.hex64(path, path[-1]),
            diff_id=self.digest((*path, "diff_id"), data.get("diff_id")),
            size=self.number((*path, "size"), data.get("size")),
            blobs=self.items((*path, "blobs"), data.get("blobs", []), self.blob),
        )

    def blob(self, path: KeyPath, value: Any) -> Blob:
        data = self.mapping(path, value)
        self.only(path, data, {"encoding", "digest", "size"})
        return Blob(
            encoding=self.text((*path, "encoding"), data.get("encoding")),
            digest=self.digest((*path, "digest"), data.get("digest")),
            size=self.number((*path, "size"), data.get("size")),
        )

    def image(self, path: KeyPath, value: Any) -> LockedImage:
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

    def index(self, path: KeyPath, value: Any) -> LockedIndex:
        data = self.mapping(path, value)
        self.only(path, data, {"platforms", "digest"})
        platforms = self.items((*path, "platforms"), data.get("platforms"), self.text)
        if len(set(platforms)) != len(platforms) or len(platforms) < 2:
            raise self.fail((*path, "platforms"), "several platforms are expected, each once")
        return LockedIndex(platforms=platforms, digest=self.maybe(path, data, "digest", self.digest))

    def buckets(self, path: KeyPath, value: Any) -> Buckets:
        data = self.mapping(path, value)
        self.only(path, data, {"threshold", "bits"})
        bits = self.number((*path, "bits"), data.get("bits"))
        if bits >= SLOTS.bit_length():
            raise self.fail((*path, "bits"), "more buckets than an image has layers")
        return Buckets(threshold=self.number((*path, "threshold"), data.get("threshold")), bits=bits)

    def base(self, path: KeyPath, value: Any) -> LockedBase:
        data = self.mapping(path, value)
        self.only(path, data, {"reference", "digest", "directories"})
        directories = self.mapping((*path, "directories"), data.get("directories", {}))
        return LockedBase(
            reference=self.text((*path, "reference"), data.get("reference")),
            digest=self.digest((*path, "digest"), data.get("digest")),
            directories={p: self.directory((*path, "directories", p), d) for p, d in directories.items()},
        )

    def directory(self, path: KeyPath, value: Any) -> Directory | None:
        # A base's directories stand in each image on it.
        known = self._directories.get((path[-1], str(value)))
        if known is not None:
            return known
        name = self.safe_path(path, path[-1])
        if value is None:
            return None
        match = re.fullmatch(r"([0-7]{4}) ([0-9]{1,10}):([0-9]{1,10})", str(value))
        if match is None:
            raise self.fail(path, "mode and owner are expected, as in '0755 0:0'")
        directory = Directory(path=name, mode=int(match[1], 8), uid=int(match[2]), gid=int(match[3]))
        self._directories[path[-1], str(value)] = directory
        return directory
