"""`layerbuild init`."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

import click

from layerbuild import project
from layerbuild.adding import files
from layerbuild.adding.identify import Identifier
from layerbuild.bytecode import find
from layerbuild.cli import options
from layerbuild.cli.display import print_json, progress_for
from layerbuild.errors import InterpreterMissing, UsageError
from layerbuild.execute.station import Station
from layerbuild.newproject import DEFAULT_BASE, PYTHON, Model, Plan, Survey, recipe_name, schemas, survey


@click.command("init")
@click.argument("directory", metavar="[DIR]", default=".", type=click.Path(path_type=Path))
@click.option("--base", metavar="IMAGE", default=DEFAULT_BASE, help="The base image. Default: one with torch.")
@options.as_json
@click.pass_obj
def command(obj: dict[str, Any], directory: Path, base: str, *, json_output: bool) -> None:
    """Write a small project into DIR (default: here): a recipe, a file for layers, schemas for editors.

    It finds out what it can: model files that are there become layers, typed by their headers; a Dockerfile is
    named, for 'layerbuild import'; in a git repository a .gitignore is written. No file is written over.

    \b
    Examples:
      layerbuild init                       a project here
      layerbuild init images                a project in images/
      layerbuild init --base scratch        with another base
    """
    directory = Path(obj.get("project") or ".") / directory
    root = directory.absolute()
    if root.exists() and not root.is_dir():
        raise UsageError(f"{directory} is not a directory", hint="name one, or a new one")
    found = survey(root) if root.exists() else survey_of_nothing(root)
    written, kept = _write(root, _texts(obj, root, found, base))
    if json_output:
        print_json({"written": written, "kept": kept, "dockerfiles": list(found.dockerfiles)})
    else:
        _print(directory, found, written, kept)


def survey_of_nothing(root: Path) -> Survey:
    """A directory that is yet to be made: only what lies above it counts."""
    above = next(parent for parent in root.parents if parent.is_dir())
    return Survey(models=(), dockerfiles=(), git=survey(above).git)


def _texts(obj: dict[str, Any], root: Path, found: Survey, base: str) -> dict[str, str]:
    declared = _yaml_files(root / "layers")
    identifier = Identifier(Station(root, progress_for(obj), os.environ).context)
    models = []
    for path in found.models if not declared else ():
        looked = identifier.look(f"file:{path}")
        models.append(Model(path=path, type=looked.type, architecture=looked.architecture))
    catalog = project.load_catalog()
    plan = Plan(name=recipe_name(root), base=base, models=models, taken=catalog, git=found.git, compiles=_compiles())
    return {**plan.texts(), **schemas()}


def _compiles() -> bool:
    try:
        find(PYTHON)
    except InterpreterMissing:
        return False
    return True


def _write(root: Path, texts: dict[str, str]) -> tuple[list[str], list[str]]:
    """Writes what is not there yet. Neither a recipe nor a file of layers is added to others: these say what is
    meant."""
    written: list[str] = []
    kept: list[str] = []
    for name, text in texts.items():
        folder = name.partition("/")[0]
        there = [f"{folder}/{other}" for other in _yaml_files(root / folder)] if folder in ("recipes", "layers") else []
        there = there or ([name] if os.path.lexists(root / name) else [])
        kept += there
        if not there:
            files.write(root / name, text, new=True)
            written.append(name)
    return written, kept


def _yaml_files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("*.y*ml"))


def _print(directory: Path, found: Survey, written: list[str], kept: list[str]) -> None:
    for name in written:
        click.echo(f"wrote {name}")
    for name in kept:
        click.echo(f"kept {name}, which was there")
    if found.models and "layers/models.yaml" in written:
        more = f" (and {found.unlisted} more, which are not in it)" if found.unlisted else ""
        click.echo(f"found {len(found.models)} model files: see layers/models.yaml{more}")
    elif found.models:
        count = len(found.models) + found.unlisted
        click.echo(f"found {count} model files: layerbuild add PATH declares what is new")
    if ".gitignore" in kept:
        click.echo("see that .gitignore has the models: *.safetensors *.ckpt, and /out/")
    change = "" if directory == Path() else f"cd {shlex.quote(str(directory))} && "
    for name in found.dockerfiles[:3]:
        click.echo(f"found {name}: {change}layerbuild import {shlex.quote(name)} writes the recipe that replaces it")
    click.echo(f"next: {change}layerbuild lock")
