"""Sends images: each blob once, then configs and manifests, tags last.

A tag never points at a manifest whose blobs are not all there. Interrupted at any moment, what
arrived stays and the next run continues with the rest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from layerbuild.baseimage import BaseSource
from layerbuild.destinations import Destination
from layerbuild.errors import ContentMismatch
from layerbuild.execute import survey
from layerbuild.execute.build import BuiltImage
from layerbuild.execute.contents import in_threads
from layerbuild.execute.pack import LayerTar, Packer, StoredBlob
from layerbuild.image import MANIFEST
from layerbuild.lockmodel import Lock
from layerbuild.model import Readable
from layerbuild.plan import Transfer, Want, transfers
from layerbuild.progress import Progress
from layerbuild.store import Store


@dataclass(frozen=True, kw_only=True)
class Bytes:
    """A small blob that was made here (`model.Readable`)."""

    data: bytes

    @property
    def digest(self) -> str:
        """`sha256:<hex>`."""
        return f"sha256:{hashlib.sha256(self.data).hexdigest()}"

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.data)

    def open(self, offset: int = 0) -> Iterator[bytes]:
        """The bytes from `offset` on."""
        if self.data[offset:]:
            yield self.data[offset:]


@dataclass(frozen=True, kw_only=True)
class PushedImage:
    """An image where it is now."""

    name: str
    digest: str
    references: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a push did. Bytes are those of blobs: uploaded were sent, mounted and present were not.

    A blob counts once, however many images have it, as in a plan; twice only where it had to be sent twice.
    """

    images: tuple[PushedImage, ...]
    uploaded: int
    mounted: int
    present: int

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "images": [
                {"name": image.name, "digest": image.digest, "references": list(image.references)}
                for image in self.images
            ],
            "uploaded_bytes": self.uploaded,
            "mounted_bytes": self.mounted,
            "present_bytes": self.present,
        }


@dataclass(kw_only=True)
class Pusher:
    """Pushes built images to one destination."""

    destination: Destination
    packer: Packer
    store: Store
    lock: Lock
    progress: Progress
    open_base: Callable[[str], BaseSource]
    _uploaded: list[int] = field(default_factory=list)
    _mounted: list[int] = field(default_factory=list)

    def run(self, images: Sequence[BuiltImage]) -> Report:
        """Send what the destination lacks.

        Raises:
            DestinationError: it cannot be put there.
            ContentMismatch: a file changed since its layer was made; its layer is not stored.
        """
        blobs = _Blobs(self.packer, self.open_base)
        for image in images:
            blobs.add(image)
        wants = blobs.wants()
        present = survey.present(wants, self.destination)
        elsewhere = survey.elsewhere(wants, self.destination, self.store, blobs.base_origins, self.lock, present)
        todo = transfers(wants, present, elsewhere)
        moving = [transfer for transfer in todo if transfer.action != "present"]
        in_threads(lambda transfer: self._transfer(transfer, blobs), moving)
        in_threads(self._manifest, list(images))
        unmoved = sum(t.want.size or 0 for t in todo if t.action == "present")
        return Report(
            images=tuple(self._pushed(image) for image in images),
            uploaded=sum(self._uploaded),
            mounted=sum(self._mounted),
            present=unmoved,
        )

    def _transfer(self, transfer: Transfer, blobs: _Blobs) -> None:
        """One blob into every repository that lacks it: mounted where that works, sent once at most."""
        want = transfer.want
        digest = want.digest or ""
        candidates = transfer.candidates
        sent = 0
        for image in transfer.missing:
            if not (candidates and self.destination.mount(image, digest, candidates)):
                self._send(image, want, blobs.readable(digest))
                sent += want.size or 0
            candidates = (image, *candidates)
            self._remember(image, digest)
        if sent:
            self._uploaded.append(sent)
        else:
            self._mounted.append(want.size or 0)

    def _send(self, image: str, want: Want, blob: Readable) -> None:
        try:
            with self.progress.task(f"push {want.title}", want.size) as task:
                self.destination.put(image, blob, advance=task.advance)
        except ContentMismatch as error:
            if isinstance(blob, LayerTar | StoredBlob):
                blob.recheck()
            hint = error.hint
            if want.key is not None:
                hint = f"{hint}; if no file has changed, the lock's receipt {want.key[:16]} is wrong: remove it"
            raise ContentMismatch(f"{want.title}: {error.message}", cause=error.cause, hint=hint) from None

    def _remember(self, image: str, digest: str) -> None:
        if self.destination.host is not None:
            self.store.remember_push(self.destination.host, self.destination.full_name(image), digest)

    def _manifest(self, image: BuiltImage) -> None:
        for tag in image.tags:
            self.destination.put_manifest(image.composed.name, tag, MANIFEST, image.manifest)

    def _pushed(self, image: BuiltImage) -> PushedImage:
        name = image.composed.name
        where = self.destination.name.rstrip("/")
        separator = ":" if self.destination.host is None else "/"
        references = tuple(f"{where}{separator}{name}:{tag}" for tag in image.tags)
        return PushedImage(name=name, digest=image.digest, references=references)


class _Blobs:
    """Every blob of some images, who needs it, and how to read it."""

    def __init__(self, packer: Packer, open_base: Callable[[str], BaseSource]) -> None:
        self._packer = packer
        self._open_base = open_base
        self._images: dict[str, list[str]] = {}
        self._described: dict[str, tuple[int, str, str | None, bool]] = {}
        self._readers: dict[str, Callable[[], Readable]] = {}
        self.base_origins: dict[str, tuple[str, str]] = {}

    def add(self, image: BuiltImage) -> None:
        name = image.composed.name
        if image.base is not None:
            source = self._open_base(image.base.reference)
            for descriptor in image.base.layers:
                title = f"base layer {descriptor.digest[7:19]}"
                self._note(name, descriptor.digest, descriptor.size, title, base=True)
                self._readers.setdefault(descriptor.digest, lambda d=descriptor, s=source: s.blob(d))  # type: ignore[misc]
                if source.host is not None and source.repository is not None:
                    self.base_origins.setdefault(descriptor.digest, (source.host, source.repository))
        for layer, made in image.layers:
            self._note(name, made.blob.digest, made.blob.size, made.title, key=made.key)
            self._readers.setdefault(
                made.blob.digest,
                lambda a=layer, b=made: self._packer.readable(a, b),  # type: ignore[misc]
            )
        config = Bytes(data=image.config)
        self._note(name, config.digest, config.size, f"config {name}")
        self._readers.setdefault(config.digest, lambda c=config: c)  # type: ignore[misc]

    def _note(
        self, image: str, digest: str, size: int, title: str, *, key: str | None = None, base: bool = False
    ) -> None:
        self._described.setdefault(digest, (size, title, key, base))
        images = self._images.setdefault(digest, [])
        if image not in images:
            images.append(image)

    def wants(self) -> list[Want]:
        """One for each blob."""
        return [
            Want(digest=digest, size=size, title=title, images=tuple(self._images[digest]), key=key, base=base)
            for digest, (size, title, key, base) in self._described.items()
        ]

    def readable(self, digest: str) -> Readable:
        """The blob's bytes."""
        return self._readers[digest]()
