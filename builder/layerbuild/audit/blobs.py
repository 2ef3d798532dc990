"""An image's layers as bytes: whole ones onwards, plain ones by ranges. Counts what was read."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, cast

from layerbuild.baseimage import BaseSource
from layerbuild.errors import SourceError
from layerbuild.model import Descriptor, Readable
from layerbuild.registry import receiving

if TYPE_CHECKING:
    from collections.abc import Generator

    from layerbuild.registry.client import RegistryClient


class Blobs:
    """The blobs of one image. Safe to share between threads."""

    def __init__(self, source: BaseSource, client_for: Callable[[str], RegistryClient]) -> None:
        self._source = source
        self._client_for = client_for
        self._lock = threading.Lock()
        self.bytes_read = 0
        """Bytes of layers that were transferred so far."""

    def whole(self, descriptor: Descriptor) -> Readable:
        """A blob that is read onwards from its beginning."""
        return receiving.Counted(blob=self._source.blob(descriptor), count=self._count)

    def range(self, descriptor: Descriptor, offset: int, length: int) -> bytes:
        """`length` bytes of a blob from `offset` on, and not one more: that is what a registry is asked for.

        Raises:
            SourceError: there are fewer.
            LayerbuildError: whatever reading raises.
        """
        if self._source.host is not None and self._source.repository is not None:
            client = self._client_for(self._source.host)
            pieces = client.open_blob(self._source.repository, descriptor.digest, offset=offset, length=length)
        else:
            pieces = self._source.blob(descriptor).open(offset)
        data = _taken(receiving.window(pieces, 0, length), pieces)
        self._count(len(data))
        if len(data) != length:
            raise SourceError(
                f"the layer {descriptor.digest} is damaged",
                cause=f"it ends before byte {offset + length}",
                hint="push the image again",
            )
        return data

    def _count(self, amount: int) -> None:
        with self._lock:
            self.bytes_read += amount


def _taken(wanted: Iterator[bytes], pieces: Iterator[bytes]) -> bytes:
    """All of `wanted`; whatever `pieces` holds open is closed, also where more would come."""
    with closing(cast("Generator[bytes, None, None]", pieces)):
        return b"".join(wanted)
