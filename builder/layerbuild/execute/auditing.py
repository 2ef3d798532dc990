"""Audits images of the project as their lock would make them. Nothing is built, and no weights are fetched."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from layerbuild import kinds
from layerbuild.audit import checks
from layerbuild.audit.blobs import Blobs
from layerbuild.audit.findings import Report, printable
from layerbuild.audit.parts import BlobPart, DescribedPart, Layer, Part
from layerbuild.audit.runtime import read_runtime
from layerbuild.audit.view import ImageView, put_together
from layerbuild.baseimage import BaseSource
from layerbuild.compose import ComposedImage, environment, programs
from layerbuild.errors import LockError
from layerbuild.execute.build import Builder
from layerbuild.execute.foreseen import Foreseen
from layerbuild.image import config_json
from layerbuild.progress import Progress

if TYPE_CHECKING:
    from layerbuild.registry.client import RegistryClient


@dataclass(frozen=True, kw_only=True)
class Auditor:
    """Audits composed images.

    Attributes:
        open_base: gives the source of a base, whose layers are read.
        client_for: gives the client of a registry that they may be in.
    """

    builder: Builder
    open_base: Callable[[str], BaseSource]
    client_for: Callable[[str], RegistryClient]
    progress: Progress

    def run(self, image: ComposedImage) -> Report:
        """What a start of `image` would still do.

        Raises:
            LockError: facts are pending, so that nobody knows its hash cache yet.
            LayerbuildError: its base cannot be read, or nobody knows here what a layer will hold.
        """
        if image.pending:
            raise LockError(
                f"the hash cache of {image.name} waits for facts of {len(image.pending)} models",
                cause="what the webui would compute is not known before they were read once",
                hint=f"run 'layerbuild build {image.name}', then audit again",
            )
        base = self.builder.fetch_base(image.base) if image.base else None
        parts: list[Part] = []
        blobs = None
        if image.base is not None and base is not None:
            blobs = Blobs(self.open_base(image.base.reference), self.client_for)
            parts += [BlobPart(blobs, descriptor) for descriptor in base.layers]
        parts += self._described(image)
        recipe = image.declaration.recipe
        config = json.loads(config_json(recipe, environment(image), base, [], programs(image)))
        locked = self.builder.lock.images.get(image.name)
        view = put_together(
            reference=image.title,
            digest=(locked.manifest if locked else None) or "",
            runtime=read_runtime(config, image.name),
            parts=parts,
            progress=self.progress,
            version=image.declaration.target.version,
        )
        return audited(view, blobs)

    def _described(self, image: ComposedImage) -> Iterator[Part]:
        foreseen = Foreseen(self.builder.contents)
        for layer in image.layers:
            assert layer.instance is not None
            entries = kinds.describe(layer.instance, foreseen)
            made = self.builder.packer.known(layer)
            packed = made.blob.size if made else sum(e.content.size or 0 for e in entries if e.content)
            shape = Layer(size=packed, compression=layer.algorithm)
            yield DescribedPart(entries, layer=shape, read_content=foreseen.read)


def audited(view: ImageView, blobs: Blobs | None) -> Report:
    """What the checks find in an image.

    Args:
        blobs: where its layers were read; None where nothing was.
    """
    return Report(
        reference=view.reference,
        platform=printable(view.runtime.platform),
        digest=view.digest,
        webui=printable(view.webui.title) if view.webui else None,
        models=len(view.models),
        findings=tuple(checks.run(view)),
        bytes_read=blobs.bytes_read if blobs else 0,
    )
