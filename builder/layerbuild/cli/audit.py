"""`layerbuild audit`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import click

from layerbuild.api.auditing import audit_image
from layerbuild.audit.findings import Cost, Finding, Report, printable
from layerbuild.audit.limits import Unreadable
from layerbuild.cli import options
from layerbuild.cli.display import print_json, progress_for, size
from layerbuild.cli.workspace import open_project
from layerbuild.errors import LayerbuildError, UsageError
from layerbuild.selection import lies_elsewhere

FOUND = 4
"""Exit code where something is worse than information."""

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
      layerbuild audit ghcr.io/acme/gallery:demo      any image, ours or not
      layerbuild audit oci:images:gallery:demo --json
      layerbuild audit gallery                        of the project, as its lock would make it
      layerbuild audit --changed-since origin/main    for CI
    """
    reference, narrowed = arguments["reference"], bool(arguments["labels"] or arguments["changed_since"])
    try:
        if reference is None and not narrowed:
            raise UsageError("no image is named", hint="name one, or images of the project with --label")
        if reference is not None and lies_elsewhere(reference):
            if narrowed:
                raise UsageError("--label and --changed-since choose images of the project", hint="leave them out")
            reports = audit_image(
                reference,
                platform=arguments["platform"],
                progress=progress_for(ctx.obj),
                insecure=arguments["insecure"],
            )
        elif arguments["platform"]:
            hint = "leave --platform out; NAME@OS/ARCH is one of several platforms of an image"
            raise UsageError("an image of the project has the platforms of its recipe", hint=hint)
        else:
            reports = _of_project(ctx.obj, arguments)
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


def _of_project(obj: dict[str, Any], arguments: Mapping[str, Any]) -> tuple[Report, ...]:
    project = open_project(obj, insecure=arguments["insecure"])
    reference = arguments["reference"]
    selected = options.selected(project, {**arguments, "patterns": [] if reference is None else [reference]})
    return project.audit(selected)


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
