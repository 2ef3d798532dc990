"""`layerbuild plan`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import click

from layerbuild.bill import Group, groups, known, label_of, total
from layerbuild.cli import options
from layerbuild.cli.display import print_json, size
from layerbuild.cli.tables import WIDTH, Row, fold, print_field, print_rows
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

    A bill: for each group of layers and each layer in it, what must be fetched and packed, and, with --to DEST,
    whether it is there already (present), can be mounted, or must be sent (upload). Then what moves, and what stays
    where it is. Green is what does not move.

    What a push would fail of is told as an error, exit code 1: no right to push, layers that are too large or too
    many, a full disk. To find out, an upload is opened in each repository that lacks something, and given back.

    \b
    Examples:
      layerbuild plan                             everything, wherever it may go
      layerbuild plan gallery --to oci:images     one image, and what is there already
      layerbuild plan --json                      for programs
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
    for line in fold(_summary(plan), WIDTH):
        click.secho(line, bold=True)
    click.echo()
    headers = ["", "SIZE", "IMAGES", "FETCH", "PACK", *(["AT DEST"] if plan.destination else [])]
    rows = [row for group in groups(plan) for row in _group_rows(group)]
    rows.append(Row(cells=_cells("total", plan.layers, str(len(plan.images))), bold=True))
    print_rows(headers, [_fitting(row, len(headers)) for row in rows], right=frozenset({1, 2, 3, 4}))
    click.echo()
    print_field("moves", _moving(plan) or "nothing")
    print_field("stays", _staying(plan) or "nothing")
    for note in plan.notes:
        for line in fold(f"note: {note}", WIDTH):
            click.secho(line, fg="yellow")
    if plan.unknown:
        print_field("unknown", f"{_count(plan.unknown, 'layer')} of a size that is learnt on the way; small, mostly")


def _summary(plan: Plan) -> str:
    """The whole plan in one sentence."""
    parts = [f"{_count(len(plan.images), 'image')}, {_count(len(plan.layers), 'layer')}, {size(total(plan.layers))}"]
    parts.append(f"{size(plan.sum('fetch'))} to fetch" if plan.sum("fetch") else "nothing to fetch")
    if plan.destination:
        parts.append(f"{size(plan.moved('upload'))} to send")
    return "; ".join(parts)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _group_rows(group: Group) -> Iterator[Row]:
    """A line of its own for a single layer; else the group's sum, and its layers below."""
    if len(group.all) == 1:
        (layer,) = group.layers
        yield _layer_row(f"{group.title}: {label_of(layer)}", layer)
        return
    yield Row(cells=_cells(group.title, group.all), bold=True)
    for layer in group.layers:
        yield _layer_row(f"  {label_of(layer)}", layer)
    if group.rest:
        yield Row(cells=_cells(f"  and {len(group.rest)} more, which --json lists", group.rest))


def _layer_row(title: str, layer: PlannedLayer) -> Row:
    cells = [title, size(layer.size), str(len(layer.images)), _cost(layer.fetch), _cost(layer.pack)]
    still = layer.action == "present" if layer.action else layer.known
    return Row(cells=[*cells, layer.action or "?"], colour="green" if still else None)


def _cells(title: str, layers: Sequence[PlannedLayer], images: str = "") -> list[str]:
    fetch, pack = (sum(getattr(layer, field) or 0 for layer in layers) for field in ("fetch", "pack"))
    return [title, size(total(layers)), images, _cost(fetch), _cost(pack), ""]


def _fitting(row: Row, count: int) -> Row:
    return Row(cells=row.cells[:count], bold=row.bold, colour=row.colour)


def _moving(plan: Plan) -> str:
    amounts = {"to fetch": plan.sum("fetch"), "to pack": plan.sum("pack")}
    if plan.destination:
        amounts |= {f"to send to {plan.destination}": plan.moved("upload")}
    return "; ".join(f"{size(amount)} {what}" for what, amount in amounts.items() if amount)


def _staying(plan: Plan) -> str:
    made = known(plan)
    parts = [f"{size(plan.moved('present'))} already there"] if plan.moved("present") else []
    parts += [f"{size(plan.moved('mount'))} to mount from another repository"] if plan.moved("mount") else []
    parts += [f"{_count(len(made), 'layer')} made before, {size(total(made))}"] if made else []
    return "; ".join(parts)


def _cost(count: int | None) -> str:
    return "-" if count == 0 else size(count)
