"""`layerbuild lock`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from layerbuild import locktext
from layerbuild.advice import advise
from layerbuild.cli import merging, options
from layerbuild.cli.display import closing, print_json, size
from layerbuild.cli.installs import installs, uncompilable
from layerbuild.cli.workspace import Workspace
from layerbuild.compose import ComposedImage, compose
from layerbuild.errors import DriftError, UsageError
from layerbuild.execute.lock import Locker
from layerbuild.execute.pinning import Options
from layerbuild.locked import RELOCK, drift
from layerbuild.lockmodel import Lock, forgetting
from layerbuild.similar import did_you_mean


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
      layerbuild lock --update clip-l14  move one pin to what its source says today
      layerbuild lock --check            for CI: is the lock up to date?
      layerbuild lock --facts            fetch now what the first build would have to learn
      layerbuild lock --record out.yaml  receipts of a CI that leaves the lock alone

    Conflict markers of a merge are resolved where both sides agree. What they say differently is named.
    """
    workspace = Workspace(obj, insecure=arguments["insecure"], offline=arguments["offline"])
    if arguments["check_only"]:
        _check(workspace, json_output=arguments["json_output"])
        return
    if arguments["record"] is not None:
        merging.take_over(workspace, Path(arguments["record"]), json_output=arguments["json_output"])
        return
    with workspace.writing():
        old = merging.settled(workspace, arguments["update"], everything=arguments["update_all"])
        labels = {
            name for image in (old or Lock()).images.values() for line in image.layers for name in _names_of(line)
        }
        _known_names(workspace, arguments["update"])
        made = {name for image in workspace.images for name in (image.name, image.title)}
        _known_names(workspace, arguments["repack"], {*labels, *made})
        new = _locker(workspace, old or Lock(), arguments).run()
        if arguments["facts"]:
            new = _with_facts(workspace, new, arguments)
        new = _without_blobs(workspace, new, frozenset(arguments["repack"]))
        changed = locktext.write(workspace.project.lockfile, new)
    composed = _composed(workspace, new)
    advice = [
        *map(str, advise(composed, new)),
        *installs(workspace.context, old or Lock(), new),
        *uncompilable(composed, workspace.builder(new)),
    ]
    _report(workspace, old, new, advice, changed=changed, json_output=arguments["json_output"])


def _with_facts(workspace: Workspace, lock: Lock, arguments: Mapping[str, Any]) -> Lock:
    """The lock with the facts that its images wait for. What must be read for them is fetched.

    Raises:
        LayerbuildError: something cannot be had.
    """
    composed = _composed(workspace, lock)
    builder = workspace.builder(lock)
    builder.contents.wanted = frozenset(sha256 for image in composed for sha256 in image.pending)
    for error in builder.learn(composed).values():
        raise error
    return _locker(workspace, lock, {**arguments, "update": (), "update_all": False}).run()


def _locker(workspace: Workspace, old: Lock, arguments: dict[str, Any]) -> Locker:
    return Locker(
        images=workspace.images,
        old=old,
        store=workspace.store,
        context=workspace.context,
        progress=workspace.progress,
        resolve_base=workspace.resolve_base,
        inspect_base=workspace.inspect_base,
        options=Options(
            update=frozenset(arguments["update"]),
            update_all=arguments["update_all"],
            keep_going=arguments["keep_going"],
            inspect=not arguments["no_inspect"],
        ),
    )


def _known_names(workspace: Workspace, names: tuple[str, ...], labels: Collection[str] = ()) -> None:
    known = {*labels}
    known |= {name for image in workspace.images for use in image.uses for name in (use.name, use.pin_key)}
    known |= {image.recipe.base for image in workspace.images}
    for name in names:
        if name not in known:
            raise UsageError(
                f"no recipe uses a layer or base called {name!r}" + (", or makes such an image" if labels else ""),
                hint=f"names of layers stand in recipes, under 'layers'{did_you_mean(name, known)}",
            )


def _without_blobs(workspace: Workspace, lock: Lock, names: frozenset[str]) -> Lock:
    """Forgets how layers were compressed, here and in the lock, and the manifests that said so."""
    if not names:
        return lock
    touched = {
        line.rpartition("@")[2] for image in lock.images.values() for line in image.layers if names & _names_of(line)
    }
    for key in touched:
        workspace.store.forget_blobs(key)
    receipts = {k: replace(r, blobs=()) if k[:16] in touched else r for k, r in lock.receipts.items()}
    images = {
        name: replace(image, manifest=None)
        if names & {name, name.partition("@")[0]} or any(line.rpartition("@")[2] in touched for line in image.layers)
        else image
        for name, image in lock.images.items()
    }
    indexes = forgetting(lock.indexes, lock.images, images)
    return replace(lock, receipts=receipts, images=images, indexes=indexes)


def _composed(workspace: Workspace, lock: Lock) -> tuple[ComposedImage, ...]:
    """The images that the lock holds."""
    return compose([image for image in workspace.images if image.name in lock.images], lock)


def _names_of(line: str) -> set[str]:
    """A layer's label, and the declaration that the label begins with (`webui/BLIP`)."""
    label = line.partition("/")[2].rpartition("@")[0]
    return {label, label.partition("/")[0]}


def _check(workspace: Workspace, *, json_output: bool) -> None:
    lock = workspace.lock()
    found = drift(workspace.images, lock)
    for key, receipt in lock.receipts.items():
        stored = workspace.store.receipt(key)
        if stored is not None and stored.diff_id != receipt.diff_id:
            found.append(f"the receipt {key[:16]} says {receipt.diff_id}, this machine made {stored.diff_id}")
    if json_output:
        print_json({"drift": found, "unlocked": dict(lock.unlocked)})
    if found:
        text = "\n".join(f"  {line}" for line in found)
        raise DriftError(f"the lock has drifted:\n{text}", hint=RELOCK)
    if not json_output:
        waiting = f"; {len(lock.unlocked)} unlocked" if lock.unlocked else ""
        click.echo(f"lockfile.yaml stands for {len(workspace.images)} images{waiting}")


def _report(
    workspace: Workspace, old: Lock | None, new: Lock, advice: list[str], *, changed: bool, json_output: bool
) -> None:
    before = old.layers if old else {}
    moved = sorted(name for name, layer in new.layers.items() if name in before and before[name] != layer)
    added = sorted(set(new.layers) - set(before))
    removed = sorted(set(before) - set(new.layers))
    if json_output:
        changes = {"added": added, "moved": moved, "removed": removed}
        print_json({"changed": changed, "layers": changes, "unlocked": dict(new.unlocked), "advice": advice})
        return
    for word, names in (("locked", added), ("moved", moved), ("removed", removed)):
        for name in names:
            click.echo(f"{word} {name}{_pins(new, name) if word != 'removed' else ''}")
    for name, reason in new.unlocked.items():
        click.secho(f"unlocked {name}: {reason}", fg="yellow")
    for line in advice:
        click.secho(f"note: {line}", fg="yellow")
    kept = len(new.layers) - len(added) - len(moved)
    written = "wrote lockfile.yaml" if changed else "lockfile.yaml is unchanged"
    click.echo(f"{written}: {len(new.images)} images, {len(new.layers)} layers ({kept} as before)")
    tally = workspace.progress.tally
    click.echo(closing(tally, moved=f"fetched {size(tally['fetched'])}", spared={"are pinned": _pinned(new)}))


def _pinned(lock: Lock) -> int:
    """Bytes of all distinct files that are pinned with their size."""
    files = [file.content for layer in lock.layers.values() for pin in layer.pins.values() for file in pin.files]
    return sum({content.id: content.size or 0 for content in files}.values())


def _pins(lock: Lock, name: str) -> str:
    revisions = [pin.revision[:12] for pin in lock.layers[name].pins.values() if pin.revision]
    return f" at {revisions[0]}" if revisions else ""
