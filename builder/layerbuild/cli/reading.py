"""What `show`, `ls`, `why` and `diff` have in common: images of the project, or elsewhere, as values."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from layerbuild.compose import ComposedImage
from layerbuild.declarations import Declarations, root_of
from layerbuild.images import ImageDeclaration
from layerbuild.inventory import ImageItem, Sharing, inventory_of
from layerbuild.locked import checked
from layerbuild.lockmodel import LockedBase

if TYPE_CHECKING:
    from layerbuild.image import BaseImage
    from layerbuild.workspace import Workspace


class Reader(Declarations):
    """Reads images off a project's lock. The network is not asked; of bases, only what the store has is known."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(root_of(options.get("project") or "."), os.environ)
        self._options = options

    @cached_property
    def _workspace(self) -> Workspace:
        # Only images with a base need the store, and all that is imported for it.
        from layerbuild.cli.workspace import open_project  # noqa: PLC0415

        return open_project(self._options).workspace

    @cached_property
    def _bases(self) -> dict[str, BaseImage | None]:
        return {}

    def _base(self, base: LockedBase) -> BaseImage | None:
        if base.digest not in self._bases:
            self._bases[base.digest] = self._workspace.base_at_hand(base)
        return self._bases[base.digest]

    def composed(self, selected: Sequence[ImageDeclaration]) -> tuple[ComposedImage, ...]:
        """The images, if the lock stands for them. See `locked.checked`."""
        return checked(self.images, selected, self.lock())

    def items(self, selected: Sequence[ImageDeclaration]) -> list[ImageItem]:
        """The images as values."""
        lock = self.lock()
        sharing = Sharing(self.images, lock)
        return [inventory_of(image, lock, sharing, self._base) for image in checked(self.images, selected, lock)]


def read_elsewhere(
    options: Mapping[str, Any],
    reference: str,
    *,
    platform: str | None = None,
    insecure: Sequence[str] = (),
    deep: bool = False,
) -> Iterator[ImageItem]:
    """The image that a reference names, for each of its platforms, or for one.

    Raises:
        LayerbuildError: it cannot be read.
    """
    from layerbuild.api.elsewhere import found_at  # noqa: PLC0415  # images of a project need none of it
    from layerbuild.audit.inventory import read_image  # noqa: PLC0415
    from layerbuild.cli.display import progress_for  # noqa: PLC0415

    found = found_at(reference, platform=platform, insecure=insecure, environ=os.environ)
    progress = progress_for(options)
    for digest in found.digests:
        yield read_image(found.source, digest, client_for=found.clients, progress=progress, deep=deep)
