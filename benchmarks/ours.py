"""layerbuild in the same places as its peers: small projects around one model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import harness
from harness import layerbuild
from peers import IMAGES, LATER, Step, Steps

_LAYERS = "big: {{kind: model, type: checkpoint, source: 'file:{model}'}}\n"
_RECIPE = "name: {name}\nbase: scratch\nwebui: {{root: {root}}}\nlayers: [big]\ntags: [{tag}]\n"

ROOTS = {"one": "/stable-diffusion-webui", "two": "/srv/webui", "three": "/app/webui", "four": "/webui"}
"""Tag -> where that image's webui lies: by this its small layers differ from the others'."""


@contextlib.contextmanager
def away(path: Path) -> Iterator[None]:
    """For a while, a file is not where it was."""
    elsewhere = path.rename(path.with_name(f"{path.name}.away"))
    try:
        yield
    finally:
        elsewhere.rename(path)


@dataclass(frozen=True, kw_only=True)
class Project:
    """A project of one image with one checkpoint, and its lock as it is before anything was built."""

    root: Path
    lock: str

    @classmethod
    def create(cls, root: Path, model: Path, tag: str, store: Path) -> Project:
        """Write it and lock it with a store. The model is used where it lies."""
        for name, text in {
            "layers/big.yaml": _LAYERS.format(model=model),
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
        first, *rest = arguments
        return layerbuild("--project", str(self.root), first, *rest)


class Layerbuild:
    """The lock is there, and nothing else: no receipt, and a store that has never seen the model.

    `elsewhere` is a second image from another machine: an empty store, and the receipts that came with the lock.
    The model's file is away while a second image is pushed: a read would fail.
    """

    name = "layerbuild"
    ours = True

    def __init__(self, root: Path, model: Path) -> None:
        self._model = model
        store = root / "store-lock"
        self.projects = {tag: Project.create(root / f"project-{tag}", model, tag, store) for tag in ROOTS}

    def missing(self) -> str | None:
        """See `peers.Peer`."""
        return None

    def steps(self, host: str, room: Path) -> Steps:
        """One push of each project."""
        for project in self.projects.values():
            project.reset()
        environment = harness.layerbuild_environment(room / "store")
        yield Step(title="first", commands=[self._push("one", host)], environment=environment, inputs=[self._model])
        harness.measure(self.projects["four"].command("build"), environment=environment, cwd=room)
        with away(self._model):
            for title, tag in LATER.items():
                yield Step(title=title, commands=[self._push(tag, host)], environment=environment)
            environment = harness.layerbuild_environment(room / "another-store")
            yield Step(title="elsewhere", commands=[self._push("four", host)], environment=environment)

    def _push(self, tag: str, host: str) -> list[str]:
        return self.projects[tag].command("push", host)


class LayerbuildKnown:
    """The same with a receipt for the model's layer, from a machine that built it: only sending is left."""

    name = "layerbuild, layer known"
    ours = True

    def __init__(self, ours: Layerbuild) -> None:
        self._project = ours.projects["one"]
        self._inputs = [ours._model]

    def missing(self) -> str | None:
        """See `peers.Peer`."""
        return None

    def steps(self, host: str, room: Path) -> Steps:
        """A push after a build."""
        self._project.reset()
        environment = harness.layerbuild_environment(room / "store")
        harness.measure(self._project.command("build"), environment=environment, cwd=room)
        push = [self._project.command("push", host)]
        yield Step(title="first", commands=push, environment=environment, inputs=self._inputs)
