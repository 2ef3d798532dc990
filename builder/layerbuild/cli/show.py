"""`layerbuild show`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from layerbuild.cli import options
from layerbuild.cli.display import print_json, size
from layerbuild.cli.reading import Reader, read_elsewhere
from layerbuild.cli.tables import Row, listed, print_field, print_rows
from layerbuild.errors import UsageError
from layerbuild.inventory import BASE, ImageItem, LayerItem
from layerbuild.selection import lies_elsewhere


@click.command("show")
@click.argument("image", metavar="IMAGE|REF")
@click.option("--platform", metavar="OS/ARCH", help="Only this platform of a REF that is an index. Default: all.")
@click.option("--deep", is_flag=True, help="Of a REF, also read large compressed layers: models may lie there.")
@options.insecure
@options.as_json
@click.pass_obj
def command(obj: dict[str, Any], /, **arguments: Any) -> None:
    """Show an image: its models, its layers, who shares them, and what it costs to pull.

    IMAGE is an image of the project. It is read off the lock: nothing is asked of any network. REF is an image
    anywhere, made by layerbuild or not: HOST/REPOSITORY:TAG, HOST/REPOSITORY@sha256:... or oci:DIR:NAME:TAG. Of its
    layers, headers of plain ones and small ones of layerbuild's are read; what it says of itself is a claim.

    \b
    Examples:
      layerbuild show gallery                            as the lock has it
      layerbuild show oci:images:gallery:demo            as it was pushed
      layerbuild show oci:images:gallery:demo --json     for programs
    """
    name, platform = arguments["image"], arguments["platform"]
    if lies_elsewhere(name):
        found = list(
            read_elsewhere(obj, name, platform=platform, insecure=arguments["insecure"], deep=arguments["deep"])
        )
    elif platform or arguments["deep"]:
        raise UsageError(
            "--platform and --deep are for images that lie elsewhere",
            hint="leave them out; NAME@OS/ARCH is one of several platforms of an image",
        )
    else:
        reader = Reader(obj)
        found = reader.items(reader.select([name]))
    if arguments["json_output"]:
        print_json({"images": [image.as_json() for image in found]})
        return
    for i, image in enumerate(found):
        if i:
            click.echo()
        print_image(image)


def print_image(image: ImageItem) -> None:
    """An image for people."""
    print_field("image", f"{image.name} ({image.platform})")
    if image.repository:
        tags = image.tags or ([short(image.manifest)] if image.manifest else [])
        print_field("tags", [f"{image.repository}:{tag}" for tag in tags])
    print_field("manifest", image.manifest or "not built yet")
    print_field("base", [part for part in image.base if part] if image.base else ["scratch"] * bool(image.file))
    print_field("recipe", [image.file] if image.file else [])
    print_field("pull", _pull(image))
    click.echo()
    _print_models(image)
    _print_layers(image)
    for note in _notes(image):
        print_field("note", note)


def _pull(image: ImageItem) -> str:
    own = image.own_layers
    shared = [layer for layer in own if layer.shared]
    words = [f"{size(image.pull.size)} in {len(image.layers)} layers"]
    if shared:
        words.append(f"{size(sum(layer.size or 0 for layer in shared))} of it shared with other images of the project")
    if image.pull.unknown:
        count = image.pull.unknown
        words.append(f"{'1 layer has' if count == 1 else f'{count} layers have'} no size before the build")
    return "; ".join(words)


def _notes(image: ImageItem) -> list[str]:
    found = []
    if not image.complete:
        found.append(
            "the base's layers are not counted: this machine has not seen its manifest; 'layerbuild build' gets it"
        )
    if image.unread:
        found.append(f"{size(image.unread)} of compressed layers were not looked into for models; --deep reads them")
    return found


def _print_models(image: ImageItem) -> None:
    if not image.models:
        click.echo("no models\n")
        return
    rows = [
        Row(cells=[m.name, m.type, m.architecture or "-", size(m.size), m.licence or "-", m.source or "-"])
        for m in image.models
    ]
    headers = ["MODEL", "TYPE", "ARCH", "SIZE", "LICENCE", "SOURCE"]
    empty = {i for i in (2, 4, 5) if all(row.cells[i] == "-" for row in rows)}
    kept = [i for i in range(len(headers)) if i not in empty]
    print_rows(
        [headers[i] for i in kept],
        [Row(cells=[row.cells[i] for i in kept]) for row in rows],
        right=frozenset(i for i, column in enumerate(kept) if headers[column] == "SIZE"),
        yielding=[i for i, column in enumerate(kept) if headers[column] in ("MODEL", "ARCH", "LICENCE", "SOURCE")],
    )
    click.echo()


def _print_layers(image: ImageItem) -> None:
    own = image.own_layers
    base = [layer for layer in image.layers if layer.kind == BASE]
    rows = [_layer_row(layer) for layer in own]
    if base:
        total = size(sum(layer.size or 0 for layer in base))
        encodings = ", ".join(dict.fromkeys(layer.encoding.partition(":")[0] for layer in base))
        rows.insert(
            0, Row(cells=[f"{len(base)} layer{'' if len(base) == 1 else 's'} of the base", total, encodings, "-", "-"])
        )
    headers = ["LAYER", "SIZE", "ENCODING", "DIGEST"]
    if any(layer.shared for layer in own):
        headers.append("ALSO IN")
    cells = [Row(cells=row.cells[: len(headers)], colour=row.colour) for row in rows]
    print_rows(headers, cells, right=frozenset({1}), yielding=(0, 4) if len(headers) == 5 else (0,))


def _layer_row(layer: LayerItem) -> Row:
    digest = short(layer.digest) if layer.digest else "not built"
    shared = sharers(layer.shared)
    return Row(
        cells=[layer.title, size(layer.size), layer.encoding.partition(":")[0], digest, shared],
        colour="green" if layer.shared else None,
    )


def short(digest: str) -> str:
    """The first 12 hex digits."""
    return digest.partition(":")[2][:12]


def sharers(names: Sequence[str]) -> str:
    """Images that share a layer."""
    return listed(names, "images") or "-"
