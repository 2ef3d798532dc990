"""`layerbuild build`."""

from __future__ import annotations

from typing import Any

import click

from layerbuild.cli import options
from layerbuild.cli.display import print_json, print_table, size
from layerbuild.cli.workspace import Workspace
from layerbuild.errors import raise_failed
from layerbuild.execute.build import BuiltImage


@click.command("build")
@options.selection
@options.insecure
@options.frozen
@options.as_json
@click.pass_obj
def command(obj: dict[str, Any], /, **arguments: Any) -> None:
    """Make every layer that has no receipt yet, for all images or those named (globs work).

    Fetches what is needed into the store, hashes each file once, and writes receipts and facts into
    lockfile.yaml. It writes no image: 'layerbuild push' does, to a registry or to oci:DIR.
    """
    workspace = Workspace(obj, insecure=arguments["insecure"])
    selected = options.selected(workspace, arguments)
    builder = workspace.builder(workspace.lock())
    built = builder.run(selected)
    changed = workspace.record(builder, built.images, frozen=arguments["frozen"])
    if arguments["json_output"]:
        failed = [{"name": name, "error": error.message} for name, error in built.failed.items()]
        images = [as_json(image) for image in built.images]
        print_json({"images": images, "failed": failed, "lock_changed": changed})
    elif built.images:
        rows = [[i.composed.name, str(len(i.layers)), size(total(i)), i.digest[:19]] for i in built.images]
        print_table(["IMAGE", "LAYERS", "SIZE", "MANIFEST"], rows, right=frozenset({1, 2}))
    raise_failed(built.failed, len(selected))


def total(image: BuiltImage) -> int:
    """Bytes of the image's blobs, its base's included."""
    below = sum(layer.size for layer in image.base.layers) if image.base else 0
    return below + sum(made.blob.size for _, made in image.layers)


def as_json(image: BuiltImage) -> dict[str, Any]:
    """For programs."""
    layers = [
        {
            "layer": made.title,
            "key": made.key,
            "diff_id": made.diff_id,
            "digest": made.blob.digest,
            "size": made.blob.size,
        }
        for _, made in image.layers
    ]
    return {"name": image.composed.name, "digest": image.digest, "tags": image.tags, "layers": layers}
