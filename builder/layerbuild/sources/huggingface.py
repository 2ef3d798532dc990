"""`hf://`: a file or a snapshot of a repository on the Hugging Face Hub.

    hf://[datasets/|spaces/]NAME[@REV]/PATH     one file
    hf://[datasets/|spaces/]NAME[@REV]          a snapshot: all files, or those that `files` chooses

NAME is `ORG/REPO`, or one word for the oldest repositories, which then needs `@REV` before a path.
REV is a branch, a tag or a commit, `main` if left out; a slash in it is written %2F, except in
`refs/pr/N` and `refs/convert/NAME`. PATH is taken literally. Digests come from the Hub's metadata, so
that nothing is downloaded to pin it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from urllib.parse import unquote

from layerbuild.errors import SourceError
from layerbuild.model import Content, Pin, PinnedFile
from layerbuild.paths import safe_relative
from layerbuild.sources.base import (
    Context,
    Request,
    agree,
    declared,
    is_hex,
    not_in,
    one_file_only,
    require_online,
    select,
    shown,
)
from layerbuild.sources.hub import Hub, Repository
from layerbuild.sources.transfer import read

_TYPES = ("datasets", "spaces")
"""Types of repositories that are named; models are not."""

_SPECIAL = re.compile(r"refs/(?:pr/[0-9]+|convert/[A-Za-z0-9_]+)(?=/|$)", re.ASCII)
"""Revisions whose slashes need not be encoded, as in the addresses that huggingface_hub's HfFileSystem takes."""

_WORD = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_-])?", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Address:
    """A parsed `hf://` URI. `path` is None for a snapshot."""

    repository: Repository
    revision: str
    path: str | None

    def at(self, commit: str) -> str:
        """The URI with the revision resolved."""
        tail = "" if self.path is None else f"/{self.path}"
        return f"hf://{self.repository.path}@{commit}{tail}"


class HuggingFaceSource:
    """Reads the Hub at `HF_ENDPOINT`."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def checked(self, uri: str) -> str:
        """`uri`, if it may stand in a lock.

        Raises:
            SourceError: it may not.
        """
        parse(uri)
        return uri

    def resolve(self, request: Request) -> Pin:
        """See `Source.resolve`. One request for all sources of a repository and revision; none for a file whose
        commit, sha256 and size are declared.

        `PinnedFile.path` is the path within the repository, for one file too.

        Raises:
            NotFound: no such repository, revision or file.
            AccessDenied: private or gated.
            ContentMismatch: declared sha256 or size differ from the Hub's.
            SourceError: a name declared absent exists, or the answer makes no sense.
        """
        address = parse(request.uri)
        sha256, size = declared(request)
        if address.path is not None:
            if not request.absent:
                one_file_only(request)
            if is_hex(address.revision, 40) and sha256 and size is not None and not request.absent:
                file = PinnedFile(path=address.path, content=Content(sha256=sha256, size=size))
                return Pin(source=address.at(address.revision), files=(file,), revision=address.revision)
        elif sha256 is not None or size is not None:
            raise SourceError(
                f"{request.uri} is a snapshot",
                cause="`sha256` and `size` belong to one file",
                hint="remove them, or add the file's path to the source",
            )
        return self._ask(request, address)

    def open(self, pin: Pin, file: PinnedFile, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """See `Source.open`. A download that breaks off is resumed, by a fresh address.

        Raises:
            NotFound, AccessDenied, Unreachable: the Hub says so, or nothing.
            ContentMismatch: another size than the pinned one.
        """
        address = parse(pin.source)
        path = safe_relative(address.path or file.path, origin="the lock")
        require_online(self._context, f"the content of {address.at(address.revision)}")
        remote = self._connect().file(address.repository, address.revision, path, file.content.size)
        return read(remote, offset=offset, length=length)

    def _connect(self) -> Hub:
        return self._context.memo.get(Hub, lambda: Hub(self._context))

    def _ask(self, request: Request, address: Address) -> Pin:
        what = f"hf://{address.repository.path}@{address.revision}"
        require_online(self._context, what)
        revision = self._connect().revision(address.repository, address.revision)
        what = f"hf://{address.repository.path}@{revision.commit}"
        _prove_absent(request, revision.files, what)
        if address.path is None:
            chosen = select(list(revision.files), request.files, what=what)
            files = tuple(PinnedFile(path=name, content=revision.files[name]) for name in chosen)
        elif address.path in revision.files:
            content = revision.files[address.path]
            agree(request, content, who="the Hub")
            content = replace(content, sha256=content.sha256 or declared(request)[0])
            files = (PinnedFile(path=address.path, content=content),)
        else:
            raise not_in(what, [address.path], list(revision.files))
        if not files:
            raise SourceError(f"{what}: the declaration chooses no file", hint="check `files`")
        return Pin(
            source=address.at(revision.commit),
            files=files,
            revision=revision.commit,
            ref=address.revision if address.revision != revision.commit else None,
            absent=tuple(sorted(set(request.absent))),
        )


def _prove_absent(request: Request, names: Collection[str], what: str) -> None:
    """The listing is complete, so what it does not name would answer 404."""
    for name in request.absent:
        safe_relative(name, origin=f"`absent` of {what}")
    there = sorted({name for name in request.absent if name in names})
    if there:
        raise SourceError(
            f"{what} has {', '.join(there)}",
            cause="the declaration says that it is absent",
            hint="remove it from `absent`; add it to `files` if it is needed",
        )


def parse(uri: str) -> Address:
    """Takes an `hf://` URI apart.

    Raises:
        SourceError: it is not one.
    """
    rest = uri.partition("://")[2]
    kind, below, inside = rest.partition("/")
    kind, rest = (kind, inside) if below and kind in _TYPES else ("models", rest)
    name, at, tail = rest.partition("@")
    # An @ after the second slash belongs to a file's name.
    if at and name.count("/") <= 1:
        special = _SPECIAL.match(tail)
        written, slash, path = (
            (special[0], *tail[special.end() :].partition("/")[1:]) if special else tail.partition("/")
        )
        revision = unquote(written)
    else:
        first, middle, more = rest.partition("/")
        second, slash, path = more.partition("/")
        name, revision = first + middle + second, "main"
    if not all(_WORD.fullmatch(word) for word in name.split("/")) or ".." in name or "--" in name:
        raise _malformed(uri, "the repository's name is not one")
    if not revision or not revision.isprintable() or len(revision) > 255 or ".." in revision:
        raise _malformed(uri, "the revision after @ is not one")
    if slash:
        if not path:
            raise _malformed(uri, "nothing follows the last slash")
        safe_relative(path, origin=shown(uri))
    revision = revision.lower() if is_hex(revision.lower(), 40) else revision
    return Address(repository=Repository(type=kind, name=name), revision=revision, path=path if slash else None)


def _malformed(uri: str, cause: str) -> SourceError:
    return SourceError(
        f"{shown(uri)} is not an address on the Hub",
        cause=cause,
        hint="write hf://ORG/NAME@REV/PATH for a file, hf://ORG/NAME@REV for a snapshot",
    )
