"""`layerbuild audit`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import click

from layerbuild import http, kinds
from layerbuild.audit import checks
from layerbuild.audit.blobs import Blobs
from layerbuild.audit.findings import Cost, Finding, Report, printable
from layerbuild.audit.limits import Unreadable
from layerbuild.audit.parts import BlobPart, DescribedPart, Layer, Part
from layerbuild.audit.runtime import read_runtime
from layerbuild.audit.view import ImageView, open_image, put_together
from layerbuild.baseimage import open_base
from layerbuild.cli import options
from layerbuild.cli.display import make_progress, print_json, size
from layerbuild.cli.foreseen import Foreseen
from layerbuild.cli.workspace import Workspace
from layerbuild.compose import ComposedImage, environment, programs
from layerbuild.errors import LayerbuildError, LockError, UsageError
from layerbuild.execute.build import Builder
from layerbuild.image import config_json
from layerbuild.locked import checked
from layerbuild.registry.clients import Clients
from layerbuild.selection import lies_elsewhere

FOUND = 4
"""Exit code where something is worse than information."""

_MOST_PLATFORMS = 32
_MOST_SHOWN = 5
_COLORS = {"error": "red", "warning": "yellow", "info": "cyan"}


@click.command("audit")
@click.argument("reference", metavar="[REF]", required=False)
@click.option("--platform", metavar="OS/ARCH", help="Only this platform of an index. Default: all of them.")
@options.narrowing
@options.insecure
@options.as_json
@click.pass_context
def command(ctx: click.Context, /, **arguments: Any) -> None:
    """Say what a container's cold start would still download, hash or wait for in the image REF.

    REF is HOST/REPOSITORY:TAG or HOST/REPOSITORY@sha256:..., oci:DIR:NAME:TAG, or the name of an image of
    the project, which is looked at as its lock would make it, for each of its platforms. With --label or
    --changed-since REF may be left out. No weights are downloaded: of uncompressed layers only headers are read,
    compressed ones are streamed. Nothing in the image is run.

    Exit codes: 0 nothing, or information only; 4 findings; 2 the image cannot be read.

    \b
    Examples:
      layerbuild audit registry.example.com/me/a1111:1.10.1
      layerbuild audit oci:images:gallery:demo --json
      layerbuild audit a1111-sd15-1.10.1
      layerbuild audit --changed-since origin/main
    """
    reference, narrowed = arguments["reference"], bool(arguments["labels"] or arguments["changed_since"])
    try:
        if reference is None and not narrowed:
            raise UsageError("no image is named", hint="name one, or images of the project with --label")
        if reference is not None and lies_elsewhere(reference):
            if narrowed:
                raise UsageError("--label and --changed-since choose images of the project", hint="leave them out")
            reports = list(_of_reference(ctx.obj, reference, arguments["platform"], arguments["insecure"]))
        elif arguments["platform"]:
            hint = "leave --platform out; NAME@OS/ARCH is one of several platforms of an image"
            raise UsageError("an image of the project has the platforms of its recipe", hint=hint)
        else:
            reports = list(_of_project(ctx.obj, arguments))
    except LayerbuildError as error:
        # whatever the reason: who runs this in a script needs one code for "not audited"
        cause = printable(error.cause) if error.cause else None
        raise Unreadable(error.message, cause=cause, hint=error.hint) from error
    if arguments["json_output"]:
        print_json({"images": [report.as_json() for report in reports]})
    else:
        for report in reports:
            print_report(report)
    if not all(report.clean for report in reports):
        ctx.exit(FOUND)


def _of_reference(
    obj: dict[str, Any], reference: str, platform: str | None, insecure: Sequence[str]
) -> Iterator[Report]:
    clients = Clients(http.Client(), os.environ, insecure=frozenset(insecure))
    progress = make_progress(quiet=bool(obj.get("quiet")), verbose=bool(obj.get("verbose")))
    source = open_base(reference, client_for=clients, project=Path.cwd())
    digests = [source.resolve(platform)] if platform else list(dict.fromkeys(source.platforms().values()))
    if not 0 < len(digests) <= _MOST_PLATFORMS:
        raise Unreadable(f"{reference} is an index of {len(digests)} images", hint="name one with --platform")
    for digest in digests:
        view, blobs = open_image(source, digest, client_for=clients, progress=progress)
        yield _report(view, blobs)


def _of_project(obj: dict[str, Any], arguments: Mapping[str, Any]) -> Iterator[Report]:
    workspace = Workspace(obj, insecure=arguments["insecure"])
    reference = arguments["reference"]
    selected = options.selected(workspace, {**arguments, "patterns": [] if reference is None else [reference]})
    lock = workspace.lock()
    builder = workspace.builder(lock)
    for image in checked(workspace.images, selected, lock):
        yield _of_lock(workspace, builder, image)


def _of_lock(workspace: Workspace, builder: Builder, image: ComposedImage) -> Report:
    """An image as its lock would make it."""
    if image.pending:
        raise LockError(
            f"the hash cache of {image.name} waits for facts of {len(image.pending)} models",
            cause="what the webui would compute is not known before they were read once",
            hint=f"run 'layerbuild build {image.name}', then audit again",
        )
    base = builder.fetch_base(image.base) if image.base else None
    parts: list[Part] = []
    blobs = None
    if image.base is not None and base is not None:
        blobs = Blobs(workspace.open_base(image.base.reference), workspace.clients)
        parts += [BlobPart(blobs, descriptor) for descriptor in base.layers]
    parts += _described(builder, image)
    recipe = image.declaration.recipe
    config = json.loads(config_json(recipe, environment(image), base, [], programs(image)))
    locked = builder.lock.images.get(image.name)
    view = put_together(
        reference=image.title,
        digest=(locked.manifest if locked else None) or "",
        runtime=read_runtime(config, image.name),
        parts=parts,
        progress=workspace.progress,
        version=image.declaration.target.version,
    )
    return _report(view, blobs)


def _described(builder: Builder, image: ComposedImage) -> Iterator[Part]:
    foreseen = Foreseen(builder.contents)
    for layer in image.layers:
        assert layer.instance is not None
        entries = kinds.describe(layer.instance, foreseen)
        made = builder.packer.known(layer)
        packed = made.blob.size if made else sum(e.content.size or 0 for e in entries if e.content)
        yield DescribedPart(entries, layer=Layer(size=packed, compression=layer.algorithm), read_content=foreseen.read)


def _report(view: ImageView, blobs: Blobs | None) -> Report:
    findings = tuple(checks.run(view))
    return Report(
        reference=view.reference,
        platform=printable(view.runtime.platform),
        digest=view.digest,
        webui=printable(view.webui.title) if view.webui else None,
        models=len(view.models),
        findings=findings,
        bytes_read=blobs.bytes_read if blobs else 0,
    )


def print_report(report: Report) -> None:
    """For people: the worst first, each with the way out."""
    click.secho(f"{report.reference} ({report.platform or 'no platform'})", bold=True)
    models = "1 model" if report.models == 1 else f"{report.models} models"
    click.echo(f"{report.webui or 'no webui'}, {models}; {size(report.bytes_read)} of its layers read\n")
    for (severity, name), group in groupby(_grouped(report.findings), key=lambda f: (f.severity, f.id)):
        found = list(group)
        count = f" ({len(found)})" if len(found) > 1 else ""
        cost = _summed([f.cost for f in found])
        click.secho(f"{severity:7}", fg=_COLORS[severity], nl=False)
        click.echo(f"  {name}{count}{f'  {cost}' if cost else ''}")
        _print_group(found)
    _print_total(report)


def _grouped(findings: Sequence[Finding]) -> list[Finding]:
    """Findings of one kind together, at the place of the worst of them."""
    first: dict[tuple[str, str], int] = {}
    for i, finding in enumerate(findings):
        first.setdefault((finding.severity, finding.id), i)
    return sorted(findings, key=lambda f: first[f.severity, f.id])


def _print_group(found: Sequence[Finding]) -> None:
    hint = ""
    for finding in found[:_MOST_SHOWN]:
        if hint and finding.hint != hint:
            click.echo(f"         try: {hint}")
        hint = finding.hint
        click.echo(f"         {finding.what}")
        for path in finding.paths[:_MOST_SHOWN]:
            click.echo(f"           {path}")
        if len(finding.paths) > _MOST_SHOWN:
            click.echo(f"           … and {len(finding.paths) - _MOST_SHOWN} more")
    if len(found) > _MOST_SHOWN:
        click.echo(f"         … and {len(found) - _MOST_SHOWN} more, which --json lists")
    click.echo(f"         try: {hint}")


def _print_total(report: Report) -> None:
    if report.clean:
        click.secho("Clean: ", fg="green", nl=False)
        click.echo("nothing worse than information.")
    words = {"start": "at each cold start", "use": "when things are first used", "pull": "at each pull"}
    parts = [f"{_summed([cost]) or 'nothing'} {words[when]}" for when, cost in report.totals()]
    click.echo(f"Estimated: {'; '.join(parts)}.")


def _summed(costs: Sequence[Cost]) -> str:
    seconds = sum(cost.seconds for cost in costs)
    hashed, downloaded = sum(cost.hashed for cost in costs), sum(cost.downloaded for cost in costs)
    words = []
    if seconds >= 0.05:
        words.append(f"about {seconds:.1f} s" if seconds < 10 else f"about {seconds:.0f} s")
    words += [f"{size(hashed)} hashed"] if hashed else []
    words += [f"{size(downloaded)} downloaded"] if downloaded else []
    return ", ".join(words)
