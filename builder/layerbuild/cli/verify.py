"""`layerbuild verify`."""

from __future__ import annotations

from typing import Any

import click

from layerbuild.baseimage import BaseSource
from layerbuild.cli import options
from layerbuild.cli.display import duration, print_json, print_table, size
from layerbuild.cli.workspace import open_project
from layerbuild.errors import WrongImage
from layerbuild.execute.build import Builder
from layerbuild.execute.verification import IndexVerification, Meant, Verification, identify
from layerbuild.execute.verify import Verifier
from layerbuild.execute.verifyindex import verify_index
from layerbuild.progress import Tally

_DIGEST = 19
"""Characters of a digest in a table, `sha256:` included."""


@click.command("verify")
@click.argument("reference", metavar="REF")
@click.option("--image", metavar="NAME", help="Which image of the project REF should be, where its name does not say.")
@click.option("--deep", is_flag=True, help="Read every byte of every blob, and hold it against the pins.")
@options.insecure
@options.as_json
@click.pass_obj
def command(obj: dict[str, Any], /, **arguments: Any) -> None:
    """Hold the pushed image REF against the project's lock.

    REF is HOST/REPOSITORY:TAG or HOST/REPOSITORY@sha256:..., or oci:DIR:NAME:TAG. Compares manifest, config and
    layers with the lock and its receipts, and asks for every blob. With --deep everything is read: own layers are
    compared with their pins entry by entry, whatever the receipts say. An index is compared, and each image that it
    names. Nothing is written.

    Exit codes: 0 it is what the lock makes; 1 it is not, everything by which it differs is listed.

    \b
    Examples:
      layerbuild verify ghcr.io/acme/gallery:demo          its documents, and that every blob is there
      layerbuild verify --deep oci:images:gallery:demo     every byte
    """
    workspace = open_project(obj, insecure=arguments["insecure"]).workspace
    lock = workspace.lock()
    source = workspace.open_image(arguments["reference"])
    meant = identify(source, workspace.images, lock, arguments["image"])
    found = _look(source, workspace.builder(lock), meant, deep=arguments["deep"])
    if arguments["json_output"]:
        print_json(found.as_json())
    else:
        print_verification(found, workspace.progress.tally)
    if found.findings:
        count = "1 difference" if len(found.findings) == 1 else f"{len(found.findings)} differences"
        raise WrongImage(
            f"{found.reference} is not what the lock makes of image {found.image}: {count}",
            hint=f"push it again with 'layerbuild push DEST {meant.image.title}', and find out who else can push there",
        )


def _look(source: BaseSource, builder: Builder, meant: Meant, *, deep: bool) -> Verification | IndexVerification:
    if meant.index is not None:
        return verify_index(source, builder, meant.index, deep=deep)
    (image,) = builder.compose([meant.image])
    return Verifier(source=source, builder=builder, deep=deep).run(meant.digest, image)


def print_verification(found: Verification | IndexVerification, tally: Tally) -> None:
    """Every layer, of an index those of each platform, and everything that is wrong."""
    for platform, image in found.platforms.items() if isinstance(found, IndexVerification) else ():
        click.secho(f"{platform}  {image.digest}", bold=True)
        _print_layers(image)
    if isinstance(found, Verification):
        _print_layers(found)
    for note in found.notes:
        click.secho(f"note: {note}", fg="yellow")
    for finding in found.findings:
        click.secho(f"different: {finding}", fg="red")
    if not found.findings:
        how = f"{size(found.bytes_read)} read in {duration(tally.seconds)}" if found.deep else "no layer read"
        click.echo(f"{found.reference} is what the lock makes of image {found.image} ({found.digest[:_DIGEST]}; {how})")


def _print_layers(found: Verification) -> None:
    rows = [[r.title, size(r.size), (r.digest or "")[:_DIGEST], r.result] for r in found.layers]
    print_table(["LAYER", "SIZE", "DIGEST", "RESULT"], rows, right=frozenset({1}))
