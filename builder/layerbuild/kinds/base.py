"""What every kind shares: weights paths, parent directories, the knowledge that `describe` may ask."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from layerbuild.errors import SourceError
from layerbuild.model import Content, Entry, Instance, Target, canonical_json
from layerbuild.paths import parents
from layerbuild.wheels.inspection import Wheel

WEIGHTS = "opt/weights/sha256"
"""Where every weights layer puts its files, whatever the image."""

Json = Mapping[str, Any]


class Knowledge(Protocol):
    """What is known of contents without opening them."""

    def size(self, content: Content) -> int | None:
        """Bytes of a content, None while nobody knows."""

    def document(self, sha256: str) -> bytes:
        """A small text by its digest: a git listing, a safetensors header.

        Raises:
            LayerbuildError: it is not on this machine.
        """

    def wheel(self, sha256: str) -> Wheel:
        """What is in a wheel.

        Raises:
            LayerbuildError: nobody has looked into it on this machine.
        """

    def bytecode(
        self, python: str, sources: Sequence[tuple[str, Content]], *, listing: str | None = None
    ) -> Mapping[str, Content]:
        """The bytecode of sources that lie at absolute paths in the image, by these; without those that are no valid
        sources of that Python.

        Args:
            python: version, as in `Target`.
            listing: sha256 of the git tree's listing that the sources are of.

        Raises:
            LayerbuildError: a source cannot be had or compiled, or there is nothing to compile it with.
        """


class Canonical(str):
    """Canonical JSON of a value. As an item of a list of an instance's inputs it stands for that value, and is
    shared by every instance that has it."""

    __slots__ = ()


def canonical(value: Any) -> Canonical:
    """`value` as an item of inputs that many instances have."""
    return Canonical(canonical_json(value))


def instance(kind: str, revision: int, inputs: Json, label: str) -> Instance:
    """An instance with its inputs in canonical form. A list among them holds `Canonical` items only, or none."""
    return Instance(kind=kind, revision=revision, parts=tuple(_parts(inputs)), label=label)


def _parts(inputs: Json) -> Iterator[str]:
    """Pieces that make up the canonical JSON of `inputs`."""
    made = "{"
    for number, name in enumerate(sorted(inputs)):
        value = inputs[name]
        made += f"{',' if number else ''}{canonical_json(name)}:"
        if isinstance(value, list) and value and isinstance(value[0], Canonical):
            made += "["
            for item in value:
                yield made
                yield item
                made = ","
            made = "]"
        else:
            made += canonical_json(value)
    yield made + "}"


def strip(path: str) -> str:
    """An absolute path as an entry's path."""
    return path.strip("/")


def weights_path(sha256: str) -> str:
    """Absolute path of a weights file in every image."""
    return f"/{WEIGHTS}/{sha256}"


def owner(target: Target) -> dict[str, int]:
    """The owner as inputs of an instance."""
    return {"uid": target.uid, "gid": target.gid}


SHARED_PARENTS = frozenset({"", "opt"})
"""Directories of every base that no layer touches: repeating one would replace its attributes."""


def base_directories(paths: Iterable[str], target: Target) -> list[dict[str, Any]]:
    """Of the base's directories, those above `paths`, as inputs: their attributes are repeated."""
    above = {parent for path in paths for parent in parents(path)}
    return [
        {"path": d.path, "mode": d.mode, "uid": d.uid, "gid": d.gid}
        for d in sorted(target.directories, key=lambda d: d.path)
        if d.path in above
    ]


def with_parents(entries: Iterable[Entry], inputs: Json, *, uid: int = 0, gid: int = 0) -> list[Entry]:
    """`entries` and every directory above them, sorted by path bytes, parents first.

    Directories named by `inputs["directories"]` repeat the base's attributes; the others are 0755
    and owned by `uid` and `gid`.

    Raises:
        SourceError: something that is no directory has to hold another path.
    """
    by_path = {entry.path: entry for entry in entries}
    known = {d["path"]: d for d in inputs.get("directories", ())}
    for path in list(by_path):
        for parent in parents(path):
            if parent in SHARED_PARENTS:
                continue
            if parent in by_path:
                _require_directory(by_path[parent], path)
                continue
            attributes = known.get(parent, {"mode": 0o755, "uid": uid, "gid": gid})
            by_path[parent] = Entry(
                path=parent, type="directory", mode=attributes["mode"], uid=attributes["uid"], gid=attributes["gid"]
            )
    # A parent is a prefix of what it holds, so it sorts first by itself.
    return [by_path[path] for path in sorted(by_path, key=str.encode)]


def _require_directory(entry: Entry, path: str) -> None:
    if entry.type != "directory":
        raise SourceError(
            f"/{entry.path} is a {entry.type}, and /{path} needs it to be a directory",
            hint="give one of them another name; if both come from one source, do not use it",
        )
