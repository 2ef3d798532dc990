"""The half of `layerbuild diff` that is about images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import click

from layerbuild.cli.display import size
from layerbuild.cli.reading import Reader, read_elsewhere
from layerbuild.cli.tables import Row, print_field, print_rows
from layerbuild.errors import UsageError
from layerbuild.imagediff import ImageDiff
from layerbuild.inventory import ImageItem, ModelItem, Pull
from layerbuild.selection import lies_elsewhere

_MOST = 30
"""Layers and unchanged models that are shown."""


class Images:
    """The two images that a command line names. Where both lie elsewhere, no project is needed.

    Args:
        platform: of those that are there for several.
    """

    def __init__(self, options: Mapping[str, Any], *, platform: str | None, insecure: Sequence[str]) -> None:
        self._options = options
        self._platform = platform
        self._insecure = insecure

    @cached_property
    def reader(self) -> Reader:
        """The project."""
        return Reader(self._options)

    def are_meant(self, old: str, new: str | None) -> bool:
        """Whether OLD and NEW are images; locks otherwise.

        Raises:
            UsageError: one is, and the other is not.
        """
        images = [name for name in (old, new) if name is not None and self._is_image(name)]
        if images and (len(images) == 1 or new is None):
            raise UsageError(
                f"{images[0]} is an image, and is compared with another image",
                cause="a lock and an image have nothing in common that could differ",
                hint=f"name two images, or write refs/heads/{images[0]} for the branch of that name",
            )
        return bool(images)

    def _is_image(self, name: str) -> bool:
        if Path(name).is_file():
            return False
        if lies_elsewhere(name):
            return True
        lock = self.reader.lock_or_none()
        return lock is not None and (name in lock.images or name in lock.indexes)

    def read(self, name: str) -> ImageItem:
        """The image of that name, for one platform.

        Raises:
            UsageError: it has several, and none or none of these is asked for.
        """
        if lies_elsewhere(name):
            found = list(read_elsewhere(self._options, name, platform=self._platform, insecure=self._insecure))
        else:
            found = self.reader.items(self.reader.select([name]))
        chosen = [image for image in found if self._platform in (None, image.platform)]
        if len(chosen) != 1:
            platforms = ", ".join(image.platform for image in found)
            raise UsageError(f"{name} is there for {platforms}", hint="choose one of these with --platform OS/ARCH")
        return chosen[0]


def print_images(found: ImageDiff) -> None:
    """The comparison for people."""
    renamed = {new.path: old.name for old, new in found.renamed}
    rows = [_row("+", model, "green") for model in found.added]
    rows += [_row("-", model, "red") for model in found.removed]
    for model in found.same[:_MOST]:
        before = renamed.get(model.path)
        rows.append(_row("=", model, None, note=f"was {before}" if before else ""))
    if rows:
        print_rows(["", "MODEL", "TYPE", "SIZE", ""], rows, right=frozenset({3}), yielding=(1, 4))
    if len(found.same) > _MOST:
        click.echo(f"and {len(found.same) - _MOST} more models that both have, which --json lists")
    if not rows:
        click.echo("no models in either")
    click.echo()
    _print_pulls(found)


def _row(sign: str, model: ModelItem, colour: str | None, note: str = "") -> Row:
    return Row(cells=[sign, model.name, model.type, size(model.size), note], colour=colour)


def _print_pulls(found: ImageDiff) -> None:
    old, new = found.old.name, found.new.name
    digest, chain = found.by_digest, found.by_chain
    if digest.layers == chain.layers:
        print_field("pull", f"a node that has {old} pulls {_bytes(digest)} for {new}")
    else:
        print_field("pull", f"a node that has {old} pulls for {new}")
        print_field("", [f"{_bytes(digest)} where blobs are kept by digest (containerd)"])
        print_field("", [f"{_bytes(chain)} where layers are kept by chain (Docker)"])
    if digest.layers:
        click.echo()
        rows = [Row(cells=[layer.title, size(layer.size)]) for layer in digest.layers[:_MOST]]
        print_rows(["LAYERS TO PULL, BY DIGEST", "SIZE"], rows, right=frozenset({1}))
    if len(digest.layers) > _MOST:
        click.echo(f"and {len(digest.layers) - _MOST} more, which --json lists")
    if not found.base:
        print_field("note", "the bases differ, and their layers are not counted: not all of them are known here")


def _bytes(pull: Pull) -> str:
    known = size(pull.size) if pull.layers else "nothing"
    return f"{known} and {pull.unknown} layers of unknown size" if pull.unknown else known
