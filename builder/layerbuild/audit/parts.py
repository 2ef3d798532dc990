"""Layers as an audit reads them: blobs of an image, or what a lock says that a layer will hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from layerbuild.audit.blobs import Blobs
from layerbuild.audit.filesystem import Node
from layerbuild.audit.interest import Interest
from layerbuild.audit.limits import Limits, hostile
from layerbuild.audit.scan import scan
from layerbuild.model import MTIME, Content, Descriptor, Entry
from layerbuild.registry.layertar import compression, decoded
from layerbuild.registry.tarstreams import Bounded, RangeStream


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer as the manifest names it. `size` is that of its blob, in bytes."""

    size: int
    compression: Literal["none", "gzip", "zstd"]


class Part(Protocol):
    """One layer of an image."""

    @property
    def layer(self) -> Layer:
        """What is known of it as a whole."""

    def nodes(self, index: int, interest: Interest, limits: Limits) -> list[Node]:
        """Its entries in their order; `index` is its number in the image."""

    def read(self, node: Node, offset: int, length: int) -> bytes | None:
        """Bytes of one of its files; None where only reading all of the layer again could give them."""


class BlobPart:
    """A layer of an image that is there. A plain one is read by ranges, a compressed one once, onwards."""

    def __init__(self, blobs: Blobs, descriptor: Descriptor) -> None:
        self._blobs = blobs
        self._descriptor = descriptor
        self._where = f"the layer {descriptor.digest}"
        self.layer = Layer(size=descriptor.size, compression=compression(descriptor.media_type, self._where))

    def nodes(self, index: int, interest: Interest, limits: Limits) -> list[Node]:
        """See `Part.nodes`."""
        descriptor = self._descriptor
        plain = self.layer.compression == "none"
        if plain:
            stream: RangeStream | Bounded = RangeStream(self._range, descriptor.size)
        else:
            packed = decoded(self._blobs.whole(descriptor), descriptor.media_type, self._where)
            stream = Bounded(packed, packed=descriptor.size, where=self._where, hostile=hostile)
        return scan(stream, where=self._where, layer=index, interest=interest, limits=limits, bodies=not plain)

    def _range(self, offset: int, length: int) -> bytes:
        return self._blobs.range(self._descriptor, offset, length)

    def read(self, node: Node, offset: int, length: int) -> bytes | None:
        """See `Part.read`."""
        return self._range(node.offset + offset, length) if self.layer.compression == "none" else None


ReadContent = Callable[[Content, int, int], "bytes | None"]
"""Bytes of a content by offset and length; None where they are not to be had cheaply."""


class DescribedPart:
    """A layer as its kind describes it, whether or not it was ever packed."""

    def __init__(self, entries: Sequence[Entry], *, layer: Layer, read_content: ReadContent) -> None:
        self.layer = layer
        self._entries = entries
        self._read_content = read_content

    def nodes(self, index: int, interest: Interest, limits: Limits) -> list[Node]:
        """See `Part.nodes`."""
        del interest  # everything can be read later
        found = []
        for number, entry in enumerate(self._entries):
            limits.entry(entry.path)
            content_size = entry.content.size if entry.content is not None else None
            node = Node(
                path=entry.path,
                type=entry.type,
                mode=entry.mode,
                uid=entry.uid,
                gid=entry.gid,
                size=len(entry.data) if entry.data is not None else content_size or 0,
                mtime=MTIME,
                target=entry.target or "",
                layer=index,
                offset=number,
            )
            node.sha256 = entry.content.sha256 if entry.content is not None else None
            found.append(node)
        return found

    def read(self, node: Node, offset: int, length: int) -> bytes | None:
        """See `Part.read`."""
        entry = self._entries[node.offset]
        if entry.data is not None:
            return entry.data[offset : offset + length]
        return self._read_content(entry.content, offset, length) if entry.content is not None else None
