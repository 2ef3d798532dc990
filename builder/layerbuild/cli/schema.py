"""`layerbuild schema`."""

from __future__ import annotations

from typing import Literal

import click

from layerbuild.cli.display import print_json
from layerbuild.schema import json_schema


@click.command("schema")
@click.argument("what", type=click.Choice(["layers", "recipe"]), default="recipe")
def command(what: Literal["layers", "recipe"]) -> None:
    """Print the JSON Schema of a recipe or of a file in layers/.

    For an editor with the YAML language server: write the output to a file, and begin a recipe with
    '# yaml-language-server: $schema=FILE'.
    """
    print_json(json_schema(what))
