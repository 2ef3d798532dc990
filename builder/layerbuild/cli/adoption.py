"""What `--cache-from` does, for the commands that have it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from layerbuild.cli.display import size
from layerbuild.cli.workspace import Workspace
from layerbuild.errors import UsageError
from layerbuild.execute.adopt import Adopted, Adopter
from layerbuild.execute.build import Builder, distinct
from layerbuild.images import ImageDeclaration


def adopt(
    workspace: Workspace, builder: Builder, selected: Sequence[ImageDeclaration], arguments: Mapping[str, Any]
) -> Adopted | None:
    """Take layers over from the images that `--cache-from` names, before anything is built.

    Args:
        arguments: of the command; see `options.cache_from`.

    Returns:
        What came of it, None if no image is named.

    Raises:
        UsageError: there is nobody to trust.
        DriftError: the lock does not stand for the declarations.
        LayerbuildError: an image that is named cannot be read; see `Adopter.adopt`.
    """
    references: Sequence[str] = arguments["cache_from"]
    if not references:
        if arguments["trust_receipts"]:
            raise UsageError("--trust-receipts says whom to believe, and nobody is named", hint="add --cache-from REF")
        return None
    adopter = Adopter(
        open_image=workspace.open_image,
        packer=builder.packer,
        progress=workspace.progress,
        trust=arguments["trust_receipts"],
    )
    return adopter.adopt(references, list(distinct(builder.compose(selected)).values()))


def print_adopted(adopted: Adopted) -> None:
    """What was taken over, and what nobody looked at."""
    checked_count = len(adopted.adopted) - len(adopted.trusted)
    click.echo(
        f"{_layers(checked_count)} taken over after {size(adopted.bytes_read)} were checked, "
        f"{_layers(len(adopted.refused))} refused"
    )
    for layer in adopted.trusted:
        click.secho(f"trusted unread: {layer.title} ({size(layer.size)}) from {layer.reference}", fg="yellow")


def _layers(count: int) -> str:
    return "1 layer" if count == 1 else f"{count} layers"
