"""layerbuild in the same places as its peers: small projects around one model."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import harness
import layouts
from bars import FROM_SERVER, NO_STORE
from harness import layerbuild
from peers import IMAGES, LATER, Step, Steps

_RECIPE = "name: {name}\nbase: scratch\nwebui: {{root: {root}}}\nlayers: [big]\ntags: [{tag}]\n"

ROOTS = {"one": "/stable-diffusion-webui", "two": "/srv/webui", "three": "/app/webui", "four": "/webui"}
"""Tag -> where that image's webui lies: by this its small layers differ from the others'."""

Declared = Mapping[str, str | int]
"""Where a model comes from, as keys of its declaration."""


@contextlib.contextmanager
def away(path: Path) -> Iterator[None]:
    """For a while, a file is not where it was."""
    elsewhere = path.rename(path.with_name(f"{path.name}.away"))
    try:
        yield
    finally:
        elsewhere.rename(path)


def local(model: Path) -> Declared:
    """A file of this machine."""
    return {"source": f"file:{model}"}


def remote(model: Path, url: str) -> Declared:
    """The same file from a server, with the digest that somebody has published."""
    return {"source": url, "sha256": layouts.sha256(model), "size": model.stat().st_size}


@dataclass(frozen=True, kw_only=True)
class Project:
    """A project of one image with one checkpoint, and its lock as it is before anything was built."""

    root: Path
    lock: str

    @classmethod
    def create(cls, root: Path, model: Declared, tag: str, store: Path) -> Project:
        """Write it, and lock it with a store."""
        for name, text in {
            "layers/big.yaml": json.dumps({"big": {"kind": "model", "type": "checkpoint", **model}}),
            "recipes/image.yaml": _RECIPE.format(name=IMAGES.get(tag, "first"), root=ROOTS[tag], tag=tag),
        }.items():
            path = root / name
            path.parent.mkdir(parents=True)
            path.write_text(text)
        harness.measure(layerbuild("lock"), environment=harness.layerbuild_environment(store), cwd=root)
        return cls(root=root, lock=(root / "lockfile.yaml").read_text())

    def reset(self) -> None:
        """The lock again without receipts."""
        (self.root / "lockfile.yaml").write_text(self.lock)

    def command(self, *arguments: str) -> list[str]:
        """A command on this project."""
        return layerbuild("--project", str(self.root), *arguments)


class _Ours:
    """What all ways of layerbuild have in common."""

    name: str
    ours = True

    def missing(self) -> str | None:
        """See `peers.Peer`."""
        return None


class Layerbuild(_Ours):
    """The lock is there, and nothing else: no receipt, and a store that has never seen the model.

    `elsewhere` is a second image from another machine: an empty store, and the receipts that came with the lock.
    The model's file is away while a second image is pushed: a read would fail.
    """

    name = "layerbuild"

    def __init__(self, root: Path, model: Path) -> None:
        self._model = model
        store = root / "store-lock"
        self._projects = {tag: Project.create(root / f"project-{tag}", local(model), tag, store) for tag in ROOTS}

    def steps(self, host: str, room: Path) -> Steps:
        """One push of each project."""
        for project in self._projects.values():
            project.reset()
        environment = harness.layerbuild_environment(room / "store")
        yield Step(title="first", commands=[self._push("one", host)], environment=environment, inputs=[self._model])
        harness.measure(self._projects["four"].command("build"), environment=environment, cwd=room)
        with away(self._model):
            for title, tag in LATER.items():
                yield Step(title=title, commands=[self._push(tag, host)], environment=environment)
            environment = harness.layerbuild_environment(room / "another-store")
            yield Step(title="elsewhere", commands=[self._push("four", host)], environment=environment)

    def _push(self, tag: str, host: str) -> list[str]:
        return self._projects[tag].command("push", host)


class FirstPush(_Ours):
    """One first push, with an empty store or after a build."""

    def __init__(
        self, name: str, project: Project, model: Path, *, options: Sequence[str] = (), known: bool = False
    ) -> None:
        self.name = name
        self._project = project
        self._model = model
        self._options = options
        self._known = known

    def steps(self, host: str, room: Path) -> Steps:
        """A push. What is known was built on this machine."""
        self._project.reset()
        environment = harness.layerbuild_environment(room / "store")
        if self._known:
            harness.measure(self._project.command("build"), environment=environment, cwd=room)
        push = [self._project.command("push", *self._options, host)]
        yield Step(title="first", commands=push, environment=environment, inputs=[self._model])


def all_ways(root: Path, model: Path, url: str) -> list[Layerbuild | FirstPush]:
    """From a local file, with its layer known, and from the server at `url`."""
    store = root / "store-lock"
    here = Project.create(root / "project-local", local(model), "one", store)
    there = Project.create(root / "project-remote", remote(model, url), "one", store)
    return [
        Layerbuild(root, model),
        FirstPush("layerbuild, layer known", here, model, known=True),
        FirstPush(FROM_SERVER, there, model),
        FirstPush(NO_STORE, there, model, options=["--no-store"]),
    ]
