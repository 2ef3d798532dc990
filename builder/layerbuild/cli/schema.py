"""`layerbuild schema`."""

from __future__ import annotations

from typing import Literal

import click

from layerbuild.cli import events
from layerbuild.cli.display import print_json
from layerbuild.schema import json_schema


@click.command("schema")
@click.argument("what", type=click.Choice(["layers", "recipe", "events"]), default="recipe")
def command(what: Literal["layers", "recipe", "events"]) -> None:
    """Print the JSON Schema of a recipe, of a file in layers/, or of the events of --json.

    For an editor with the YAML language server: write the output to a file, and begin a recipe with
    '# yaml-language-server: $schema=FILE'. What 'layerbuild init' writes has both.

    \b
    Examples:
      layerbuild schema recipe > recipe.schema.json   what a recipe may hold
      layerbuild schema layers                        what a file in layers/ may hold
      layerbuild schema events                        what --json tells on standard error
    """
    print_json(events.json_schema() if what == "events" else json_schema(what))
