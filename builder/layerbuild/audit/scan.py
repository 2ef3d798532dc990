"""A layer's tar becomes a list of paths. Plain layers are read by ranges, so that weights stay where they are."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from layerbuild.audit.filesystem import Node
from layerbuild.audit.interest import Interest
from layerbuild.audit.limits import MAX_DEPTH, MAX_PATH, Limits, hostile
from layerbuild.model import LARGE
from layerbuild.registry.layertar import Header, Stream, damage_explained, headers
from layerbuild.webui.modeltypes import is_safetensors
from layerbuild.webui.safetensors import PREFIX, header_length

_SAMPLE = 4 * 1024
"""Bytes of each of the places of a large file by which copies of it are recognised."""

_LARGEST_KEPT_HEADER = 1024 * 1024
_BLOCK = 1024 * 1024


def scan(stream: Stream, *, where: str, layer: int, interest: Interest, limits: Limits, bodies: bool) -> list[Node]:
    """Every entry of a layer, in its order, with what is worth keeping of its contents.

    Args:
        layer: its number in the image.
        bodies: all of the layer passes by anyway, and cannot be read by ranges later: hash large files and
            keep the beginnings of models, too.

    Raises:
        SourceError: the layer is damaged.
        Unreadable: it is hostile.
    """
    with damage_explained(where):
        found = []
        for header in headers(stream, where):
            limits.entry(where)
            too_long = max(len(header.path), len(header.target)) > MAX_PATH or header.path.count("/") >= MAX_DEPTH
            if too_long or header.size < 0:
                raise hostile(where, "an entry of it has a size or a path that cannot be")
            node = _node(header, layer)
            if header.type == "file" and not header.hardlink:
                _take(stream, node, interest, limits, where=where, bodies=bodies)
            found.append(node)
        return found


def _take(stream: Stream, node: Node, interest: Interest, limits: Limits, *, where: str, bodies: bool) -> None:
    """What is worth keeping of a file whose body comes next."""
    wanted = interest.bytes_of(node.path, node.size)
    if wanted:
        limits.keep(wanted, where)
        node.kept = _exactly(stream, wanted)
    elif bodies:
        head = _model_head(stream, node, limits) if is_safetensors(node.path) else b""
        if node.size >= LARGE:
            _digest(stream, node, head)


def _model_head(stream: Stream, node: Node, limits: Limits) -> bytes:
    """Reads up to the end of a safetensors header, and keeps that if it is one of sane length."""
    prefix = stream.read(min(PREFIX, node.size))
    length = header_length(prefix)
    if length is None or length > _LARGEST_KEPT_HEADER or PREFIX + length > node.size:
        return prefix
    head = prefix + _exactly(stream, length)
    if limits.head(len(head)):
        node.kept = head
    return head


def _digest(stream: Stream, node: Node, head: bytes) -> None:
    """Reads the rest of a large file, of which `head` was read, for its sha256 and its sample."""
    whole = hashlib.sha256(head)
    sample = Sample(node.size)
    sample.feed(head)
    left = node.size - len(head)
    while left > 0:
        piece = _exactly(stream, min(left, _BLOCK))
        whole.update(piece)
        sample.feed(piece)
        left -= len(piece)
    node.sha256 = whole.hexdigest()
    node.sample = sample.digest()


class Sample:
    """A few KiB of a large file by which copies of it are recognised.

    From its second half: models of one kind begin alike, with the same header.
    """

    def __init__(self, size: int) -> None:
        self.places = [(start, _SAMPLE) for start in (size // 2, size // 4 * 3, size - _SAMPLE)]
        self._parts = [b""] * len(self.places)
        self._position = 0

    def feed(self, piece: bytes) -> None:
        """The next bytes of the file."""
        for i, (start, length) in enumerate(self.places):
            first, last = start - self._position, start + length - self._position
            if first < len(piece) and last > 0:
                self._parts[i] += piece[max(0, first) : last]
        self._position += len(piece)

    def put(self, parts: Sequence[bytes]) -> None:
        """The bytes at `places`, read one by one."""
        self._parts = list(parts)

    def digest(self) -> bytes:
        """What copies have in common."""
        return hashlib.sha256(b"".join(self._parts)).digest()


def _node(header: Header, layer: int) -> Node:
    return Node(
        path=header.path,
        type=header.type,
        mode=header.mode,
        uid=header.uid,
        gid=header.gid,
        size=header.size,
        mtime=header.mtime,
        target=header.target,
        layer=layer,
        offset=header.offset,
        hardlink=header.hardlink,
    )


def _exactly(stream: Stream, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError("it ends in a file")
    return data
