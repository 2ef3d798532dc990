"""`layerbuild diff`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from layerbuild import locktext
from layerbuild.audit.findings import printable
from layerbuild.cli import options
from layerbuild.cli.display import print_json, size
from layerbuild.cli.imagediff import Images, print_images
from layerbuild.cli.reading import Reader
from layerbuild.imagediff import image_diff
from layerbuild.lockdiff import Change, LockDiff, diff
from layerbuild.lockmodel import Lock

_SIGNS = {"added": ("+", "green"), "removed": ("-", "red"), "changed": ("~", "yellow")}


@click.command("diff")
@click.argument("old", metavar="OLD", default="HEAD")
@click.argument("new", metavar="NEW", required=False)
@click.option("--platform", metavar="OS/ARCH", help="Which platform of images that have several.")
@options.insecure
@options.as_json
@click.pass_obj
def command(obj: dict[str, Any], /, **arguments: Any) -> None:
    """Say in words what moved between two locks, or between two images: and what that costs to push, or to pull.

    Of locks: OLD and NEW are files, or revisions of the project's git repository (HEAD if OLD is left out); NEW is
    lockfile.yaml as it is now if left out. A registry that has the images of OLD lacks as many bytes as the last
    line says; bases are not counted.

    Of images: OLD and NEW are images of the project, or references as 'layerbuild show' takes them. The last lines
    say what a node that has OLD pulls for NEW. A branch that is called like an image is meant by refs/heads/NAME.

    \b
    Examples:
      layerbuild diff                            what is not committed yet
      layerbuild diff main                       this branch against main
      layerbuild diff v1.0 v1.1                  two tags
      layerbuild diff gallery photo-only         two images of the project
      layerbuild diff oci:images:gallery:demo gallery    what was pushed, and what would be now
    """
    old, new = arguments["old"], arguments["new"]
    named = Images(obj, platform=arguments["platform"], insecure=arguments["insecure"])
    if named.are_meant(old, new):
        images = image_diff(named.read(old), named.read(new))
        if arguments["json_output"]:
            print_json(images.as_json())
        else:
            print_images(images)
        return
    reader = named.reader
    before = _lock(reader, old)
    found = diff(before, reader.lock() if new is None else _lock(reader, new))
    if arguments["json_output"]:
        print_json(found.as_json())
    else:
        _print(found)


def _lock(reader: Reader, name: str) -> Lock:
    """A file's lock, else that of a revision; an empty one where the revision has none.

    Raises:
        LockError: it cannot be read.
        UsageError: git knows no such revision.
    """
    path = Path(name)
    if path.is_file():
        return locktext.read(path) or Lock()
    from layerbuild import lockhistory  # noqa: PLC0415  # only revisions need git

    return lockhistory.lock_at(reader.root, name, os.environ) or Lock()


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
    # Another's lock may call a thing anything.
    click.echo(f"  {click.style(sign, fg=colour)} {printable(change.name)}" + (f": {cost} to push" if cost else ""))
    for words in change.words:
        click.echo(f"      {printable(words)}")


def _bytes(known: int, unknown: int) -> str:
    """What layers cost, `unknown` of which nobody knows the size of; empty where there are none."""
    parts = [size(known)] if known else []
    if unknown:
        parts.append(f"{unknown} layer{'s' * (unknown > 1)} of unknown size")
    return " and ".join(parts)
