"""`layerbuild audit`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import click

from layerbuild import http
from layerbuild.audit.findings import Cost, Finding, Report, printable
from layerbuild.audit.limits import Unreadable
from layerbuild.audit.view import open_image
from layerbuild.baseimage import open_base
from layerbuild.cli import options
from layerbuild.cli.display import make_progress, print_json, size
from layerbuild.cli.workspace import Workspace
from layerbuild.errors import LayerbuildError, UsageError
from layerbuild.execute.auditing import Auditor, audited
from layerbuild.locked import checked
from layerbuild.registry.clients import Clients

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
        if reference is not None and _is_elsewhere(reference):
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


def _is_elsewhere(reference: str) -> bool:
    """Whether `reference` names a layout or a registry's image: images of a project have no host."""
    first, slash, _ = reference.partition("/")
    named = "@" in first  # NAME@os/architecture
    host = bool(slash) and not named and ("." in first or ":" in first or first == "localhost")
    return host or reference.startswith("oci:")


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
        yield audited(view, blobs)


def _of_project(obj: dict[str, Any], arguments: Mapping[str, Any]) -> Iterator[Report]:
    workspace = Workspace(obj, insecure=arguments["insecure"])
    reference = arguments["reference"]
    selected = options.selected(workspace, {**arguments, "patterns": [] if reference is None else [reference]})
    lock = workspace.lock()
    auditor = Auditor(
        builder=workspace.builder(lock),
        open_base=workspace.open_base,
        client_for=workspace.clients,
        progress=workspace.progress,
    )
    yield from map(auditor.run, checked(workspace.images, selected, lock))


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
