"""The parts that carry a plan out, put together without a command line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from builders import images_of
from layerbuild.execute.build import Builder
from layerbuild.execute.contents import Contents
from layerbuild.execute.lock import Locker
from layerbuild.http import Client
from layerbuild.images import ImageDeclaration
from layerbuild.lockmodel import Lock
from layerbuild.progress import Silent
from layerbuild.sources import Context
from layerbuild.store import Store


def no_base(*_: Any) -> Any:
    """For projects without base images."""
    raise AssertionError("no image here has a base")


@dataclass(kw_only=True)
class Works:
    """A project, a store, and the sources around them."""

    root: Path
    store: Store
    client: Client
    environ: dict[str, str]

    def images(self, layers: str, recipe: str) -> tuple[ImageDeclaration, ...]:
        """The project's images."""
        return images_of(self.root, {"layers/l.yaml": layers, "recipes/r.yaml": recipe})

    def write(self, name: str, data: bytes) -> Path:
        """A file of the project."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    @property
    def context(self) -> Context:
        """What sources are given."""
        return Context(
            open_client=lambda: self.client,
            project=self.root,
            cache=self.store.root,
            environ=self.environ,
            hash_file=self.store.hash_local,
            progress=Silent(),
        )

    def lock(self, images: tuple[ImageDeclaration, ...], old: Lock | None = None) -> Lock:
        """What `layerbuild lock` makes."""
        return Locker(
            images=images,
            old=old or Lock(),
            store=self.store,
            context=self.context,
            progress=Silent(),
            resolve_base=no_base,
            inspect_base=no_base,
        ).run()

    def contents(self, lock: Lock) -> Contents:
        """Contents by digest."""
        return Contents(self.store, self.context, lock, Silent())

    def builder(self, images: tuple[ImageDeclaration, ...], lock: Lock) -> Builder:
        """What builds the images."""
        return Builder(images=images, lock=lock, contents=self.contents(lock), progress=Silent(), fetch_base=no_base)


@pytest.fixture
def new_works(tmp_path: Path, http_client: Client) -> Iterator[Callable[[str], Works]]:
    """Makes one for each name of a store; the project is the same."""
    stores = []

    def make(name: str) -> Works:
        stores.append(Store(tmp_path / name))
        return Works(root=tmp_path / "project", store=stores[-1], client=http_client, environ={})

    yield make
    for store in stores:
        store.close()


@pytest.fixture
def works(new_works: Callable[[str], Works]) -> Works:
    """One of them."""
    return new_works("store")
