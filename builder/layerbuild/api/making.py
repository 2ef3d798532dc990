"""`build` and `push`: layers are made, and sent where they are missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from layerbuild.api.machines import team_at
from layerbuild.api.options import MakeOptions
from layerbuild.errors import LayerbuildError, UsageError, raise_failed
from layerbuild.execute.adopt import Adopted, Adopter
from layerbuild.execute.build import Builder, BuiltImage, distinct
from layerbuild.execute.direct import Direct
from layerbuild.execute.preflight import Foresight, Preflight
from layerbuild.execute.push import Pusher
from layerbuild.execute.rebuild import Rebuilder, RemadeLayer
from layerbuild.execute.releases import Release, releases
from layerbuild.execute.report import Report
from layerbuild.images import ImageDeclaration
from layerbuild.selection import refuse_parts
from layerbuild.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class BuildOutcome:
    """What `build` made.

    Attributes:
        failed: what went wrong, by image.
        adopted: what was taken over from other images; None where none was named.
        lock_changed: whether a byte of the lock is another.
    """

    images: tuple[BuiltImage, ...]
    failed: Mapping[str, LayerbuildError]
    adopted: Adopted | None
    lock_changed: bool

    @property
    def releases(self) -> tuple[Release, ...]:
        """The images, those of several platforms under one name."""
        return tuple(releases(self.images))

    def refuse(self) -> None:
        """Raise if an image could not be built.

        Raises:
            LayerbuildError: what went wrong.
        """
        raise_failed(self.failed, len(self.images) + len(self.failed))

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        indexes = [_index(release) for release in self.releases if release.index is not None]
        return {
            "images": [_image(image) for image in self.images],
            "failed": [{"name": name, "error": error.message} for name, error in self.failed.items()],
            "lock_changed": self.lock_changed,
            **({"indexes": indexes} if indexes else {}),
            **({"cache": self.adopted.as_json()} if self.adopted else {}),
        }


@dataclass(frozen=True, kw_only=True)
class PushOutcome:
    """What `push` did.

    Attributes:
        wanted: how many images were to be pushed.
        adopted: see `BuildOutcome`.
    """

    report: Report
    wanted: int
    adopted: Adopted | None

    def refuse(self) -> None:
        """Raise if an image could not be pushed.

        Raises:
            LayerbuildError: what went wrong.
        """
        raise_failed(self.report.failed, self.wanted)

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {**self.report.as_json(), **({"cache": self.adopted.as_json()} if self.adopted else {})}


def build(workspace: Workspace, selected: Sequence[ImageDeclaration], options: MakeOptions) -> BuildOutcome:
    """Make every layer that has no receipt, and record what was made.

    Raises:
        LayerbuildError: nothing could be begun. What one image fails of is in the outcome.
    """
    builder = workspace.builder(workspace.lock())
    with team_at(options.executor, workspace, builder) as builder.team:
        adopted = _adopt(workspace, builder, selected, options)
        built = builder.run(selected)
    changed = workspace.record(builder, built.images, frozen=options.frozen, receipts_out=options.receipts_out)
    return BuildOutcome(images=built.images, failed=built.failed, adopted=adopted, lock_changed=changed)


def remake(workspace: Workspace, selected: Sequence[ImageDeclaration]) -> tuple[RemadeLayer, ...]:
    """Make every layer again and compare it with its receipts. Nothing is recorded.

    Raises:
        LayerbuildError: nothing could be begun; see `rebuild.refuse` for layers that differ.
    """
    builder = workspace.builder(workspace.lock())
    wanted = distinct(builder.learnt(selected))
    return Rebuilder(packer=builder.packer, lock=builder.lock).run(list(wanted.values()))


def push(
    workspace: Workspace,
    destination: str,
    selected: Sequence[ImageDeclaration],
    options: MakeOptions,
    *,
    store: bool = True,
    must_mount: bool = False,
) -> PushOutcome:
    """Send images where they are missing, and make what was never made.

    Args:
        store: keep models that are fetched in the store.
        must_mount: fail where a registry does not mount what it has.

    Raises:
        LayerbuildError: nothing could be begun. What one image fails of is in the outcome's report.
    """
    place = workspace.destination(destination)
    refuse_parts(selected)
    builder = workspace.builder(workspace.lock(), keep=store)
    direct = Direct(place, workspace.store, workspace.progress)
    builder.outlet_for = direct.outlet
    preflight = Preflight(destination=place, repositories=builder.repositories)
    builder.refused_for = Foresight(builder=builder, preflight=preflight, note=workspace.progress.note)
    with team_at(options.executor, workspace, builder, destination=destination, direct=direct) as builder.team:
        adopted = _adopt(workspace, builder, selected, options)
        built = builder.run(selected)
        workspace.record(builder, built.images, frozen=options.frozen, receipts_out=options.receipts_out)
        pusher = Pusher(
            destination=place,
            packer=builder.packer,
            store=workspace.store,
            lock=builder.lock,
            progress=workspace.progress,
            open_base=workspace.open_base,
            repositories=builder.repositories,
            sent=direct.sent,
            team=builder.team,
            must_mount=must_mount,
        )
        return PushOutcome(report=pusher.run(built), wanted=len(selected), adopted=adopted)


def _adopt(
    workspace: Workspace, builder: Builder, selected: Sequence[ImageDeclaration], options: MakeOptions
) -> Adopted | None:
    """Layers of other images are taken over before anything is built.

    Raises:
        UsageError: there is nobody to trust.
        DriftError: the lock does not stand for the declarations.
        LayerbuildError: an image that is named cannot be read; see `Adopter.adopt`.
    """
    if not options.cache_from:
        if options.trust_receipts:
            raise UsageError("--trust-receipts says whom to believe, and nobody is named", hint="add --cache-from REF")
        return None
    adopter = Adopter(
        open_image=workspace.open_image,
        packer=builder.packer,
        progress=workspace.progress,
        trust=options.trust_receipts,
    )
    return adopter.adopt(options.cache_from, list(distinct(builder.compose(selected)).values()))


def _image(image: BuiltImage) -> dict[str, Any]:
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


def _index(release: Release) -> dict[str, Any]:
    images = [image.composed.name for image in release.images]
    return {"name": release.name, "digest": release.digest, "tags": release.tags, "images": images}
