"""`oci://`: a file out of an OCI artifact or an image, in a registry.

    oci://HOST/REPOSITORY:TAG/PATH       oci://HOST/REPOSITORY[:TAG]@sha256:HEX/PATH

A repository's name has no `:` and no `@`, a tag has no `/`: so the first `/` after one of them begins the
path, which is taken literally. The pin is the manifest's digest, and the file's; where the file lies in
a tar, also the tar's blob and the place in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from layerbuild.errors import (
    AccessDenied,
    DestinationDown,
    DestinationError,
    LoginRequired,
    SourceError,
    Unreachable,
    UsageError,
)
from layerbuild.model import Content, Member, Pin, PinnedFile
from layerbuild.paths import safe_relative
from layerbuild.sources.base import (
    Artifact,
    Context,
    Request,
    agree,
    declared,
    mismatch,
    one_file_only,
    require_online,
    shown,
)

_ADDRESS = re.compile(
    r"oci://(?P<host>[^/@]+)/(?P<repository>[^:@]+)"
    r"(?::(?P<tag>[^/@]+))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?(?:/(?P<path>.*))?",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True, kw_only=True)
class Address:
    """A parsed URI. `name` is host and repository; at least one of tag and digest is set."""

    name: str
    tag: str | None
    digest: str | None
    path: str

    @property
    def reference(self) -> str:
        """What is asked for. A digest says more than a tag."""
        return f"{self.name}@{self.digest}" if self.digest else f"{self.name}:{self.tag}"


class OciSource:
    """Reads files out of registries, with the logins that pushing uses."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def resolve(self, request: Request) -> Pin:
        """See `Source.resolve`. A file that is a blob of its own is not downloaded. One in a tar is, where its
        sha256 is not declared.

        Raises:
            NotFound, AccessDenied, Unreachable: the registry says so, or nothing; there is no such file.
            SourceError: an address or an artifact that makes no sense.
            ContentMismatch: another file than the declared one.
        """
        address = _parse(request.uri)
        one_file_only(request)
        sha256, _ = declared(request)
        what = shown(request.uri)
        with _as_source_errors(), self._context.progress.task(f"look for {what}") as task:
            artifact = self._open(address, what)
            digest = artifact.digest
            path = safe_relative(address.path, origin=what) if address.path else ""
            take = partial(_kept, self._context, path) if sha256 is None else None
            member = artifact.find(path, take=take, advance=task.advance)
        if member.blob is not None and sha256 is None:
            self._context.progress.note(f"nobody publishes a digest of {what}: fetched once and recorded what came")
        agree(request, member.content, who="the registry")
        content = Content(size=member.content.size, sha256=member.content.sha256 or sha256)
        return Pin(
            source=f"oci://{address.name}@{digest}/{path}",
            ref=address.tag,
            files=(PinnedFile(path=path, content=content),),
            blob=member.blob,
            offset=member.offset if member.blob is not None else None,
        )

    def open(self, pin: Pin, file: PinnedFile, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """See `Source.open`. A read that breaks off is resumed.

        Raises:
            NotFound, AccessDenied, Unreachable: the registry says so, or nothing.
            ContentMismatch: another size than the pinned one.
        """
        address, what = _parse(pin.source), shown(pin.source)
        member = Member(content=file.content, blob=pin.blob, offset=pin.offset or 0)
        with _as_source_errors():
            artifact = self._open(address, what)
            # The place in a tar is that of one manifest: what a tag means now is no matter.
            if address.digest is None or file.content.sha256 is None:
                raise mismatch(what, "the lock names no digest for it")
            yield from artifact.read(member, offset=offset, length=length)

    def _open(self, address: Address, what: str) -> Artifact:
        require_online(self._context, f"what is in {what}")
        if self._context.artifact is None:
            raise SourceError(
                f"{what} cannot be read here",
                cause="no registry can be asked",
                hint="declare another source of the file",
            )
        return self._context.artifact(address.reference)


def _kept(context: Context, path: str, chunks: Iterator[bytes]) -> Content:
    return context.keep(chunks, path)


def _parse(uri: str) -> Address:
    match = _ADDRESS.fullmatch(uri)
    if match is None or not uri.isprintable():
        raise _malformed(uri, "it names no file of an artifact in a registry")
    host, tag, digest = match["host"], match["tag"], match["digest"]
    if not ("." in host or ":" in host or host == "localhost"):
        raise _malformed(uri, f"{host[:100]!r} is no host; that of Docker Hub is docker.io")
    if tag is None and digest is None:
        raise _malformed(uri, "it names neither a tag nor a digest")
    return Address(
        name=f"{host.lower()}/{match['repository']}",
        tag=tag,
        digest=digest.lower() if digest else None,
        path=match["path"] or "",
    )


@contextmanager
def _as_source_errors() -> Iterator[None]:
    """A registry's refusals, as those of a source."""
    try:
        yield
    except LoginRequired as error:
        raise AccessDenied(error.message, cause=error.cause, hint=error.hint) from None
    except DestinationDown as error:
        raise Unreachable(error.message, cause=error.cause, hint=error.hint) from None
    except (DestinationError, UsageError) as error:
        raise SourceError(error.message, cause=error.cause, hint=error.hint) from None


def _malformed(uri: str, cause: str) -> SourceError:
    return SourceError(
        f"{shown(uri)} is not an address of a file in an artifact",
        cause=cause,
        hint="write oci://HOST/REPOSITORY:TAG/PATH, or oci://HOST/REPOSITORY@sha256:HEX/PATH",
    )
