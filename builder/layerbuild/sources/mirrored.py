"""A source and its mirrors: addresses of the same bytes, tried in order where the ones before are dead.

The source stays what the declaration says, and so does its pin: which address answered is nowhere
recorded. A mirror is believed no further than the digest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol, runtime_checkable

from layerbuild import addresses
from layerbuild.errors import AccessDenied, ContentMismatch, NotFound, SourceError, Unreachable
from layerbuild.model import Content, Pin, PinnedFile
from layerbuild.sources.base import Context, Request, Source, shown

Opener = Callable[[int, int | None], Iterator[bytes]]
"""Gives the bytes from an offset on, at most so many."""

_NOT_HERE = (Unreachable, NotFound, AccessDenied)


@runtime_checkable
class Remote(Source, Protocol):
    """A source of single files that everybody can reach: it can have mirrors, and be one."""

    def checked(self, uri: str) -> str:
        """`uri` as it may stand in a lock.

        Raises:
            SourceError: it may not.
        """


@runtime_checkable
class Steady(Remote, Protocol):
    """One whose pins need nothing from the server but the content: a mirror can tell that as well."""

    def pinned(self, request: Request, content: Content) -> Pin:
        """The pin that `resolve` would give."""


class Mirrored:
    """`source`, and the mirrors that requests and pins name.

    Args:
        other: gives the source for a mirror's address.
    """

    def __init__(self, source: Remote, context: Context, other: Callable[[str], Source]) -> None:
        self._source = source
        self._context = context
        self._other = other

    def resolve(self, request: Request) -> Pin:
        """See `Source.resolve`. A mirror is asked where the source pins no more than a content.

        Raises:
            SourceError: as the source does, or none of the addresses answers.
        """
        mirrors = tuple(self._mirror(uri).checked(uri) for uri in request.mirrors)
        try:
            pin = self._source.resolve(request)
        except _NOT_HERE as error:
            if not mirrors or not isinstance(self._source, Steady) or self._context.offline:
                raise
            pin = self._source.pinned(request, self._content(request, error))
        return replace(pin, mirrors=mirrors, headers=request.headers)

    def open(self, pin: Pin, file: PinnedFile, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """See `Source.open`. Where one address breaks off, the next goes on.

        Raises:
            SourceError: as the source does, or none of the addresses gives the bytes.
        """
        if not pin.mirrors or self._context.offline:
            return self._source.open(pin, file, offset=offset, length=length)
        return self._through(pin, file, offset, length)

    def _mirror(self, uri: str) -> Remote:
        source = self._other(uri)
        if not isinstance(source, Remote):
            raise SourceError(
                f"{shown(uri)} cannot be a mirror",
                cause="it is on this machine, or no single file",
                hint="name an address that others can reach too, as https:// or hf://",
            )
        return source

    def _content(self, request: Request, error: SourceError) -> Content:
        """What the first mirror that answers has."""
        failures = [(request.uri, error)]
        for uri in request.mirrors:
            _tell(self._context, failures[-1], uri)
            headers = request.headers if _same_origin(request.uri, uri) else ()
            try:
                pin = self._mirror(uri).resolve(replace(request, uri=uri, mirrors=(), headers=headers))
                return pin.files[0].content
            except _NOT_HERE as failure:
                failures.append((uri, failure))
        raise _nowhere(failures)

    def _through(self, pin: Pin, file: PinnedFile, offset: int, length: int | None) -> Iterator[bytes]:
        openers = [(uri, partial(self._open, uri, pin, file)) for uri in (pin.source, *pin.mirrors)]
        return failover(openers, self._context, offset, length)

    def _open(self, uri: str, pin: Pin, file: PinnedFile, offset: int, length: int | None) -> Iterator[bytes]:
        if uri == pin.source:
            return self._source.open(pin, file, offset=offset, length=length)
        headers = pin.headers if _same_origin(pin.source, uri) else ()
        return self._mirror(uri).open(Pin(source=uri, headers=headers), file, offset=offset, length=length)


def failover(
    openers: Sequence[tuple[str, Opener]], context: Context, offset: int = 0, length: int | None = None
) -> Iterator[bytes]:
    """The bytes from `offset` on, at most `length` of them. Where one address breaks off, the next goes on.

    Args:
        openers: by their addresses, in the order in which they are tried.

    Raises:
        SourceError: none of them gives the bytes; where there is but one, its own error.
    """
    position, end = offset, None if length is None else offset + length
    failures: list[tuple[str, SourceError]] = []
    for uri, opener in openers:
        if failures:
            _tell(context, failures[-1], uri)
        start = position
        try:
            for chunk in opener(position, None if end is None else end - position):
                position += len(chunk)
                yield chunk
            return
        except ContentMismatch as error:
            if position > start:
                raise
            failures.append((uri, error))
        except _NOT_HERE as error:
            failures.append((uri, error))
    if len(failures) == 1:
        raise failures[0][1]
    raise _nowhere(failures)


def _tell(context: Context, failure: tuple[str, SourceError], uri: str) -> None:
    context.progress.note(f"{failure[1].brief}: trying {shown(uri)}")


def _same_origin(one: str, other: str) -> bool:
    return addresses.origin(one) == addresses.origin(other)


def _nowhere(failures: list[tuple[str, SourceError]]) -> SourceError:
    """One error for all addresses, of the kind of the first."""
    first = failures[0][1]
    return type(first)(
        f"{shown(failures[0][0])} cannot be had, and neither can its mirrors",
        cause="; ".join(error.brief for _, error in failures),
        hint=first.hint,
    )
