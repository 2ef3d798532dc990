"""What the commands of a Dockerfile leave in a stage: downloads, clones, local files. Nothing is run. Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from layerbuild.adding.pasted import MODEL_SUFFIXES
from layerbuild.errors import UsageError
from layerbuild.webui.modeltypes import type_of_place

_MOST = 5000

Verdict = Literal["translated", "unnecessary", "left"]


@dataclass(frozen=True, kw_only=True)
class Remark:
    """What became of a line.

    Attributes:
        line: 1-based, in the Dockerfile.
        what: the command, shortened, without what may be a secret.
        verdict: `left`: it is not translated, and `text` says what to do.
    """

    line: int
    what: str
    verdict: Verdict
    text: str


@dataclass(frozen=True, kw_only=True)
class Download:
    """A file that a line fetches. `source` is as a declaration has it."""

    source: str
    line: int
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A repository of the Hub that a line puts into its cache."""

    source: str
    line: int
    files: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Clone:
    """A git repository; `revision` is None while nothing says which commit."""

    address: str
    line: int
    revision: str | None = None


@dataclass(frozen=True, kw_only=True)
class Local:
    """A file or directory of the build context. `target` is where what lies in a directory goes."""

    path: str
    line: int
    target: str
    mode: str | None = None


Thing = Download | Clone | Local


@dataclass
class Stage:
    """One stage, as it is when its last line is done.

    Attributes:
        image: the base image at the bottom.
        things: what lies where, by absolute path.
        lines: of the FROMs that it is made of.
        modes: of paths that a chmod has named.
        directories: paths that a mkdir has named.
        platform: `os/architecture`, where a FROM says it.
        shell: what runs a CMD that is no list.
    """

    image: str
    name: str = ""
    things: dict[str, Thing] = field(default_factory=dict)
    snapshots: list[Snapshot] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    args: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    workdir_said: bool = False
    cmd: list[str] | None = None
    entrypoint: list[str] | None = None
    user: str | None = None
    ports: list[str] = field(default_factory=list)
    volumes: list[str] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    stop_signal: str | None = None
    checkpoint: str | None = None
    lines: tuple[int, ...] = ()
    modes: dict[str, str] = field(default_factory=dict)
    directories: set[str] = field(default_factory=set)
    platform: str | None = None
    shell: list[str] = field(default_factory=lambda: ["/bin/sh", "-c"])

    @property
    def variables(self) -> Mapping[str, str]:
        """What `$NAME` stands for: ENV wins over ARG."""
        return {**self.args, **self.env}

    def follow(self, name: str, line: int) -> Stage:
        """A stage that begins where this one ends. ARGs do not go on."""
        lists = {"snapshots": [*self.snapshots], "ports": [*self.ports], "volumes": [*self.volumes]}
        maps = {"things": {**self.things}, "env": {**self.env}, "labels": {**self.labels}}
        maps["modes"] = {**self.modes}
        own: dict[str, Any] = {**lists, **maps, "directories": {*self.directories}}
        return replace(self, name=name, args={}, lines=(*self.lines, line), **own)

    def put(self, path: str, thing: Thing) -> None:
        """Something at a path, instead of what was there.

        Raises:
            UsageError: there is too much: a directory that is copied into itself doubles.
        """
        if len(self.things) >= _MOST:
            cause = f"a stage has more than {_MOST} files and clones"
            raise UsageError("no usual Dockerfile has this", cause=cause, hint="import the part that makes the image")
        self.things[path] = thing

    def clone_at(self, path: str) -> tuple[str, Clone] | None:
        """The clone that `path` lies in."""
        while True:
            thing = self.things.get(path)
            if isinstance(thing, Clone):
                return path, thing
            if path in ("/", ""):
                return None
            path = posixpath.dirname(path)

    def is_directory(self, path: str) -> bool:
        """Whether a directory is at a path: it is known, it is one of a webui's for models, or a last slash says it."""
        at = path.rstrip("/")
        if path.endswith("/") or at in self.directories or isinstance(self.things.get(at), Clone):
            return True
        for_models = type_of_place(f"{at}/x") and posixpath.splitext(at)[1].lower() not in MODEL_SUFFIXES
        return bool(for_models) or any(place != at for place in self.below(at))

    def below(self, path: str) -> dict[str, Thing]:
        """What lies at or below a path."""
        path = path.rstrip("/")
        inside = f"{path}/"
        return {place: thing for place, thing in self.things.items() if place == path or place.startswith(inside)}

    def take(self, source: Stage, path: str, target: str) -> bool:
        """What lies at or below `path` of `source`, at `target` here; whether there was anything."""
        return self._put_all(source.below(path), path.rstrip("/"), target)

    def carry(self, path: str, target: str, *, move: bool) -> bool:
        """What lies at or below `path`, at `target`, and not where it was if it moves; whether there was anything."""
        found = self.below(path)
        if move:
            self.drop(path)
        return self._put_all(found, path.rstrip("/"), target)

    def _put_all(self, found: Mapping[str, Thing], path: str, target: str) -> bool:
        for place, thing in found.items():
            there = posixpath.normpath(target + place[len(path) :])
            if isinstance(thing, Local):
                inside = thing.target == path or thing.target.startswith(f"{path}/")
                below = thing.target[len(path) :] if inside else place[len(path) :]
                thing = replace(thing, target=posixpath.normpath(target + below))  # noqa: PLW2901
            self.put(there, thing)
        return bool(found)

    def drop(self, path: str) -> bool:
        """Removes what lies at or below a path; whether there was anything."""
        found = self.below(path)
        for place in found:
            del self.things[place]
        return bool(found)


def absolute(path: str, directory: str) -> str:
    """A path of the image, whose last slash stays: it says that a directory is meant."""
    home = re.sub(r"^~(?=/|$)", "/root", path)
    joined = posixpath.normpath(posixpath.join(directory, home))
    joined = "/" + joined.lstrip("/")
    return joined.rstrip("/") + "/" if path.endswith("/") else joined
