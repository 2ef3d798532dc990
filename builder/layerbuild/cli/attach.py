"""`layerbuild attach`."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from layerbuild import http
from layerbuild.cli import options
from layerbuild.cli.display import print_json, progress_for
from layerbuild.errors import UsageError
from layerbuild.registry.clients import Clients
from layerbuild.registry.reference import Reference, parse_reference

# RFC 6838, 4.2
_NAME = r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"
_TYPE = re.compile(rf"{_NAME}/{_NAME}")


@click.command("attach")
@click.argument("reference", metavar="REF")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--type", "artifact_type", metavar="MEDIA/TYPE", required=True, help="What it is: application/spdx+json.")
@click.option("--annotation", "annotations", multiple=True, metavar="KEY=VALUE", help="Says more of it. Repeatable.")
@options.insecure
@options.as_json
@click.pass_obj
def command(obj: dict[str, Any], /, **arguments: Any) -> None:
    """Attach files to the image REF in its registry: an SBOM, a licence, the lock it was made from.

    REF is HOST/REPOSITORY:TAG or HOST/REPOSITORY@sha256:..., an image or an index. It does not change: the files
    become an artifact of their own beside it, which names it. The same files again give the same artifact.

    \b
    Examples:
      layerbuild attach ghcr.io/acme/gallery:demo sbom.json --type application/spdx+json
      layerbuild attach ghcr.io/acme/gallery:demo NOTICE --type text/plain
    """
    from layerbuild.execute.attach import attach  # noqa: PLC0415  # loads oras

    reference = reference_of(arguments["reference"])
    clients = Clients(http.Client(), os.environ, insecure=frozenset(arguments["insecure"]))
    artifact, subject = attach(
        clients(reference.host),
        reference,
        arguments["files"],
        artifact_type=check_type(arguments["artifact_type"]),
        annotations=_annotations(arguments["annotations"]),
        progress=progress_for(obj),
    )
    name = f"{reference.host}/{reference.repository}"
    if arguments["json_output"]:
        print_json({"reference": f"{name}@{artifact.digest}", **artifact.as_json(), "subject": subject.as_json()})
    else:
        click.echo(f"{name}@{artifact.digest}")
        click.echo(f"attached to {subject.digest}")


def reference_of(text: str) -> Reference:
    """The image in a registry that a command line names.

    Raises:
        UsageError: it names none, or one of a layout.
    """
    if text.startswith(("oci:", "archive:")):
        raise UsageError(
            f"{text[:200]!r} is not in a registry",
            cause="what refers to an image is kept by registries",
            hint="name it as HOST/REPOSITORY:TAG",
        )
    return parse_reference(text)


def check_type(text: str) -> str:
    """`text`, if it is a media type.

    Raises:
        UsageError: it is none.
    """
    if not _TYPE.fullmatch(text):
        raise UsageError(f"{text[:200]!r} is not a media type", hint="write one like application/spdx+json")
    return text


def _annotations(pairs: Sequence[str]) -> dict[str, str]:
    found = dict(pair.partition("=")[::2] for pair in pairs)
    if wrong := next((pair for pair in pairs if "=" not in pair or pair.startswith("=")), None):
        raise UsageError(f"{wrong[:200]!r} is not an annotation", hint="write KEY=VALUE")
    return found
