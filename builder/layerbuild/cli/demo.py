"""`layerbuild demo`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from layerbuild import demoproject
from layerbuild.cli.build import command as build
from layerbuild.cli.display import print_table, size
from layerbuild.cli.lock import command as lock
from layerbuild.cli.plan import command as plan
from layerbuild.cli.push import command as push
from layerbuild.cli.workspace import open_project
from layerbuild.errors import UsageError
from layerbuild.execute.build import BuiltImage
from layerbuild.image import BuiltLayer


@click.command("demo")
@click.argument("directory", metavar="[DIR]", default="demo", type=click.Path(path_type=Path))
@click.pass_context
def command(ctx: click.Context, directory: Path) -> None:
    """Make a small project in DIR (default: demo), and lock, plan, build and push it to oci:DIR/images.

    Real files of 20 to 40 MB, a Hugging Face snapshot, a git repository; no network, no server. DIR holds
    its own store, and can be deleted as a whole.

    \b
    Examples:
      layerbuild demo                in demo/
      layerbuild demo /tmp/demo      elsewhere
    """
    root = directory.absolute()
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise UsageError(f"{directory} exists and is not empty", hint="name another directory, or delete it")
    click.secho(f"A project in {directory}: three models, a snapshot, a git repository", bold=True)
    demoproject.create(root)
    options = {**ctx.obj, "project": str(root)}
    destination = f"oci:{os.path.relpath(root / 'images')}"
    with _store(root / ".store"):
        _run(ctx, options, lock)
        _run(ctx, options, plan)
        _run(ctx, options, build)
        _run(ctx, options, push, destination)
        click.secho("\nA second recipe: the same checkpoint under another name, in another webui root", bold=True)
        demoproject.add_second_image(root)
        _run(ctx, options, lock)
        _run(ctx, options, plan, "photo-only", "--to", destination)
        _run(ctx, options, push, destination)
        _run(ctx, options, lock, "--check")
        _shared(options)
    click.echo(f"\nLook around: {directory}/lockfile.yaml, {directory}/recipes/, {directory}/layers/.")


def _run(ctx: click.Context, options: dict[str, Any], command: click.Command, *arguments: str) -> None:
    click.secho(f"\n$ layerbuild {command.name} {' '.join(arguments)}".rstrip(), fg="cyan")
    with command.make_context(command.name, list(arguments), parent=ctx, obj=options) as inner:
        command.invoke(inner)


@contextmanager
def _store(path: Path) -> Iterator[None]:
    """The demo leaves the user's own store alone, and writes its lock also where CI is set."""
    before = {name: os.environ.pop(name, None) for name in ("LAYERBUILD_STORE", "CI")}
    os.environ["LAYERBUILD_STORE"] = str(path)
    try:
        yield
    finally:
        del os.environ["LAYERBUILD_STORE"]
        os.environ.update({name: value for name, value in before.items() if value is not None})


def _shared(options: dict[str, Any]) -> None:
    """Layers against images."""
    outcome = open_project({**options, "quiet": True}).build()
    outcome.refuse()
    built = outcome.images
    click.secho("\nWhat was shared", bold=True)
    layers: dict[str, BuiltLayer] = {}
    for image in built:
        for _, made in image.layers:
            layers.setdefault(made.blob.digest, made)
    rows = []
    for digest, made in layers.items():
        holders = [image for image in built if _holds(image, digest)]
        marks = ["x" if image in holders else "" for image in built]
        rows.append([made.title, size(made.blob.size), *marks, "shared" if len(holders) > 1 else ""])
    print_table(["LAYER", "SIZE", *(image.composed.name for image in built), ""], rows, right=frozenset({1}))
    stored = sum(made.blob.size for made in layers.values())
    separate = sum(made.blob.size for image in built for _, made in image.layers)
    click.echo(f"{size(separate)} of images are stored as {size(stored)}")


def _holds(image: BuiltImage, digest: str) -> bool:
    return any(made.blob.digest == digest for _, made in image.layers)
