"""`layerbuild referrers`."""

from __future__ import annotations

import os
from typing import Any

import click

from layerbuild import http
from layerbuild.cli import options
from layerbuild.cli.attach import check_type, reference_of
from layerbuild.cli.display import print_json, size
from layerbuild.cli.tables import Row, print_rows
from layerbuild.registry.clients import Clients
from layerbuild.registry.manifests import INDEXES, MANIFESTS


@click.command("referrers")
@click.argument("reference", metavar="REF")
@click.option("--type", "artifact_type", metavar="MEDIA/TYPE", help="Only what is of this type.")
@options.insecure
@options.as_json
def command(**arguments: Any) -> None:
    """List what is attached to the image REF in its registry: SBOMs, signatures, licences.

    REF is HOST/REPOSITORY:TAG or HOST/REPOSITORY@sha256:..., an image or an index.

    \b
    Examples:
      layerbuild referrers ghcr.io/acme/gallery:demo
      layerbuild referrers ghcr.io/acme/gallery:demo --type application/spdx+json --json
    """
    from layerbuild.registry.referrers import referrers  # noqa: PLC0415  # loads oras

    reference, wanted = reference_of(arguments["reference"]), arguments["artifact_type"]
    client = Clients(http.Client(), os.environ, insecure=frozenset(arguments["insecure"]))(reference.host)
    digest = reference.digest
    if digest is None:
        _, _, digest = client.get_manifest(reference.repository, reference.tag or "latest", accept=MANIFESTS + INDEXES)
    found = referrers(client, reference.repository, digest, artifact_type=check_type(wanted) if wanted else None)
    name = f"{reference.host}/{reference.repository}"
    if arguments["json_output"]:
        print_json({"subject": f"{name}@{digest}", "referrers": [referrer.as_json() for referrer in found]})
        return
    click.echo(f"{len(found)} attached to {name}@{digest}")
    if found:
        rows = [[r.artifact_type or "?", size(r.descriptor.size), r.descriptor.digest] for r in found]
        # Whole, to be copied: both are what the next command is given.
        print_rows(["TYPE", "MANIFEST", "DIGEST"], [Row(cells=row) for row in rows], yielding=())
