"""`layerbuild report`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from layerbuild.cli import options
from layerbuild.cli.display import print_json, size
from layerbuild.cli.workspace import open_project
from layerbuild.destinations.files import explained, new_file, write
from layerbuild.errors import UsageError
from layerbuild.report.page import render


@click.command("report")
@options.selection
@click.option("--html", metavar="FILE", help="Write the page there: one file that loads nothing else.")
@click.option("--online", is_flag=True, help="Ask registries for bases, and read their layers for the audit.")
@click.option("--no-audit", is_flag=True, help="Leave out what each image's cold start would still do.")
@options.insecure
@options.as_json
@click.pass_obj
def command(obj: dict[str, Any], /, **arguments: Any) -> None:
    """Draw the project: which image has which layer, what is shared, and what a node pulls.

    The page has the images against their layers, bytes stored against bytes that separate images would take, the
    pull from any image to any other, models with their licences and sources, and the cold-start audit of each
    image. It needs no network, opens from a disk or a CI's artifacts, and prints.

    It says what lockfile.yaml and this machine's store know; nothing is fetched, unless --online asks registries for
    bases. What is not known is a '?', and the page names the command that makes it known.

    \b
    Examples:
      layerbuild report --html report.html               every image
      layerbuild report --html gal.html 'gal*'           some of them
      layerbuild report --json                           the same data, for programs
      layerbuild report --html report.html --online      with bases that this machine does not know
    """
    if arguments["html"] is None and not arguments["json_output"]:
        raise UsageError("nothing says where the report goes", hint="add --html FILE, or --json")
    project = open_project(obj, insecure=arguments["insecure"], offline=not arguments["online"])
    selected = options.selected(project, arguments)
    report = project.report(selected, online=arguments["online"], audits=not arguments["no_audit"])
    if arguments["html"] is not None:
        _write(Path(arguments["html"]), render(report.as_json(), size))
    if arguments["json_output"]:
        print_json(report.as_json())
    else:
        click.echo(f"wrote {arguments['html']}: {len(report.images)} images, {len(report.layers)} layers")
        click.echo(f"{size(report.separate)} of images are stored as {size(report.stored)}")
        for note in report.notes:
            click.secho(f"note: {note.text} '{note.command}' tells.", fg="yellow")


def _write(path: Path, page: str) -> None:
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is not a file", hint="name a file after --html: a new one, or one to replace")
    # a link stays one: what it leads to is replaced
    with explained(f"the report {path}"), new_file(path.resolve()) as stream:
        write(stream, page.encode())
