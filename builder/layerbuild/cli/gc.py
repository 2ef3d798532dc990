"""`layerbuild gc`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from layerbuild.care import Reason, parse_keep, parse_size
from layerbuild.cli import options
from layerbuild.cli.display import print_json, print_table, size
from layerbuild.cli.storeplace import as_json, counted, own_lock, paths, rows, station, total
from layerbuild.errors import UsageError
from layerbuild.execute.upkeep import Collected, Wishes, collect
from layerbuild.project import LOCKFILE

_LISTED = 20
"""Things of one kind that are told of one by one."""

_WHY: dict[Reason, str] = {
    "needed": "needed by locks",
    "in use": "used since the oldest running layerbuild began",
    "recent": "used lately",
    "built here": "built here, and nowhere else to be had: --all removes that",
    "fits": "left because the store is small enough",
}


@click.command("gc")
@click.option(
    "--root",
    "roots",
    multiple=True,
    metavar="LOCKFILE",
    help="Keep also what this lock needs. Repeatable. Projects that used the store count without being named.",
)
@click.option(
    "--forget",
    multiple=True,
    metavar="DIR",
    help="A project that keeps nothing any more, though its disk is away or its lock cannot be read. Repeatable.",
)
@click.option(
    "--keep-last",
    metavar="DURATION|N",
    help="Keep also what was used in the last 12h, 30d or 8w; or since the N-th last of the things of 1 MiB and more.",
)
@click.option(
    "--max-size",
    metavar="SIZE",
    help="Remove no more than it takes until the store has 20G, 500M or so; the least recently used first.",
)
@click.option("--even-needed", is_flag=True, help="With --max-size: then also what locks need, if that must be.")
@click.option(
    "--all", "everything", is_flag=True, help="Also wheels that were built here; also if no project is known."
)
@click.option("--dry-run", is_flag=True, help="Say what would go, and remove nothing.")
@options.as_json
@click.pass_obj
def command(obj: dict[str, Any], /, **arguments: Any) -> None:
    """Remove from this machine's store what no project needs.

    The store remembers which projects used it. What their locks name stays: files, layers, repositories, and
    all that was made of them. A project whose lock is gone keeps nothing, and is told of; while one is on a disk that
    is not mounted, nothing is removed. Receipts and facts are never removed: they are small, and save reading
    gigabytes.

    What goes can be fetched or made again. Wheels that were built on this machine stay without --all: built anew they
    may be others. What a running layerbuild uses stays in any case, so this is safe at any time.

    \b
    Examples:
      layerbuild gc --dry-run                  what would go, largest first
      layerbuild gc --keep-last 30d            what nobody needs and nobody used for 30 days
      layerbuild gc --max-size 50G             no more than it takes to come down to 50 GiB
      layerbuild gc --root other/lockfile.yaml
    """
    if arguments["even_needed"] and not arguments["max_size"]:
        raise UsageError("--even-needed alone would remove everything", hint="say with --max-size how much may stay")
    since, count = parse_keep(arguments["keep_last"], time.time()) if arguments["keep_last"] else (None, None)
    here = station(obj)
    wishes = Wishes(
        roots=[*own_lock(obj), *map(Path, arguments["roots"])],
        forget=[(Path(name) / LOCKFILE).resolve() for name in arguments["forget"]],
        keep_since_ns=since,
        keep_count=count,
        max_size=parse_size(arguments["max_size"]) if arguments["max_size"] else None,
        even_needed=arguments["even_needed"],
        everything=arguments["everything"],
        dry_run=arguments["dry_run"],
    )
    done = collect(here.store, wishes, here.progress)
    if arguments["json_output"]:
        print_json(_json(done, dry_run=wishes.dry_run))
    else:
        _print(done, wishes)


def _print(done: Collected, wishes: Wishes) -> None:
    for path in paths(done.survey.roots.gone):
        click.secho(f"note: the lock of {path} is gone, and keeps nothing", fg="yellow")
    if done.removed:
        headers = ["WOULD GO" if wishes.dry_run else "REMOVED", "NUMBER", "SIZE", "LAST USED"]
        print_table(headers, rows(done.removed, listed=_LISTED), right=frozenset({1, 2}))
    for reason, items in done.choice.kept.items():
        click.echo(f"{size(total(items))} stay: {_WHY[reason]}")
    if done.spared:
        click.echo(f"{size(total(done.spared))} stay: they came into use meanwhile")
    locks = counted(len(done.survey.roots.locks), "project", "projects")
    verb = "would be freed" if wishes.dry_run else "freed"
    click.secho(f"{size(done.freed)} {verb}, {size(done.left)} left; {locks} looked at", bold=True)
    if wishes.max_size is not None and done.left > wishes.max_size:
        more = "" if wishes.even_needed else "; --even-needed would remove what locks need, too"
        click.echo(f"that is more than {size(wishes.max_size)}{more}")


def _json(done: Collected, *, dry_run: bool) -> dict[str, Any]:
    kept = {reason: {"number": len(items), "size": total(items)} for reason, items in done.choice.kept.items()}
    return {
        "dry_run": dry_run,
        "freed": done.freed,
        "left": done.left,
        "removed": [as_json(item) for item in sorted(done.removed, key=lambda item: -item.size)],
        "kept": kept,
        "spared": [as_json(item) for item in done.spared],
        "projects": [str(path.parent) for path in done.survey.roots.locks],
        "gone": [str(path.parent) for path in done.survey.roots.gone],
    }
