"""`layerbuild build`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from layerbuild.cli import options
from layerbuild.cli.adoption import adopt, print_adopted
from layerbuild.cli.display import closing, print_json, print_table, size
from layerbuild.cli.machines import team_at
from layerbuild.cli.workspace import Workspace
from layerbuild.errors import UsageError, raise_failed
from layerbuild.execute.build import Builder, BuiltImage, distinct
from layerbuild.execute.rebuild import Rebuilder, refuse
from layerbuild.execute.releases import Release, releases
from layerbuild.images import ImageDeclaration


@click.command("build")
@options.selection
@click.option("--check", "check_only", is_flag=True, help="Make every layer again, and compare it with its receipts.")
@options.cache_from
@options.executor
@options.insecure
@options.frozen
@options.receipts_out
@options.as_json
@click.pass_obj
def command(obj: dict[str, Any], /, **arguments: Any) -> None:
    """Make every layer that has no receipt yet, for all images or those named (globs work).

    Fetches what is needed into the store, hashes each file once, and writes receipts and facts into
    lockfile.yaml. It writes no image: 'layerbuild push' does, to a registry or to oci:DIR.

    With --check no receipt is believed: every layer is made again from its contents and compared with what
    the lock and the store say of it. Nothing is recorded; exit code 1 if any differs.

    \b
    Examples:
      layerbuild build
      layerbuild build --cache-from ghcr.io/acme/a1111-sd15:latest
      layerbuild build --executor tcp://dask:8786
      layerbuild build --check 'a1111-*'
    """
    if arguments["check_only"] and (arguments["cache_from"] or arguments["trust_receipts"]):
        raise UsageError("--check believes nobody, and takes nothing over", hint="leave --check or --cache-from out")
    if arguments["check_only"] and arguments["executor"]:
        raise UsageError("--check believes nobody, also no other machine", hint="leave --check or --executor out")
    workspace = Workspace(obj, insecure=arguments["insecure"])
    selected = options.selected(workspace, arguments)
    builder = workspace.builder(workspace.lock())
    if arguments["check_only"]:
        _check(builder, selected, json_output=arguments["json_output"])
        return
    builder.team = team_at(arguments["executor"], workspace, builder)
    adopted = adopt(workspace, builder, selected, arguments)
    built = builder.run(selected)
    changed = workspace.record(
        builder, built.images, frozen=arguments["frozen"], receipts_out=arguments["receipts_out"]
    )
    if arguments["json_output"]:
        failed = [{"name": name, "error": error.message} for name, error in built.failed.items()]
        images = [as_json(image) for image in built.images]
        indexes = [index_json(release) for release in releases(built.images) if release.index is not None]
        more = {**({"indexes": indexes} if indexes else {}), **({"cache": adopted.as_json()} if adopted else {})}
        print_json({"images": images, "failed": failed, "lock_changed": changed, **more})
    elif built.images:
        rows = [[i.composed.name, str(len(i.layers)), size(total(i)), i.digest[:19]] for i in built.images]
        rows += [[r.name, "", "", r.digest[:19]] for r in releases(built.images) if r.index is not None]
        print_table(["IMAGE", "LAYERS", "SIZE", "MANIFEST"], rows, right=frozenset({1, 2}))
    if not arguments["json_output"]:
        if adopted:
            print_adopted(adopted)
        if built.images:
            tally = workspace.progress.tally
            known = {"were known already": tally["known"]}
            click.echo(closing(tally, moved=f"fetched {size(tally['fetched'])}", spared=known))
    raise_failed(built.failed, len(selected))


def _check(builder: Builder, selected: Sequence[ImageDeclaration], *, json_output: bool) -> None:
    wanted = distinct(builder.learnt(selected))
    layers = Rebuilder(packer=builder.packer, lock=builder.lock).run(list(wanted.values()))
    if json_output:
        print_json({"layers": [layer.as_json() for layer in layers]})
    else:
        rows = [[layer.title, size(layer.made.size if layer.made else None), layer.status] for layer in layers]
        print_table(["LAYER", "SIZE", "RECEIPT"], rows, right=frozenset({1}))
    refuse(layers)


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
    name, index = image.composed.name, image.composed.declaration.index
    tags = {"tags": Release(images=(image,), index=None).tags} if index is None else {"platform": image.platform}
    return {"name": name, "digest": image.digest, **tags, "layers": layers}


def index_json(release: Release) -> dict[str, Any]:
    """For programs."""
    images = [image.composed.name for image in release.images]
    return {"name": release.name, "digest": release.digest, "tags": release.tags, "images": images}
