"""What `--cache-from` did, for people."""

from __future__ import annotations

import click

from layerbuild.cli.display import size
from layerbuild.execute.adopt import Adopted


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
