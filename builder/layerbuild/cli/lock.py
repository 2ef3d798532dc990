"""`layerbuild lock`."""

from __future__ import annotations

from typing import Any

import click

from layerbuild.api.locking import LockCheck, LockOutcome
from layerbuild.api.merging import TakenOver
from layerbuild.api.options import LockOptions
from layerbuild.cli import options
from layerbuild.cli.display import closing, print_json, size
from layerbuild.cli.workspace import open_project
from layerbuild.lockmodel import Lock
from layerbuild.progress import Tally


@click.command("lock")
@click.option("--update", multiple=True, metavar="NAME", help="Resolve this layer (or base) anew, moving its pin.")
@click.option("--update-all", is_flag=True, help="Resolve everything anew.")
@click.option("--check", "check_only", is_flag=True, help="Change nothing; exit 3 if the lock has drifted.")
@click.option("--offline", is_flag=True, help="Open no connection: only what is pinned, or pins itself.")
@click.option("--keep-going", is_flag=True, help="Name what cannot be reached under 'unlocked', and lock the rest.")
@click.option(
    "--no-inspect", is_flag=True, help="Read no safetensors headers: facts are learnt when the models are fetched."
)
@click.option(
    "--repack", multiple=True, metavar="NAME", help="Forget how this layer, or image, was compressed and composed."
)
@click.option("--facts", is_flag=True, help="Fetch the models of which an image must know more than is published.")
@click.option(
    "--record", metavar="FILE", help="Take over receipts that --receipts-out of build or push wrote. No pin moves."
)
@options.insecure
@options.as_json
@click.pass_obj
def command(obj: dict[str, Any], /, **arguments: Any) -> None:
    """Pin every source of the project in lockfile.yaml.

    Digests come from the Hub, from git, or from the declaration; no weights are downloaded. Where nobody
    publishes a digest, lock says so, fetches the file once and records what came. A declaration that has
    not changed keeps its pin. Of safetensors models the header is read, in one or two requests for each.

    \b
    Examples:
      layerbuild lock                    pin what is new
      layerbuild lock --update clip      move one pin to what its source says today
      layerbuild lock --check            for CI: is the lock up to date?
      layerbuild lock --facts            fetch now what the first build would have to learn
      layerbuild lock --record out.yaml  receipts of a CI that leaves the lock alone

    Conflict markers of a merge are resolved where both sides agree. What they say differently is named.
    """
    project = open_project(obj, insecure=arguments["insecure"], offline=arguments["offline"])
    if arguments["check_only"]:
        _check(project.check_lock(), json_output=arguments["json_output"])
    elif arguments["record"] is not None:
        _recorded(project.record(arguments["record"]), json_output=arguments["json_output"])
    else:
        wanted = ("update", "update_all", "keep_going", "facts", "repack")
        chosen = {name: arguments[name] for name in wanted}
        outcome = project.lock(LockOptions(inspect=not arguments["no_inspect"], **chosen))
        _report(outcome, project.workspace.progress.tally, json_output=arguments["json_output"])


def _check(found: LockCheck, *, json_output: bool) -> None:
    if json_output:
        print_json(found.as_json())
    found.refuse()
    if not json_output:
        waiting = f"; {len(found.lock.unlocked)} unlocked" if found.lock.unlocked else ""
        click.echo(f"lockfile.yaml stands for {found.images} images{waiting}")


def _recorded(taken: TakenOver, *, json_output: bool) -> None:
    if json_output:
        print_json(taken.as_json())
    else:
        click.echo(f"recorded {taken.receipts} receipts" if taken.changed else "lockfile.yaml knew all of it")


def _report(outcome: LockOutcome, tally: Tally, *, json_output: bool) -> None:
    if json_output:
        print_json(outcome.as_json())
        return
    new = outcome.lock
    for word, names in (("locked", outcome.added), ("moved", outcome.moved), ("removed", outcome.removed)):
        for name in names:
            click.echo(f"{word} {name}{_pins(new, name) if word != 'removed' else ''}")
    for name, reason in new.unlocked.items():
        click.secho(f"unlocked {name}: {reason}", fg="yellow")
    for line in outcome.advice:
        click.secho(f"note: {line}", fg="yellow")
    kept = len(new.layers) - len(outcome.added) - len(outcome.moved)
    written = "wrote lockfile.yaml" if outcome.changed else "lockfile.yaml is unchanged"
    click.echo(f"{written}: {len(new.images)} images, {len(new.layers)} layers ({kept} as before)")
    click.echo(closing(tally, moved=f"fetched {size(tally['fetched'])}", spared={"are pinned": _pinned(new)}))


def _pinned(lock: Lock) -> int:
    """Bytes of all distinct files that are pinned with their size."""
    files = [file.content for layer in lock.layers.values() for pin in layer.pins.values() for file in pin.files]
    return sum({content.id: content.size or 0 for content in files}.values())


def _pins(lock: Lock, name: str) -> str:
    revisions = [pin.revision[:12] for pin in lock.layers[name].pins.values() if pin.revision]
    return f" at {revisions[0]}" if revisions else ""
