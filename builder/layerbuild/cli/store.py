"""`layerbuild store` and its subcommands."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import click

from layerbuild.audit.findings import printable
from layerbuild.care import KINDS, LARGE, Item
from layerbuild.cli import options
from layerbuild.cli.display import print_json, print_table, size
from layerbuild.cli.storeplace import ago, as_json, by_kind, counted, own_lock, paths, rows, station, title, total
from layerbuild.errors import StoreError, UsageError
from layerbuild.execute import checkup
from layerbuild.execute.checkup import Checkup
from layerbuild.execute.upkeep import Survey, survey
from layerbuild.store.inventory import Inventory
from layerbuild.storepath import store_path

_TABLES = ("receipts", "facts", "git_blobs")
"""What is remembered for good."""


@click.group("store", invoke_without_command=True)
@options.as_json
@click.pass_context
def command(ctx: click.Context, /, json_output: bool) -> None:
    """Look at this machine's store: where it is, what is in it, which projects need it.

    The store holds what was fetched and made, once for all projects of this machine. It is at $LAYERBUILD_STORE, or
    where the system keeps caches. All of it can be removed; it costs time only. 'layerbuild gc' removes what no
    project needs.

    \b
    Examples:
      layerbuild store                     how large it is, by kind, and who uses it
      layerbuild store ls                  every large thing in it
      layerbuild store show 697f0b42e608   one of them: where it lies, and who needs it
      layerbuild store verify              read everything, and say what is damaged
      layerbuild store repair              remove what is damaged
    """
    if ctx.invoked_subcommand is None:
        _summary(ctx.obj, json_output=json_output)


@command.command("path")
def path() -> None:
    """Print where the store is.

    \b
    Examples:
      layerbuild store path
    """
    click.echo(store_path(os.environ))


def _summary(obj: dict[str, Any], *, json_output: bool) -> None:
    here = station(obj)
    seen = survey(here.store, own_lock(obj))
    root, free = here.store.root, shutil.disk_usage(here.store.root).free
    known = {table: int(str(here.store.query(f"SELECT count(*) FROM {table}")[0][0])) for table in _TABLES}  # noqa: S608
    if json_output:
        print_json(_summary_json(seen, root, free, known))
        return
    click.echo(f"{root}: {size(total(seen.items))}, {size(free)} free on its disk")
    needed = seen.needed
    lines = []
    for kind, items in by_kind(seen.items).items():
        wanted = total(item for item in items if item.id in needed)
        lines.append([kind, str(len(items)), size(total(items)), size(wanted)])
    lines.append(["total", str(len(seen.items)), size(total(seen.items)), size(_needed(seen))])
    print_table(["WHAT", "NUMBER", "SIZE", "NEEDED"], lines, right=frozenset({1, 2, 3}))
    click.echo(
        f"remembered: {counted(known['receipts'], 'layer', 'layers')}, facts of "
        f"{counted(known['facts'], 'file', 'files')}"
    )
    _print_projects(seen, here.store.projects())


def _print_projects(seen: Survey, used: dict[Path, float]) -> None:
    lines = []
    for lock in sorted({*used, *seen.needs}):
        if lock in seen.needs:
            amount = size(total(item for item in seen.items if item.id in seen.needs[lock]))
        else:
            amount = "gone" if lock in seen.roots.gone else "unreadable"
        lines.append([*paths([lock]), ago(used[lock]) if lock in used else "", amount])
    if lines:
        click.echo()
        print_table(["PROJECT", "LAST USED", "NEEDS"], lines, right=frozenset({2}))


def _needed(seen: Survey) -> int:
    needed = seen.needed
    return total(item for item in seen.items if item.id in needed)


def _summary_json(seen: Survey, root: Path, free: int, known: dict[str, int]) -> dict[str, Any]:
    needed = seen.needed
    kinds = {}
    for kind in KINDS:
        items = [item for item in seen.items if item.kind == kind]
        wanted = total(item for item in items if item.id in needed)
        kinds[kind] = {"number": len(items), "size": total(items), "needed": wanted}
    projects = {str(lock.parent): total(i for i in seen.items if i.id in needs) for lock, needs in seen.needs.items()}
    return {
        "path": str(root),
        "size": total(seen.items),
        "needed": _needed(seen),
        "free": free,
        "kinds": kinds,
        "remembered": known,
        "projects": projects,
        "gone": [str(lock.parent) for lock in seen.roots.gone],
        "unreadable": [str(lock.parent) for lock in seen.roots.unreadable],
    }


@command.command("ls")
@click.option("--unneeded", is_flag=True, help="Only what no project needs.")
@options.as_json
@click.pass_obj
def ls(obj: dict[str, Any], /, unneeded: bool, json_output: bool) -> None:
    """List what is in the store, by kind, largest first; of small things, how many they are.

    \b
    Examples:
      layerbuild store ls
      layerbuild store ls --unneeded        what 'layerbuild gc' would look at
      layerbuild store ls --json            every single thing
    """
    seen = survey(station(obj).store, own_lock(obj))
    needed = seen.needed
    items = [item for item in seen.items if not unneeded or item.id not in needed]
    if json_output:
        print_json({"items": [{**as_json(item), "needed": item.id in needed} for item in items]})
        return
    print_table(["WHAT", "NUMBER", "SIZE", "LAST USED"], rows(items), right=frozenset({1, 2}))
    small = sum(item.size < LARGE for item in items)
    if small:
        click.echo(f"{counted(small, 'thing is', 'things are')} smaller than {size(LARGE)}, and not listed")


@command.command("show")
@click.argument("digest", metavar="DIGEST")
@options.as_json
@click.pass_obj
def show(obj: dict[str, Any], /, digest: str, json_output: bool) -> None:
    """Say of one thing what it is, where it lies, and which projects need it.

    DIGEST is its sha256, or the beginning of it, with or without 'sha256:'.

    \b
    Examples:
      layerbuild store show 697f0b42e608
    """
    here = station(obj)
    seen = survey(here.store, own_lock(obj))
    wanted = digest.removeprefix("sha256:").lower()
    found = [item for item in seen.items if wanted and item.name.startswith(wanted)]
    if not found:
        raise UsageError(
            f"nothing in the store begins with {printable(digest)[:80]}",
            hint="'layerbuild store ls' says what is there",
        )
    inventory = Inventory(here.store)
    if json_output:
        print_json({"items": [_shown(item, inventory, seen) for item in found]})
        return
    for item in found:
        click.echo(f"{title(item)}: {KINDS[item.kind]}, {size(item.size)}, last used {ago(item.used_ns / 1e9)}")
        click.echo(f"  {inventory.path(item)}")
        for project in paths(seen.needed_by(item)) or ["nobody"]:
            click.echo(f"  needed by {project}")


def _shown(item: Item, inventory: Inventory, seen: Survey) -> dict[str, Any]:
    projects = [str(lock.parent) for lock in seen.needed_by(item)]
    return {**as_json(item), "path": str(inventory.path(item)), "needed_by": projects}


@command.command("verify")
@options.as_json
@click.pass_obj
def verify(obj: dict[str, Any], /, json_output: bool) -> None:
    """Read everything in the store, and say what is not what its name says. Nothing is changed.

    Exit code 1 if anything is damaged.

    \b
    Examples:
      layerbuild store verify
    """
    here = station(obj)
    found = checkup.check(here.store, here.environ, here.progress)
    if json_output:
        print_json(_checkup_json(found))
    else:
        _print_damaged(found)
        click.echo(f"{counted(len(found.items), 'thing', 'things')} verified, {size(total(found.items))}")
    if found.damaged:
        number = counted(len(found.damaged), "thing in the store is", "things in the store are")
        raise StoreError(f"{number} damaged", hint="remove what is damaged with 'layerbuild store repair'")


@command.command("repair")
@options.as_json
@click.pass_obj
def repair(obj: dict[str, Any], /, json_output: bool) -> None:
    """Verify the store, remove what is damaged, and forget what is not there any more.

    What a project needs of it is fetched or made anew by the next run; it is said what that is.

    \b
    Examples:
      layerbuild store repair
    """
    here = station(obj)
    root = store_path(here.environ)
    lost = not checkup.is_sound(root)
    known = checkup.renew_database(root) if lost else 0
    found = checkup.check(here.store, here.environ, here.progress)
    needs = survey(here.store, own_lock(obj))
    forgotten = checkup.repair(here.store, found, here.environ, here.progress)
    if json_output:
        print_json({**_checkup_json(found), "removed_rows": forgotten, "database_removed": lost})
        return
    if lost:
        click.echo("what the store remembered was damaged, and is gone: receipts and facts are learnt again")
        click.echo(
            f"{counted(known, 'project is', 'projects are')} still known: "
            "run a command in each of the others before 'layerbuild gc'"
        )
    _print_damaged(found)
    for damage in found.damaged:
        for project in paths(needs.needed_by(damage.item)):
            click.echo(f"{title(damage.item)}: {project} needs it; its next run fetches or makes it anew")
    click.echo(
        f"{counted(len(found.damaged), 'thing', 'things')} removed, {counted(forgotten, 'row', 'rows')} forgotten"
    )


def _print_damaged(found: Checkup) -> None:
    for damage in found.damaged:
        click.echo(f"damaged: {title(damage.item)}, {size(damage.item.size)}: {printable(damage.cause)[:300]}")


def _checkup_json(found: Checkup) -> dict[str, Any]:
    return {
        "verified": len(found.items),
        "size": total(found.items),
        "damaged": [{**as_json(damage.item), "cause": damage.cause} for damage in found.damaged],
        "dangling_rows": dict(found.dangling),
    }
