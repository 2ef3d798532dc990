"""What every source shares: the question, the surroundings, the interface, and a few rules.

A source answers two questions. `resolve` says what a declaration means today, without downloading
weights where that can be helped; its answer goes into the lock. `open` gives the bytes of a pinned
file. Sizes are checked on the way by the source; digests are checked by whoever consumes the
bytes, because that is who hashes them anyway (`verified` does it for those who do not).
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from layerbuild import addresses
from layerbuild.errors import ContentMismatch, NotFound, SourceError, Unreachable
from layerbuild.model import Content, Member, Pin, PinnedFile, PinRequest
from layerbuild.progress import Progress, Tally
from layerbuild.sources.memo import Memo

if TYPE_CHECKING:
    from layerbuild import http

MAX_SIZE = 2**53
"""Bytes beyond which a size is nonsense; also what JSON readers elsewhere can hold exactly."""

_HEX = re.compile(r"[0-9a-f]+")


Request = PinRequest
"""What a declaration asks of a source. `select` has the rules for its `files`."""


class Artifact(Protocol):
    """An OCI artifact or image, whose files can be read. Nothing of it is asked for before it is used."""

    @property
    def digest(self) -> str:
        """Of its manifest.

        Raises:
            LayerbuildError: it cannot be had.
        """

    def find(
        self, path: str, *, take: Callable[[Iterator[bytes]], Content] | None, advance: Callable[[int], None]
    ) -> Member:
        """Where the file at `path` is.

        Args:
            take: is given all bytes of the file, where the registry does not name their digest, and says what they
                are. None where that is known already: then the content that is found has no sha256.
            advance: is told of bytes that were read.

        Raises:
            NotFound: there is no such file.
            LayerbuildError: it cannot be had, or what is there makes no sense.
        """

    def read(self, member: Member, *, offset: int, length: int | None) -> Iterator[bytes]:
        """Bytes of a file, as `Source.open`."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """What every source is given. Built once per command.

    Attributes:
        open_client: gives the HTTP client, the same each time. Most runs need none.
        project: directory that `file:` and `git+file:` addresses are relative to.
        cache: directory of the store where git may keep its bare repositories.
        environ: `HF_ENDPOINT`, `HF_TOKEN`, `HF_HOME`, proxies and so on are read from here only.
        hash_file: sha256 and size of a local file; the store remembers them.
        keep: takes in a file that nobody has a digest of, under its name; tells what it was. The store keeps it.
        progress: where long work says how far it is.
        offline: no source may open a connection.
        memo: what sources have asked in this context.
        keep_built: as `keep`, of what was made here, and may not come out the same again.
        present: whether a file below `cache` is there; if so, it stays as long as the context is used.
        artifact: opens what an image reference names, in a registry; None where none can be asked.
    """

    open_client: Callable[[], http.Client] = field(repr=False)
    project: Path
    cache: Path
    environ: Mapping[str, str] = field(repr=False)
    hash_file: Callable[[Path], Content]
    progress: Progress
    offline: bool = False
    keep: Callable[[Iterable[bytes], str], Content] = field(default_factory=lambda: hashed)
    keep_built: Callable[[Iterable[bytes], str], Content] = field(default_factory=lambda: hashed)
    present: Callable[[Path], bool] = Path.exists
    artifact: Callable[[str], Artifact] | None = None
    memo: Memo = field(init=False, default_factory=Memo, repr=False, compare=False)

    @property
    def client(self) -> http.Client:
        """The HTTP client."""
        return self.open_client()


def hashed(chunks: Iterable[bytes], name: str) -> Content:
    """sha256 and size of what came, and nothing is kept (`Context.keep`)."""
    del name
    digest, size = hashlib.sha256(), 0
    for chunk in chunks:
        digest.update(chunk)
        size += len(chunk)
    return Content(sha256=digest.hexdigest(), size=size)


class Source(Protocol):
    """One scheme of URIs."""

    def resolve(self, request: Request) -> Pin:
        """What `request` means now.

        Raises:
            SourceError: it cannot be pinned; the subclass says why.
        """

    def open(self, pin: Pin, file: PinnedFile, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Non-empty chunks of `file` from byte `offset`, at most `length` bytes, else to the end.

        Never more bytes than the pin allows, and an error where there are fewer. Digests are not
        checked here: see `verified`.

        Raises:
            SourceError: the bytes cannot be had; the subclass says why.
        """


def fetched_once(context: Context, chunks: Iterator[bytes], name: str, what: str) -> Content:
    """The content of a file of which nobody publishes a digest.

    Args:
        name: of the file, and `what` it is, for people.

    Raises:
        SourceError: the bytes cannot be had.
        StoreError: they cannot be kept.
    """
    with context.progress.task(f"hashing {what}") as task:

        def told() -> Iterator[bytes]:
            for chunk in counted(chunks, context.progress.tally):
                yield chunk
                task.advance(len(chunk))

        content = context.keep(told(), name)
    context.progress.note(f"nobody publishes a digest of {what}: fetched once and recorded what came")
    return content


def counted(chunks: Iterator[bytes], tally: Tally) -> Iterator[bytes]:
    """`chunks`, counted as what was fetched."""
    for chunk in chunks:
        tally.add("fetched", len(chunk))
        yield chunk


def require_online(context: Context, what: str) -> None:
    """To be called before a connection is opened for `what`.

    Raises:
        Unreachable: the command runs offline.
    """
    if context.offline:
        raise Unreachable(f"{what} is not known here", cause="this run is offline", hint="run it without --offline")


def is_hex(value: object, digits: int) -> bool:
    """Whether `value` is a lower-case hex string of that many digits."""
    return isinstance(value, str) and len(value) == digits and _HEX.fullmatch(value) is not None


def is_size(value: object) -> bool:
    """Whether `value` is a believable number of bytes."""
    return type(value) is int and 0 <= value <= MAX_SIZE


def declared(request: Request) -> tuple[str | None, int | None]:
    """The declared sha256 (lower-case) and size, if they can be ones.

    Raises:
        SourceError: they cannot.
    """
    sha256 = request.sha256.lower() if request.sha256 is not None else None
    if sha256 is not None and not is_hex(sha256, 64):
        raise SourceError(f"{shown(request.uri)}: the declared sha256 is not one", hint="write its 64 hex digits")
    if request.size is not None and not is_size(request.size):
        raise SourceError(f"{shown(request.uri)}: the declared size is not one", hint="write the number of bytes")
    return sha256, request.size


def one_file_only(request: Request) -> None:
    """Refuses what makes sense for snapshots and directories only.

    Raises:
        SourceError: the request names files within, or absent ones.
    """
    if request.files is not None or request.absent:
        raise SourceError(
            f"{shown(request.uri)} is one file",
            cause="`files` and `absent` choose among the files of a snapshot or a directory",
            hint="remove them from the declaration",
        )


def agree(request: Request, actual: Content, *, who: str) -> None:
    """Checks what the declaration says against what the source says.

    Args:
        who: who says it, for the message: `the Hub`, `the file`.

    Raises:
        ContentMismatch: sha256 or size differ.
    """
    sha256, size = declared(request)
    hint = "correct the declaration, or find out why the content is another one"
    if sha256 and actual.sha256 and sha256 != actual.sha256:
        cause = f"declared sha256 {sha256}, {who} has {actual.sha256}"
        raise ContentMismatch(f"{shown(request.uri)} is not what is declared", cause=cause, hint=hint)
    if size is not None and actual.size is not None and size != actual.size:
        cause = f"declared {size} bytes, {who} has {actual.size}"
        raise ContentMismatch(f"{shown(request.uri)} is not what is declared", cause=cause, hint=hint)


def verified(chunks: Iterable[bytes], content: Content, *, what: str) -> Iterator[bytes]:
    """`chunks` as they are, hashed on the way; complete content only, from byte 0.

    sha256 decides where it is known, else git's blob id (SHA-1 over `blob <size>\\0` and the bytes).

    Raises:
        ContentMismatch: after the last chunk, or as soon as there are too many bytes.
    """
    if content.sha256 is None and content.size is None:
        raise SourceError(
            f"{what} cannot be verified",
            cause="its pin has neither a sha256 nor a size",
            hint="declare its sha256, or lock it again with 'layerbuild lock --update NAME'",
        )
    digest = hashlib.sha256() if content.sha256 else _git_blob_hasher(content.size or 0)
    seen = 0
    for chunk in chunks:
        seen += len(chunk)
        if content.size is not None and seen > content.size:
            raise mismatch(what, f"more than {content.size} bytes came")
        digest.update(chunk)
        yield chunk
    if content.size is not None and seen != content.size:
        raise mismatch(what, f"{seen} bytes came, {content.size} are pinned")
    expected = content.sha256 or content.git_blob
    if digest.hexdigest() != expected:
        raise mismatch(what, f"{digest.name} {digest.hexdigest()} came, {expected} is pinned")


def _git_blob_hasher(size: int) -> hashlib._Hash:
    return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)


def mismatch(what: str, cause: str) -> ContentMismatch:
    """The error for bytes that are not what was pinned."""
    return ContentMismatch(
        f"{what} is not what was pinned",
        cause=cause,
        hint="if it was changed on purpose, pin it anew: layerbuild lock --update NAME",
    )


def select(names: Sequence[str], patterns: Sequence[str] | None, *, what: str) -> list[str]:
    """The `names` that `patterns` choose, in the order of their bytes.

    A pattern is an exact name, or a shell glob whose `*` also matches `/` (as huggingface_hub's
    `allow_patterns`). `!pattern` takes names away, wherever it stands. With negated patterns only,
    everything else is chosen.

    Raises:
        NotFound: a pattern that is not negated chooses nothing.
    """
    known = set(names)
    wanted = [p for p in patterns or () if not p.startswith("!")]
    unwanted = [p[1:] for p in patterns or () if p.startswith("!")]
    chosen = set(names) if patterns is None or (unwanted and not wanted) else set[str]()
    missing = []
    for pattern in wanted:
        # An exact name comes first: names with brackets exist, and are not globs.
        found = {pattern} if pattern in known else {n for n in names if fnmatchcase(n, pattern)}
        chosen |= found
        if not found:
            missing.append(pattern)
    if missing:
        raise not_in(what, missing, names)
    chosen = {n for n in chosen if not any(n == p or fnmatchcase(n, p) for p in unwanted)}
    return sorted(chosen, key=lambda name: name.encode(errors="surrogateescape"))


def not_in(what: str, missing: Sequence[str], names: Sequence[str]) -> NotFound:
    """The error for names that `what` lacks, with those of its `names` that look similar."""
    similar = {s: None for m in missing[:20] for s in difflib.get_close_matches(m, names[:5000], n=3, cutoff=0.5)}
    if similar:
        hint = "did you mean " + ", ".join(similar) + "?"
    else:
        hint = f"it has {len(names)} files, e.g. " + ", ".join(list(names)[:5]) if names else "it has no files"
    return NotFound(f"{what} has no {', '.join(missing[:20])}", hint=words(hint, limit=600))


def words(text: str, *, limit: int = 300) -> str:
    """What somebody else said, fit for a terminal: printable, one line, of bounded length."""
    flat = "".join(c if c.isprintable() else " " for c in text[: 4 * limit])
    flat = " ".join(flat.split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"


def shown(uri: str) -> str:
    """`uri` as it may be shown, whatever its scheme: no user info, no query, nothing unprintable."""
    scheme, colon, rest = uri.partition("://")
    if not colon:
        return words(uri)
    if scheme.lower() in ("http", "https"):
        return words(addresses.redact(uri))
    host, slash, path = rest.partition("/")
    if scheme.lower().startswith("git+") or scheme.lower() == "oci":
        host = host.rpartition("@")[2]
    return words(f"{scheme}://{host}{slash}{path}")
