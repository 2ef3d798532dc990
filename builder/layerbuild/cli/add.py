"""`layerbuild add`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from layerbuild import project
from layerbuild.adding import files
from layerbuild.adding.declaration import Declaration
from layerbuild.adding.identify import SNAPSHOT, TYPES, Extension, Identifier, Wishes
from layerbuild.adding.pasted import Pasted, recognise
from layerbuild.adding.plan import Added, Edits
from layerbuild.cli import options
from layerbuild.cli.display import print_json, size
from layerbuild.cli.workspace import open_project
from layerbuild.errors import UsageError
from layerbuild.workspace import Workspace


@click.command("add")
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@click.option("--name", metavar="NAME", help="Name of the layer. Default: made of the file's name.")
@click.option(
    "--type", "kind", type=click.Choice([*TYPES, SNAPSHOT]), metavar="TYPE", help="What it is, where nobody can tell."
)
@click.option("--filename", metavar="FILE", help="Name under which the webui lists it. Default: the source's.")
@click.option("--to", "recipe", metavar="RECIPE", help="Add the layer to that recipe's 'layers', too.")
@options.as_json
@click.pass_obj
def command(obj: dict[str, Any], /, **arguments: Any) -> None:
    """Declare a model, a snapshot, an extension or a webui in layers/.

    SOURCE is what you have: a page of the Hub, of Civitai or of a git host, a download link, a source as a
    declaration has it (hf://, civitai://, s3:// ...), or a file here. What it is, is read from the header of the file
    itself, by range, and from what its page says. Commits and digests are pinned where they are published.

    Nothing else in the files changes, and nothing is replaced: a source that is declared already is left alone.
    TYPE is one of checkpoint, lora, vae, embedding, hypernetwork, upscaler, controlnet, vae-approx, vae-taesd,
    codeformer, gfpgan, blip, deepbooru, or huggingface for a repository as a snapshot.

    \b
    Examples:
      layerbuild add https://civitai.com/models/4384           the newest version of a model
      layerbuild add civitai://128713 --to gallery             one version, and into a recipe
      layerbuild add acme/night --type vae                     the model of a repository of the Hub
      layerbuild add models/ink.safetensors --type lora        a file here, which is not copied
      layerbuild add https://github.com/acme/my-extension      an extension, at its newest commit
    """
    sources: Sequence[str] = arguments["sources"]
    wishes = Wishes(name=arguments["name"], type=arguments["kind"], filename=arguments["filename"])
    if len(sources) > 1 and (wishes.name or wishes.filename):
        raise UsageError("--name and --filename are for one source", hint="add the sources one by one")
    workspace = open_project(obj).workspace
    if arguments["recipe"] is not None:
        Edits(project=workspace.project).recipe(arguments["recipe"])
    identifier = Identifier(workspace.context)
    found = [_identified(workspace, identifier, source, wishes) for source in sources]
    with files.one_writer(workspace.root):
        added, changed = _edit(Edits(project=project.load(workspace.root)), found, arguments["recipe"])
    if arguments["json_output"]:
        print_json({"added": [_as_json(made) for made in added]})
    else:
        _print(found, added, arguments["recipe"], changed=changed)


def _edit(edits: Edits, found: Sequence[Declaration | Extension], recipe: str | None) -> tuple[Sequence[Added], bool]:
    """What became of each, and whether a file is another now."""
    added, used = [], []
    for what in found:
        made = edits.extend(what, recipe) if isinstance(what, Extension) else edits.add(what)
        added.append(made)
        if recipe is not None and ":" not in made.name:
            used.append(edits.use(made.name, recipe))
    edits.write()
    return added, any(used) or any(made.new for made in added)


def _identified(workspace: Workspace, identifier: Identifier, text: str, wishes: Wishes) -> Declaration | Extension:
    pasted = recognise(text, is_there=lambda path: Path(path).exists())
    for note in pasted.notes:
        workspace.progress.note(note)
    return identifier.identify(_from_project(pasted, text, workspace), wishes)


def _from_project(pasted: Pasted, text: str, workspace: Workspace) -> Pasted:
    """A path as a declaration has it: relative to the project where it lies in it, else absolute."""
    if pasted.source != f"file:{text.strip()}" or text.strip().startswith("file:"):
        return pasted
    path = Path(os.path.abspath(text.strip()))  # noqa: PTH100  # links stay as they are written
    if path.is_dir():
        raise UsageError(f"{text} is a directory", hint="add its model files one by one: layerbuild add DIR/*")
    try:
        inside = path.parent.resolve().relative_to(workspace.root) / path.name
    except ValueError:
        workspace.progress.note(f"{text} lies outside of the project: others will not find it there")
        return replace(pasted, source=f"file:{path}")
    return replace(pasted, source=f"file:{inside.as_posix()}")


def _as_json(made: Added) -> dict[str, Any]:
    return {"name": made.name, "file": made.file, "new": made.new, "about": made.about}


def _print(
    found: Sequence[Declaration | Extension], added: Sequence[Added], recipe: str | None, *, changed: bool
) -> None:
    for what, made in zip(found, added, strict=True):
        if not made.new:
            where = f" in {made.file}" if made.file else ""
            click.echo(f"{made.name} is {made.about}{where}: nothing to add")
            continue
        told = what.values.get("size") if isinstance(what, Declaration) else None
        about = f"{made.about}, {size(told)}" if told is not None else made.about
        click.echo(f"added {click.style(made.name, bold=True)} ({about}) to {made.file}")
    if not changed:
        return
    names = [made.name for made in added if ":" not in made.name]
    if recipe is None and names:
        click.echo(f"next: name {', '.join(names)} under 'layers' in a recipe (or add with --to RECIPE), then run")
        click.echo("  layerbuild lock")
    else:
        click.echo("next: layerbuild lock")
