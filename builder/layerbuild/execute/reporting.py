"""Gathers what a report needs to know: receipts, bases, audits. Unless it may, it asks no network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from layerbuild.audit.findings import Report as Audit
from layerbuild.compose import ComposedImage
from layerbuild.errors import LayerbuildError
from layerbuild.execute.auditing import Auditor
from layerbuild.execute.build import Builder, distinct
from layerbuild.image import BaseImage
from layerbuild.layering import ComposedLayer
from layerbuild.lockmodel import LockedBase
from layerbuild.locktext import dump
from layerbuild.model import sha256_hex
from layerbuild.progress import Progress
from layerbuild.report.describe import describe
from layerbuild.report.values import NotAudited, Report, Stored


@dataclass(frozen=True, kw_only=True)
class Reporter:
    """Makes the report of composed images.

    Attributes:
        base_at_hand: gives a base without asking anybody; None where it is not known on this machine.
        online: whether registries may be asked for bases and their layers.
        audits: whether the images' cold starts are looked at.
    """

    builder: Builder
    auditor: Auditor
    base_at_hand: Callable[[LockedBase], BaseImage | None]
    progress: Progress
    online: bool
    audits: bool

    def run(self, images: Sequence[ComposedImage], project: str) -> Report:
        """The report of `images`.

        Raises:
            NotReproducible: the lock and the store contradict each other.
        """
        bases = {image.base.digest: image.base for image in images if image.base}
        return describe(
            images,
            project=project,
            lock=self.builder.lock,
            lock_digest=f"sha256:{sha256_hex(dump(self.builder.lock).encode())}",
            stored={identity: self._stored(layer) for identity, layer in distinct(images).items()},
            bases={digest: self._base(base) for digest, base in bases.items()},
            audit=self._audit,
        )

    def _stored(self, layer: ComposedLayer) -> Stored:
        """By receipt; of what is stored as it is, the size also follows from the sizes of its files."""
        packer = self.builder.packer
        made = packer.known(layer)
        if made is not None:
            return Stored(digest=made.blob.digest, diff_id=made.diff_id, size=made.blob.size)
        assert layer.instance is not None
        receipt = packer.receipt(layer.instance.key)
        if receipt is not None:
            return Stored(diff_id=receipt.diff_id)
        if layer.algorithm != "none":
            return Stored()
        try:
            return Stored(size=packer.tar(layer.instance).size)
        except LayerbuildError:
            return Stored()

    def _base(self, base: LockedBase) -> BaseImage | None:
        if not self.online:
            return self.base_at_hand(base)
        try:
            return self.builder.fetch_base(base)
        except LayerbuildError as error:
            self.progress.note(error.brief)
            return None

    def _audit(self, image: ComposedImage) -> Audit | NotAudited:
        if not self.audits:
            return NotAudited(reason="audits were left out")
        base = image.base.reference if image.base else None
        if base is not None and not self.online and self.auditor.open_base(base).host is not None:
            hint = f"run 'layerbuild report --online --html FILE', or 'layerbuild audit {image.name}'"
            return NotAudited(reason=f"the layers of its base {base} would have to be read over the network", hint=hint)
        try:
            with self.progress.task(f"audit {image.name}"):
                return self.auditor.run(image)
        except LayerbuildError as error:
            return NotAudited(reason=error.brief, hint=error.hint)
