"""`layerbuild build`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from layerbuild.api.making import BuildOutcome
from layerbuild.cli import options
from layerbuild.cli.adoption import print_adopted
from layerbuild.cli.display import closing, print_json, print_table, size
from layerbuild.cli.workspace import open_project
from layerbuild.errors import UsageError
from layerbuild.execute.build import BuiltImage
from layerbuild.execute.rebuild import RemadeLayer, refuse
from layerbuild.progress import Tally


@click.command("build")
@options.selection
@click.option("--check", "check_only", is_flag=True, help="Make every layer again, and compare it with its receipts.")
@options.cache_from
@options.executor
@options.insecure
@options.frozen
@options.receipts_out
@options.as_json
@click.pass_obj
def command(obj: dict[str, Any], /, **arguments: Any) -> None:
    """Make every layer that has no receipt yet, for all images or those named (globs work).

    Fetches what is needed into the store, hashes each file once, and writes receipts and facts into
    lockfile.yaml. It writes no image: 'layerbuild push' does, to a registry or to oci:DIR.

    With --check no receipt is believed: every layer is made again from its contents and compared with what
    the lock and the store say of it. Nothing is recorded; exit code 1 if any differs.

    \b
    Examples:
      layerbuild build                                          what has no receipt yet
      layerbuild build --check 'gal*'                           make it again, and compare
      layerbuild build --cache-from ghcr.io/acme/gallery:demo   take over what that image has
      layerbuild build --executor tcp://dask:8786               workers of a Dask cluster make models
    """
    if arguments["check_only"] and (arguments["cache_from"] or arguments["trust_receipts"]):
        raise UsageError("--check believes nobody, and takes nothing over", hint="leave --check or --cache-from out")
    if arguments["check_only"] and arguments["executor"]:
        raise UsageError("--check believes nobody, also no other machine", hint="leave --check or --executor out")
    project = open_project(obj, insecure=arguments["insecure"])
    selected = options.selected(project, arguments)
    if arguments["check_only"]:
        _print_remade(project.rebuild(selected), json_output=arguments["json_output"])
        return
    outcome = project.build(selected, options.making(arguments))
    if arguments["json_output"]:
        print_json(outcome.as_json())
    else:
        _print(outcome, project.workspace.progress.tally)
    outcome.refuse()


def _print(outcome: BuildOutcome, tally: Tally) -> None:
    if outcome.images:
        rows = [[i.composed.name, str(len(i.layers)), size(total(i)), i.digest[:19]] for i in outcome.images]
        rows += [[r.name, "", "", r.digest[:19]] for r in outcome.releases if r.index is not None]
        print_table(["IMAGE", "LAYERS", "SIZE", "MANIFEST"], rows, right=frozenset({1, 2}))
    if outcome.adopted:
        print_adopted(outcome.adopted)
    if outcome.images:
        spared = {"were known already": tally["known"]}
        click.echo(closing(tally, moved=f"fetched {size(tally['fetched'])}", spared=spared))


def _print_remade(layers: Sequence[RemadeLayer], *, json_output: bool) -> None:
    if json_output:
        print_json({"layers": [layer.as_json() for layer in layers]})
    else:
        rows = [[layer.title, size(layer.made.size if layer.made else None), layer.status] for layer in layers]
        print_table(["LAYER", "SIZE", "RECEIPT"], rows, right=frozenset({1}))
    refuse(layers)


def total(image: BuiltImage) -> int:
    """Bytes of the image's blobs, its base's included."""
    below = sum(layer.size for layer in image.base.layers) if image.base else 0
    return below + sum(made.blob.size for _, made in image.layers)
