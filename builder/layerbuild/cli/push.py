"""`layerbuild push`."""

from __future__ import annotations

from typing import Any

import click

from layerbuild.cli import digestfile, options
from layerbuild.cli.adoption import print_adopted
from layerbuild.cli.display import closing, print_json, size
from layerbuild.cli.workspace import open_project
from layerbuild.execute.report import Report
from layerbuild.progress import Tally


@click.command("push")
@click.argument("destination", metavar="DEST")
@options.selection
@click.option(
    "--no-store",
    is_flag=True,
    help="Stream models from their source to DEST, and keep nothing of them on this machine.",
)
@click.option(
    "--mount",
    type=click.Choice(["auto", "required"]),
    default="auto",
    show_default=True,
    help="required: fail where the registry does not mount a blob that it should have elsewhere; auto: upload it.",
)
@click.option(
    "--digest-file",
    metavar="FILE",
    help="Write what was pushed there, REFERENCE@sha256:HEX in each line; also when some images failed.",
)
@options.cache_from
@options.executor
@options.insecure
@options.frozen
@options.receipts_out
@options.as_json
@click.pass_obj
def command(obj: dict[str, Any], /, **arguments: Any) -> None:
    """Send images to DEST, only what is missing there.

    DEST is a registry and a prefix, HOST[:PORT]/PREFIX, where an image lands as PREFIX/NAME:TAG (NAME is its
    recipe's 'repository', if it has one); or, without a server, oci:DIR, a directory in the OCI image layout, or
    archive:FILE, a tar for 'docker load' and 'podman load'.

    What would fail is said before anything is fetched or sent, as 'layerbuild plan --to DEST' says it.

    Model layers without a receipt are fetched, hashed and sent in one pass. Blobs that the registry has
    elsewhere are mounted, the others are uploaded once, tags are written last: of an image for several platforms,
    when all of these are there. An image that fails does not stop the others. Logins are those of docker and podman.
    What a registry turns out to take (streams, lengths, mounts) is remembered in the store for a week.

    \b
    Examples:
      layerbuild push oci:out                      every image into the directory out/
      layerbuild push archive:images.tar           one file for docker load, podman load and skopeo
      layerbuild push ghcr.io/acme 'gal*'          some images, to ghcr.io/acme/NAME:TAG
      layerbuild push 127.0.0.1:5000/test gallery  to a registry on this machine, plain HTTP
      layerbuild push ghcr.io/acme --no-store      models pass through memory, from source to registry
      layerbuild push ghcr.io/acme --executor tcp://dask:8786   workers fetch, hash and send models
    """
    with digestfile.written(arguments["digest_file"]) as lines:
        project = open_project(obj, insecure=arguments["insecure"])
        selected = options.selected(project, arguments)
        outcome = project.push(
            arguments["destination"],
            selected,
            options.making(arguments),
            store=not arguments["no_store"],
            must_mount=arguments["mount"] == "required",
        )
        lines.extend(line for image in outcome.report.images for line in digestfile.lines(image))
        if arguments["json_output"]:
            print_json(outcome.as_json())
        else:
            if outcome.adopted:
                print_adopted(outcome.adopted)
            print_report(outcome.report, project.workspace.progress.tally)
        outcome.refuse()


def print_report(report: Report, tally: Tally) -> None:
    """What happened, and what did not have to."""
    for image in report.images:
        for reference in image.references:
            click.echo(f"{reference}  {image.digest}")
        for platform, digest in image.platforms.items():
            click.echo(f"  {platform}  {digest}")
    spared = {"were there already": report.present, "were mounted": report.mounted}
    click.echo(closing(tally, moved=f"sent {size(report.uploaded)}", spared=spared))
