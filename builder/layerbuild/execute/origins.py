"""Where the contents of a lock can be had: by every declaration that pins them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from layerbuild.errors import LockError
from layerbuild.lockmodel import Lock
from layerbuild.model import Content, Pin, PinnedFile
from layerbuild.sources import Context, source_for
from layerbuild.sources.base import Source
from layerbuild.sources.mirrored import failover


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a content can be had: a file of a pin. `name` is for people."""

    name: str
    pin: Pin
    file: PinnedFile


class Origins:
    """The origins of everything that a lock pins, in the lock's order."""

    def __init__(self, lock: Lock, context: Context) -> None:
        self._context = context
        self._all: dict[str, list[Origin]] = {}
        for name, layer in lock.layers.items():
            for pin in layer.pins.values():
                for file in pin.files:
                    self._all.setdefault(file.content.id, []).append(Origin(name=name, pin=pin, file=file))

    def of(self, content: Content) -> Sequence[Origin]:
        """Those of a content, none if the lock does not say."""
        return self._all.get(content.id, ())

    def first(self, content: Content) -> Origin:
        """The first of them.

        Raises:
            LockError: the lock does not say.
        """
        for origin in self.of(content):
            return origin
        raise LockError(
            f"the lock does not say where {content.id} comes from",
            hint="run 'layerbuild lock', and review the change",
        )

    def source(self, origin: Origin) -> Source:
        """What gives the bytes."""
        return source_for(origin.pin.source, self._context)

    def open(self, origins: Sequence[Origin], *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Bytes of a content; where one origin fails, the next goes on. See `Source.open`.

        Raises:
            SourceError: none of them gives the bytes.
        """
        openers = [(origin.pin.source, partial(self._open, origin)) for origin in origins]
        return failover(openers, self._context, offset, length)

    def _open(self, origin: Origin, offset: int, length: int | None) -> Iterator[bytes]:
        return self.source(origin).open(origin.pin, origin.file, offset=offset, length=length)
