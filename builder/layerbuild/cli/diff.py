"""`layerbuild diff`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from layerbuild import lockhistory, locktext
from layerbuild.cli import options
from layerbuild.cli.display import print_json, size
from layerbuild.cli.workspace import open_project
from layerbuild.lockdiff import Change, LockDiff, diff
from layerbuild.lockmodel import Lock
from layerbuild.workspace import Workspace

_SIGNS = {"added": ("+", "green"), "removed": ("-", "red"), "changed": ("~", "yellow")}


@click.command("diff")
@click.argument("old", metavar="OLD", default="HEAD")
@click.argument("new", metavar="NEW", required=False)
@options.as_json
@click.pass_obj
def command(obj: dict[str, Any], old: str, new: str | None, *, json_output: bool) -> None:
    """Say in words what moved between two locks: pins, images, and bytes to push.

    OLD and NEW are files, or revisions of the project's git repository (HEAD if OLD is left out); NEW is
    lockfile.yaml as it is now if left out. A registry that has the images of OLD lacks as many bytes as the last
    line says; bases are not counted.

    \b
    Examples:
      layerbuild diff                    what is not committed yet
      layerbuild diff main               this branch against main
      layerbuild diff v1.0 v1.1
    """
    workspace = open_project(obj).workspace
    before = _lock(workspace, old)
    found = diff(before, workspace.lock() if new is None else _lock(workspace, new))
    if json_output:
        print_json(found.as_json())
    else:
        _print(found)


def _lock(workspace: Workspace, name: str) -> Lock:
    """A file's lock, else that of a revision; an empty one where the revision has none.

    Raises:
        LockError: it cannot be read.
        UsageError: git knows no such revision.
    """
    path = Path(name)
    if path.is_file():
        return locktext.read(path) or Lock()
    return lockhistory.lock_at(workspace.root, name, os.environ) or Lock()


def _print(found: LockDiff) -> None:
    for title, changes in (("layers", found.layers), ("images", found.images), ("believed", found.believed)):
        if changes:
            click.secho(title, bold=True)
        for change in changes:
            _print_change(change)
    if not found.layers and not found.images and not found.believed:
        click.echo("nothing moved")
        return
    click.echo(f"to push: {_bytes(found.push, found.unknown) or 'no layer'}")


def _print_change(change: Change) -> None:
    sign, colour = _SIGNS[change.what]
    cost = _bytes(change.push, change.unknown)
    click.echo(f"  {click.style(sign, fg=colour)} {change.name}" + (f": {cost} to push" if cost else ""))
    for words in change.words:
        click.echo(f"      {words}")


def _bytes(known: int, unknown: int) -> str:
    """What layers cost, `unknown` of which nobody knows the size of; empty where there are none."""
    parts = [size(known)] if known else []
    if unknown:
        parts.append(f"{unknown} layer{'s' * (unknown > 1)} of unknown size")
    return " and ".join(parts)
