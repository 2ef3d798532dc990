"""`layerbuild plan`."""

from __future__ import annotations

from typing import Any

import click

from layerbuild.cli import options
from layerbuild.cli.display import print_json, print_table, size
from layerbuild.cli.workspace import open_project
from layerbuild.errors import raise_failed
from layerbuild.execute.preflight import refusals
from layerbuild.plan import Plan, PlannedLayer


@click.command("plan")
@options.selection
@click.option("--to", "destination", metavar="DEST", help="Ask this destination what it has already.")
@options.insecure
@options.as_json
@click.pass_obj
def command(obj: dict[str, Any], /, **arguments: Any) -> None:
    """Say what building and pushing would do, in bytes, before anything moves.

    For each layer: whether it is known, what must be fetched and packed for it, and, with --to DEST, whether
    it is there already, can be mounted, or must be sent.

    What a push would fail of is told as an error, exit code 1: no right to push, layers that are too large or too
    many, a full disk. To find out, an upload is opened in each repository that lacks something, and given back.

    \b
    Examples:
      layerbuild plan
      layerbuild plan sd15 --to ghcr.io/acme
    """
    project = open_project(obj, insecure=arguments["insecure"])
    plan = project.plan(options.selected(project, arguments), to=arguments["destination"])
    if arguments["json_output"]:
        print_json(plan.as_json())
    else:
        print_plan(plan)
    raise_failed(refusals(plan.findings), len(plan.images), "would fail")


def print_plan(plan: Plan) -> None:
    """The bill."""
    headers = ["LAYER", "SIZE", "IMAGES", "FETCH", "PACK"]
    rows = [_row(layer, plan) for layer in plan.layers]
    sums = ["total", size(sum(layer.size or 0 for layer in plan.layers)), str(len(plan.images))]
    sums += [_cost(plan.sum("fetch")), _cost(plan.sum("pack"))]
    if plan.destination:
        headers.append("AT DEST")
        sums.append("")
    print_table(headers, [*rows, sums], right=frozenset({1, 2, 3, 4}))
    if plan.destination:
        click.echo(
            f"{plan.destination}: {size(plan.moved('upload'))} to send, {size(plan.moved('mount'))} to mount, "
            f"{size(plan.moved('present'))} already there"
        )
    for note in plan.notes:
        click.secho(f"note: {note}", fg="yellow")
    if plan.unknown:
        click.echo(f"{plan.unknown} layers wait for what is learnt on the way; they are small unless listed otherwise")


def _row(layer: PlannedLayer, plan: Plan) -> list[str]:
    cells = [layer.title, size(layer.size), str(len(layer.images)), _cost(layer.fetch), _cost(layer.pack)]
    return [*cells, layer.action or "?"] if plan.destination else cells


def _cost(count: int | None) -> str:
    return "-" if count == 0 else size(count)
