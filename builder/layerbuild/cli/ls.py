"""`layerbuild ls`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from layerbuild.cli import options
from layerbuild.cli.display import print_json, size
from layerbuild.cli.reading import Reader
from layerbuild.cli.show import sharers, short
from layerbuild.cli.tables import Row, print_rows
from layerbuild.inventory import BASE, ImageItem
from layerbuild.listing import LayerLine, ModelLine, RecipeLine, layer_lines, model_lines, recipe_lines

_KINDS = ("images", "layers", "models", "recipes")

_List = tuple[list[Any], Callable[[], None]]
"""The result for programs, and what shows it to people."""


@click.command("ls")
@click.argument(
    "what", metavar="[WHAT]", type=click.Choice(["images", "layers", "models", "recipes"]), default="images"
)
@options.selection
@options.as_json
@click.pass_obj
def command(obj: dict[str, Any], /, **arguments: Any) -> None:
    """List the project's images, layers, models or recipes, as the lock has them; no network is asked.

    WHAT is images (the default), layers, models or recipes. What several images have is listed once. Names and
    options choose the images that it is about.

    \b
    Examples:
      layerbuild ls                      every image, and what it costs to pull
      layerbuild ls models               every model, and how many images have it
      layerbuild ls layers 'gal*'        the layers of some images
      layerbuild ls recipes --json       for programs
    """
    reader = Reader(obj)
    images = reader.items(options.selected(reader, arguments))
    value, show = _LISTS[arguments["what"]](images)
    if arguments["json_output"]:
        print_json({arguments["what"]: value})
    else:
        show()


def _images(images: Sequence[ImageItem]) -> _List:
    def line(image: ImageItem) -> Row:
        base = image.base[0] if image.base else "scratch"
        manifest = short(image.manifest) if image.manifest else "not built"
        cells = [image.name, str(len(image.own_layers)), str(len(image.models)), _about(image), manifest, base]
        return Row(cells=cells)

    def show() -> None:
        headers = ["IMAGE", "LAYERS", "MODELS", "PULL", "MANIFEST", "BASE"]
        print_rows(headers, map(line, images), right=frozenset({1, 2, 3}), yielding=(0, 5))

    return [_brief(image) for image in images], show


def _about(image: ImageItem) -> str:
    """Bytes to pull; at least so many where something is not known."""
    return f"{size(image.pull.size)}{'' if image.complete and not image.pull.unknown else '+'}"


def _brief(image: ImageItem) -> Mapping[str, Any]:
    return {**image.brief(), "models": len(image.models), "layers": len(image.own_layers)}


def _layers(images: Sequence[ImageItem]) -> _List:
    lines = layer_lines(images)

    def line(found: LayerLine) -> Row:
        layer = found.layer
        digest = short(layer.digest) if layer.digest else "not built"
        cells = [layer.title, size(layer.size), layer.encoding.partition(":")[0], digest, sharers(found.images)]
        return Row(cells=cells, colour="green" if len(found.images) > 1 else None)

    def show() -> None:
        headers = ["LAYER", "SIZE", "ENCODING", "DIGEST", "IN"]
        own = [found for found in lines if found.layer.kind != BASE]
        print_rows(headers, map(line, own), right=frozenset({1}), yielding=(0, 4))
        bases = [found.layer for found in lines if found.layer.kind == BASE]
        if bases:
            click.echo(f"and {len(bases)} layers of bases, {size(sum(layer.size or 0 for layer in bases))}")

    return [found.as_json() for found in lines], show


def _models(images: Sequence[ImageItem]) -> _List:
    lines = model_lines(images)

    def line(found: ModelLine) -> Row:
        model = found.model
        sha256 = (model.sha256 or "")[:10] or "-"
        cells = [model.name, model.type, model.architecture or "-", size(model.size), sha256, sharers(found.images)]
        return Row(cells=cells)

    def show() -> None:
        headers = ["MODEL", "TYPE", "ARCH", "SIZE", "SHA256", "IN"]
        print_rows(headers, map(line, lines), right=frozenset({3}), yielding=(0, 2, 5))

    return [found.as_json() for found in lines], show


def _recipes(images: Sequence[ImageItem]) -> _List:
    lines = recipe_lines(images)

    def line(found: RecipeLine) -> Row:
        return Row(cells=[found.file, str(len(found.images)), size(found.size), sharers(found.images)])

    def show() -> None:
        print_rows(["RECIPE", "IMAGES", "STORED", "NAMES"], map(line, lines), right=frozenset({1, 2}), yielding=(0, 3))

    return [found.as_json() for found in lines], show


_LISTS = {"images": _images, "layers": _layers, "models": _models, "recipes": _recipes}
