"""`layerbuild why`."""

from __future__ import annotations

from typing import Any

import click

from layerbuild.cli import options
from layerbuild.cli.display import print_json, size
from layerbuild.cli.reading import Reader
from layerbuild.cli.tables import listed, print_field
from layerbuild.inventory import stored
from layerbuild.lockmodel import Lock
from layerbuild.provenance import Place
from layerbuild.why import Answer, Index

_MOST = 8
"""Names in one line, and paths below one another; of a field, twice as many lines."""


@click.command("why")
@click.argument("thing", metavar="DIGEST|NAME|PATH")
@options.as_json
@click.pass_obj
def command(obj: dict[str, Any], /, **arguments: Any) -> None:
    """Say where a thing comes from: which declaration, source and pin, which layer, which images and recipes.

    DIGEST is what a registry, a log or the webui shows: of a layer, a diffID, a key, a manifest, the sha256 of a
    file, a commit; its first 6 hex digits do. NAME is that of a declaration, a model, a layer or an image. PATH is
    an absolute path in an image. All is read off the lock: no network is asked.

    \b
    Examples:
      layerbuild why photo                               a model, by its name
      layerbuild why 697f0b42e6                          the hash that the webui shows
      layerbuild why /stable-diffusion-webui/cache.json  a path in an image
    """
    reader = Reader(obj)
    lock = reader.lock()
    answers = Index(reader.composed(reader.images), lock).find(arguments["thing"])
    if arguments["json_output"]:
        print_json({"answers": [_as_json(answer, lock) for answer in answers]})
        return
    for i, answer in enumerate(answers):
        if i:
            click.echo()
        _print(answer, lock)


def _as_json(answer: Answer, lock: Lock) -> dict[str, Any]:
    layers = [_layer(place, lock) for place in answer.layers.values()]
    return {
        **{"what": answer.what, "id": answer.id, "declarations": answer.declarations, "sources": answer.sources},
        **{"layers": layers, "images": answer.images},
    }


def _layer(place: Place, lock: Lock) -> dict[str, Any]:
    layer = place.layer
    assert layer is not None
    key = layer.instance.key if layer.instance else None
    receipt = lock.receipts.get(key or "")
    digest, count, encoding = stored(receipt, layer.algorithm)
    return {
        **{"layer": layer.title, "key": key, "diff_id": receipt.diff_id if receipt else None},
        **{"digest": digest, "size": count, "encoding": encoding},
    }


def _print(answer: Answer, lock: Lock) -> None:
    print_field("what", answer.what)
    print_field("id", answer.id)
    print_field("from", _few([f"{d['name']}  {d['file']}:{d['line']}" for d in answer.declarations]))
    print_field("source", _few([line for source in answer.sources for line in _source(source, brief=answer.whole)]))
    print_field("layer", _few(_layers(answer, lock)))
    print_field("image", _few(_images(answer)))


def _source(source: dict[str, Any], *, brief: bool) -> list[str]:
    lines, files = [source["source"]], source["files"]
    if brief:
        return lines
    if source["revision"] is not None and source["ref"] is not None:
        lines.append(f"  by {source['ref']}, at {source['revision']}")
    for file in files:
        lines.append(f"  {file['path']}, {size(file['size'])}")
        if len(files) == 1 and file["sha256"] is not None:
            lines.append(f"sha256:{file['sha256']}")
    return lines


def _layers(answer: Answer, lock: Lock) -> list[str]:
    """Layers, those of one digest together."""
    found: dict[str | None, list[dict[str, Any]]] = {}
    for place in answer.layers.values():
        layer = _layer(place, lock)
        found.setdefault(layer["digest"] or layer["key"], []).append(layer)
    lines = []
    for layers in found.values():
        first = layers[0]
        titles = " = ".join(list(dict.fromkeys(layer["layer"] for layer in layers))[:_MOST])
        lines.append(f"{titles}, {size(first['size'])}" if first["digest"] else f"{titles}, not built yet")
        lines += [first["digest"]] if first["digest"] and not answer.whole else []
    return lines


def _images(answer: Answer) -> list[str]:
    """Images, those together that a recipe makes and that have it at the same paths."""
    found: dict[tuple[str, ...], list[str]] = {}
    for image in answer.images:
        found.setdefault((image["recipe"], *image["paths"]), []).append(image["name"])
    lines = []
    for (recipe, *paths), names in found.items():
        lines.append(f"{listed(names, 'images', _MOST)}  {recipe}")
        lines += [f"  {path}" for path in paths[:_MOST]]
    return lines


def _few(lines: list[str]) -> list[str]:
    more = len(lines) - _MOST * 2
    return [*lines[: _MOST * 2], f"... and {more} more, which --json lists"] if more > 0 else lines
