"""`layerbuild import`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import click

from layerbuild import project
from layerbuild.adding import files
from layerbuild.adding.identify import Identifier
from layerbuild.audit.findings import printable
from layerbuild.cli import options
from layerbuild.cli.display import print_json, progress_for
from layerbuild.declarations import root_of
from layerbuild.dockerfile.reading import LARGEST, instructions
from layerbuild.dockerfile.stage import Remark
from layerbuild.dockerfile.stages import Reader
from layerbuild.dockerfile.translate import Listing, Translation
from layerbuild.errors import LayerbuildError, UsageError
from layerbuild.execute.station import Station
from layerbuild.newproject import recipe_name, schemas

_MOST_FILES = 200
_SIGNS = {"translated": ("+", "green"), "unnecessary": ("=", None), "left": ("!", "yellow")}


@click.command("import")
@click.argument("dockerfile", metavar="DOCKERFILE", type=click.Path(path_type=Path))
@click.option("-o", "--output", metavar="RECIPE", help="The recipe to write. Default: recipes/NAME.yaml beside it.")
@click.option("--offline", is_flag=True, help="Ask nobody what a model is: its place and --ckpt have to tell.")
@options.as_json
@click.pass_obj
def command(obj: dict[str, Any], dockerfile: Path, *, output: str | None, offline: bool, json_output: bool) -> None:
    """Write the recipe and the layers that replace a DOCKERFILE, and say what became of each line.

    Read are downloads (wget, curl, aria2c, ADD, the Hub's own tool), clones and their commits, copies between stages
    and from the context, ARG, ENV and what the image starts. Nothing of it is run. '+' was translated, '=' is not
    needed any more, '!' is left to you. The Dockerfile stays as it is, and no file is written over.

    \b
    Examples:
      layerbuild import Dockerfile                      recipes/NAME.yaml and layers/NAME.yaml
      layerbuild import Dockerfile -o recipes/sd.yaml   under another name
      layerbuild import worker/Dockerfile --offline     without asking what a model is
    """
    data = _read(dockerfile)
    root, name = _place(dockerfile, output, obj.get("project"))
    reader = Reader()
    for instruction in instructions(data, dockerfile.name):
        reader.read(instruction)
    reader.finish()
    translation = _translation(obj, dockerfile, root, name, reader, offline=offline)
    written = _write(root, name, translation)
    remarks = sorted(translation.remarks, key=lambda remark: remark.line)
    if json_output:
        print_json({"written": written, "lines": [_as_json(remark) for remark in remarks]})
    else:
        _print(str(dockerfile), remarks, written)


def _read(dockerfile: Path) -> bytes:
    try:
        with dockerfile.open("rb") as file:
            return file.read(LARGEST + 1)
    except OSError as error:
        raise UsageError(f"{dockerfile} cannot be read", cause=error.strerror, hint="name a Dockerfile") from None


def _place(dockerfile: Path, output: str | None, named: str | None) -> tuple[Path, str]:
    """The project's directory (the one that is `named`, else that of the Dockerfile), and the recipe's name."""
    if output is not None:
        path = Path(output).absolute()
        if path.parent.name != "recipes" or path.suffix not in (".yaml", ".yml"):
            raise UsageError(f"{output} is no recipe of a project", hint="name it like recipes/NAME.yaml")
        return path.parent.parent, path.stem
    directory = dockerfile.absolute().parent
    if named is not None:
        return root_of(named), recipe_name(directory)
    try:
        root = project.find_root(directory)
    except UsageError:
        root = directory
    return root, recipe_name(directory)


def _translation(
    obj: dict[str, Any], dockerfile: Path, root: Path, name: str, reader: Reader, *, offline: bool
) -> Translation:
    progress = progress_for(obj)
    identifier = Identifier(Station(root, progress, os.environ, offline=offline).context)

    def type_of(source: str) -> str | None:
        if offline and not source.startswith("file:"):
            return None
        try:
            return identifier.look(source).type
        except LayerbuildError as error:
            progress.note(error.brief)
            return None

    catalog = project.load_catalog()
    webuis = {name: str(layer.raw["source"]) for name, layer in catalog.items() if layer.raw.get("kind") == "webui"}
    own = project.load(root).layers if (root / "recipes").is_dir() else {}
    context = dockerfile.absolute().parent
    return Translation(
        stage=reader.last,
        name=name,
        context=os.path.relpath(context, root),
        files=lambda path: _listed(context, path),
        type_of=type_of,
        catalog=webuis,
        taken={*catalog, *own},
        remarks=reader.remarks,
    )


def _listed(context: Path, path: str) -> Sequence[Listing] | None:
    """The files at or below a path of the build context; None where there are none, or too many."""
    top = context / path
    if path.startswith("..") or not top.exists():
        return None
    found = [top] if top.is_file() else list(islice(_below(top, context), _MOST_FILES + 1))
    if len(found) > _MOST_FILES:
        return None
    return [Listing(path=p.relative_to(context).as_posix(), executable=os.access(p, os.X_OK)) for p in sorted(found)]


def _below(top: Path, context: Path) -> Iterator[Path]:
    """Files below a directory; hidden ones, links, and what belongs to layerbuild or to docker are left out."""
    for directory, folders, names in os.walk(top):
        own = _OWN if Path(directory) == context else frozenset[str]()
        folders[:] = [name for name in folders if not name.startswith(".") and name not in own]
        for path in (Path(directory, name) for name in names if not name.startswith(".") and name not in own):
            if path.is_file() and not path.is_symlink():
                yield path


_OWN = frozenset(("recipes", "layers", project.LOCKFILE, "Dockerfile", "Containerfile"))


def _write(root: Path, name: str, translation: Translation) -> list[str]:
    texts = {f"recipes/{name}.yaml": translation.recipe_text()}
    if translation.layers:
        texts = {f"layers/{name}.yaml": translation.layers_text(), **texts}
    there = [shown for shown in texts if os.path.lexists(root / shown)]
    if there:
        hint = "move it away, or name another recipe: -o recipes/NAME.yaml"
        raise UsageError(f"{' and '.join(there)} is there already", hint=hint)
    texts |= {shown: text for shown, text in schemas().items() if not os.path.lexists(root / shown)}
    for shown, text in texts.items():
        files.write(root / shown, text, new=True)
    return [*texts]


def _as_json(remark: Remark) -> dict[str, Any]:
    return {"line": remark.line, "command": remark.what, "verdict": remark.verdict, "text": remark.text}


def _print(dockerfile: str, remarks: Sequence[Remark], written: Sequence[str]) -> None:
    for remark in remarks:
        sign, colour = _SIGNS[remark.verdict]
        what = f"{remark.what}: " if remark.what else ""
        said = printable(f"{dockerfile}:{remark.line}: {what}{remark.text}")
        click.echo(f"{click.style(sign, fg=colour)} {said}")
    left = sum(remark.verdict == "left" for remark in remarks)
    for name in written:
        click.echo(f"wrote {name}")
    if left:
        click.echo(f"{left} lines are left to you: see '!' above")
    click.echo("next: layerbuild lock")
