"""`s3://`, `gs://`, `az://` and others that fsspec reads: an object, pinned by its sha256.

    s3://BUCKET/KEY[?versionId=ID]      gs://BUCKET/KEY      az://CONTAINER/BLOB

Keys are taken literally: no percent-encoding. Only schemes of the table in `sources/__init__` get
here: fsspec also has some that read this machine, or run what an address holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from layerbuild.errors import SourceError
from layerbuild.model import Content, Pin, PinnedFile
from layerbuild.paths import unsafe_reason
from layerbuild.sources.base import (
    Context,
    Request,
    agree,
    declared,
    fetched_once,
    mismatch,
    one_file_only,
    require_online,
    words,
)
from layerbuild.sources.objectstore import Known, Object

_VERSION = "versionId="


@dataclass(frozen=True, kw_only=True)
class Address:
    """A parsed URI. `place` is bucket and key."""

    scheme: str
    place: str
    version: str | None = None

    @property
    def name(self) -> str:
        """The last component of the key."""
        return self.place.rpartition("/")[2]

    @property
    def uri(self) -> str:
        """As it stands in a lock."""
        return f"{self.scheme}://{self.place}" + (f"?{_VERSION}{self.version}" if self.version else "")


class ObjectSource:
    """Reads objects by whatever fsspec finds for their scheme."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def checked(self, uri: str) -> str:
        """`uri` as it may stand in a lock.

        Raises:
            SourceError: it may not.
        """
        return parse(uri).uri

    def resolve(self, request: Request) -> Pin:
        """See `Source.resolve`. No request is made where sha256 and size are declared.

        One request tells size, version and, where the store keeps it, sha256. Without a sha256 anywhere the
        object is fetched once.

        Raises:
            NotFound, AccessDenied, Unreachable: the store says so, or nothing.
            ContentMismatch: declared sha256 or size differ, or the object changed while it was fetched.
        """
        address = parse(request.uri)
        one_file_only(request)
        sha256, size = declared(request)
        if sha256 is not None and size is not None:
            return _pin(address, Content(sha256=sha256, size=size))
        require_online(self._context, address.uri)
        known = Object(address.uri, address.uri).look()
        address = Address(scheme=address.scheme, place=address.place, version=address.version or known.version)
        content = Content(sha256=known.sha256 or sha256, size=known.size)
        if content.sha256 is None:
            content = self._fetch_once(address, known)
        agree(request, Content(sha256=known.sha256 or content.sha256, size=content.size), who="the store")
        return _pin(address, content)

    def open(self, pin: Pin, file: PinnedFile, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """See `Source.open`. The store is asked for the size first: an object that was replaced is not fetched.

        Raises:
            NotFound, AccessDenied, Unreachable: the store says so, or nothing.
            ContentMismatch: another size or checksum than the pinned one.
        """
        address = parse(pin.source)
        require_online(self._context, f"the content of {address.uri}")
        return self._blocks(address, file.content, offset, length)

    def _blocks(self, address: Address, pinned: Content, offset: int, length: int | None) -> Iterator[bytes]:
        source = Object(address.uri, address.uri)
        known = source.look()
        if known.size is None:
            raise SourceError(f"{address.uri}: the store does not tell its size", hint="declare another source")
        if pinned.size is not None and known.size != pinned.size:
            raise mismatch(address.uri, f"the store has {known.size} bytes, {pinned.size} are pinned")
        if known.sha256 and pinned.sha256 and known.sha256 != pinned.sha256:
            raise mismatch(address.uri, f"the store has sha256 {known.sha256}, {pinned.sha256} is pinned")
        yield from source.read(offset, known.size if length is None else min(known.size, offset + length))

    def _fetch_once(self, address: Address, known: Known) -> Content:
        source = Object(address.uri, address.uri)
        if known.size is None:
            raise SourceError(f"{address.uri}: the store does not tell its size", hint="declare another source")
        content = fetched_once(self._context, source.read(0, known.size), address.name, address.uri)
        if source.look() != known:
            raise mismatch(address.uri, "it changed while it was fetched")
        return content


def _pin(address: Address, content: Content) -> Pin:
    return Pin(source=address.uri, files=(PinnedFile(path=address.name, content=content),))


def parse(uri: str) -> Address:
    """Takes a URI apart.

    Raises:
        SourceError: it is not one, or says more than where the object is. What follows its `?` is not repeated.
    """
    scheme, _, rest = uri.partition("://")
    scheme = scheme.lower()
    place, mark, query = rest.partition("?")
    host, slash, key = place.partition("/")
    user, at, server = host.rpartition("@")
    shown = f"{scheme}://{server}{slash}{key}"
    if at and (":" in user or not scheme.startswith(("abfs", "sftp"))):
        raise _malformed(shown, "a login does not belong into an address that others will read")
    reason = unsafe_reason(place)
    if not host or not key or reason is not None or not place.isprintable():
        raise _malformed(shown, "the key is missing" if not key else reason or "it is not printable")
    if "::" in uri or "#" in uri:
        raise _malformed(shown, "'::' and '#' mean something else to fsspec")
    version = query.removeprefix(_VERSION)
    if mark and (not scheme.startswith("s3") or version == query or not version.isprintable() or not version):
        raise _malformed(shown, "nothing but ?versionId=ID of s3:// may follow")
    if mark and any(c in version for c in "?&= "):
        raise _malformed(shown, "the version's id is not one")
    return Address(scheme=scheme, place=place, version=version if mark else None)


def _malformed(shown: str, cause: str) -> SourceError:
    return SourceError(
        f"{words(shown)} is not the address of an object",
        cause=cause,
        hint="write SCHEME://BUCKET/KEY; logins are found as the store's own tools find them",
    )
