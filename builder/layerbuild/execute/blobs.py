"""Every blob that some images need, where, and how to read it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from layerbuild.baseimage import BaseSource
from layerbuild.execute.build import BuiltImage
from layerbuild.execute.pack import Packer
from layerbuild.layering import ComposedLayer
from layerbuild.model import Readable
from layerbuild.plan import Want

Reader = Callable[[], Readable]


@dataclass(frozen=True, kw_only=True)
class Bytes:
    """A small blob that was made here (`model.Readable`)."""

    data: bytes
    digest: str

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.data)

    def open(self, offset: int = 0) -> Iterator[bytes]:
        """The bytes."""
        if self.data[offset:]:
            yield self.data[offset:]


def config_of(image: BuiltImage) -> Want:
    """The config of `image`. No two images share one."""
    described = image.config_descriptor
    title, repositories = f"config {image.composed.name}", (image.repository,)
    return Want(digest=described.digest, size=described.size, title=title, repositories=repositories)


def read_config(image: BuiltImage) -> Readable:
    """Its bytes."""
    return Bytes(data=image.config, digest=image.config_descriptor.digest)


@dataclass(frozen=True, kw_only=True)
class _Blob:
    size: int
    title: str
    key: str | None
    base: bool
    layer: ComposedLayer | None
    read: Reader
    # In the order of the images; a dict, because a thousand of them may share a layer.
    repositories: dict[str, None]
    images: list[str]


class Blobs:
    """The layers of some images, each once."""

    def __init__(self, images: Iterable[BuiltImage], packer: Packer, open_base: Callable[[str], BaseSource]) -> None:
        self._packer = packer
        self._open_base = open_base
        self._blobs: dict[str, _Blob] = {}
        self.base_origins: dict[str, tuple[str, str]] = {}
        for image in images:
            self._add(image)

    def _add(self, image: BuiltImage) -> None:
        if image.base is not None:
            source = self._open_base(image.base.reference)
            for descriptor in image.base.layers:
                title = f"base layer {descriptor.digest[7:19]}"
                self._note(
                    image,
                    descriptor.digest,
                    descriptor.size,
                    title,
                    lambda d=descriptor, s=source: s.blob(d),
                    base=True,
                )
                if source.host is not None and source.repository is not None:
                    self.base_origins.setdefault(descriptor.digest, (source.host, source.repository))
        for layer, made in image.layers:
            blob = made.blob
            self._note(
                image,
                blob.digest,
                blob.size,
                made.title,
                lambda a=layer, b=made: self._packer.readable(a, b),
                key=made.key,
                layer=layer,
            )

    def _note(
        self,
        image: BuiltImage,
        digest: str,
        size: int,
        title: str,
        read: Callable[..., Readable],
        *,
        key: str | None = None,
        layer: ComposedLayer | None = None,
        base: bool = False,
    ) -> None:
        blob = self._blobs.get(digest)
        if blob is None:
            blob = _Blob(size=size, title=title, key=key, base=base, layer=layer, read=read, repositories={}, images=[])
            self._blobs[digest] = blob
        blob.repositories[image.repository] = None
        blob.images.append(image.composed.name)

    def wants(self) -> list[Want]:
        """One for each blob."""
        return [
            Want(
                digest=digest,
                size=blob.size,
                title=blob.title,
                repositories=tuple(blob.repositories),
                key=blob.key,
                base=blob.base,
            )
            for digest, blob in self._blobs.items()
        ]

    def users(self, want: Want) -> list[str]:
        """The images that need the blob."""
        return self._blobs[want.digest or ""].images

    def reader(self, want: Want) -> Reader:
        """What opens the blob."""
        return self._blobs[want.digest or ""].read

    def layer(self, want: Want) -> ComposedLayer | None:
        """The layer that the blob is; None for one of a base."""
        return self._blobs[want.digest or ""].layer
