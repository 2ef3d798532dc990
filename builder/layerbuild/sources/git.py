"""`git+https://`, `git+file:` and, for loopback hosts, `git+http://`: the tree of a commit.

    git+https://HOST/REPO@REV       git+file:///PATH@REV       git+file:RELATIVE@REV

REV is a commit (40 digits), a branch, a tag, a full ref name or HEAD; it stands after the last `@`.
The pin is the commit, its tree and the digest of the listing; blobs are taken raw: no autocrlf, no
filters, no export-ignore. Objects are verified by git as they arrive, so a commit may come from any
mirror; what a branch or a tag means is asked of the address itself only.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from layerbuild.errors import SourceError
from layerbuild.model import Content, Pin, PinnedFile, canonical_json, sha256_hex
from layerbuild.sources import gitmodules, gittree
from layerbuild.sources.base import Context, Request, declared, is_hex, mismatch, shown
from layerbuild.sources.gitcache import GitCache, cache_name
from layerbuild.sources.gitmodules import Submodule
from layerbuild.wire import is_loopback

# git-check-ref-format(1), and no leading dash.
_REF = re.compile(r"(?!-|/|.*(?:\.\.|@\{|//|/\.))[^\x00-\x20\x7f~^:?*\[\\]+(?<![/.])")


@dataclass(frozen=True, kw_only=True)
class Address:
    """A parsed git URI. `repository` is the part before the `@`, as written."""

    repository: str
    url: str
    revision: str


class GitSource:
    """Reads git repositories through the git command and a cache of bare ones."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def resolve(self, request: Request) -> Pin:
        """See `Source.resolve`. The commit is fetched: only then are tree and listing known.

        Raises:
            NotFound, AccessDenied, Unreachable: of the repository, the ref or the commit.
            SourceError: a tree that no layer may hold, or an address that is not one.
        """
        # What is no address is told before anything is asked.
        for mirror in request.mirrors:
            _url(mirror, mirror, self._context.project)
        address = self._parse(request.uri)
        if request.files is not None or request.absent or declared(request) != (None, None):
            raise SourceError(
                f"{shown(request.uri)} is a git tree",
                cause="`files`, `absent`, `sha256` and `size` do not apply to one: its commit names all of it",
                hint="remove them from the declaration",
            )
        revision = address.revision
        commit = revision if is_hex(revision, 40) else self._look_up(address, mirrored=bool(request.mirrors))
        cache = self._fetched(address, commit, request.mirrors)
        listing = self._listing(cache, commit, request, shown(address.repository))
        return Pin(
            source=f"{address.repository}@{commit}",
            revision=commit,
            ref=revision if revision != commit else None,
            tree=cache.tree(commit),
            listing=sha256_hex(listing),
            date=cache.date(commit),
            mirrors=request.mirrors,
        )

    def _look_up(self, address: Address, *, mirrored: bool) -> str:
        try:
            return GitCache(self._context, address.url, shown(address.repository)).look_up(address.revision)
        except SourceError as error:
            if not mirrored:
                raise
            # A mirror is believed about bytes that have their own name, and about nothing else.
            hint = f"write the commit instead of {address.revision}: that a mirror can give"
            raise type(error)(error.message, cause=error.cause, hint=hint) from None

    def listing(self, pin: Pin) -> bytes:
        """Canonical JSON of the pinned tree: a list, sorted by the paths' bytes, of objects with
        `path`, `mode` (100644, 100755 or 120000), `blob`, `size` in bytes, and for links `target`.

        Raises:
            ContentMismatch: it is not what was pinned.
            SourceError: the commit is not here and cannot be fetched.
        """
        cache, commit, what = self._open(pin)
        if pin.tree is not None and cache.tree(commit) != pin.tree:
            raise mismatch(what, f"the commit's tree is {cache.tree(commit)}, {pin.tree} is pinned")
        # Whoever pinned this listing has accepted what it leaves out.
        everything = Request(uri=pin.source, submodules=("*",), lfs_pointers=("*",))
        listing = self._listing(cache, commit, everything, what)
        if pin.listing is not None and sha256_hex(listing) != pin.listing:
            raise mismatch(what, f"the listing's sha256 is {sha256_hex(listing)}, {pin.listing} is pinned")
        return listing

    def submodules(self, pin: Pin, patterns: tuple[str, ...]) -> list[Submodule]:
        """The submodules of the pinned tree that `patterns` choose, each with its commit.

        Raises:
            SourceError: one comes from where nobody may look.
        """
        cache, commit, what = self._open(pin)
        tree = gittree.parse(cache.list_tree(commit), what=what)
        commits = {path: c for path, c in tree.submodules.items() if gittree.matches(path, patterns)}
        listed = next((e for e in tree.entries if e.path == gitmodules.NAME), None)
        if listed is not None and listed.size > gitmodules.LARGEST:
            raise SourceError(
                f"{what} has a {gitmodules.NAME} of {listed.size} bytes", hint="do not use this repository"
            )
        urls = gitmodules.addresses(cache.submodules(commit), what=what) if commits and listed else {}
        parent = self._parse(pin.source).repository
        return list(gitmodules.chosen(commits, urls, parent, what=what))

    def open_many(self, pin: Pin, blobs: Sequence[Content]) -> Iterator[tuple[Content, Iterator[bytes]]]:
        """Contents of blobs, named by `git_blob`, in the order asked for, by one git process.

        Each iterator must be used before the next pair is taken; every blob is checked by its id.

        Raises:
            ContentMismatch: the cache is damaged.
            SourceError: a blob is not in the repository, or the commit cannot be fetched.
        """
        cache, _, what = self._open(pin)
        for content in blobs:
            if not is_hex(content.git_blob, 40):
                raise SourceError(
                    f"{what}: no blob id is known for {content.id}",
                    hint="run 'layerbuild lock --update NAME' to pin the tree anew",
                )
        return cache.blobs(blobs)

    def open(self, pin: Pin, file: PinnedFile, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """See `Source.open`. For many blobs `open_many` is faster."""
        for _, chunks in self.open_many(pin, [file.content]):
            position = 0
            for chunk in chunks:
                start = max(0, offset - position)
                stop = len(chunk) if length is None else min(len(chunk), offset + length - position)
                position += len(chunk)
                if start < stop:
                    yield chunk[start:stop]

    def read_text(self, pin: Pin, path: str, *, limit: int) -> str | None:
        """The first `limit` bytes of a text file of the tree; None if there is no such regular file."""
        for item in json.loads(self.listing(pin)):
            if item["path"] == path and item["mode"] != "120000":
                file = PinnedFile(path=path, content=Content(size=item["size"], git_blob=item["blob"]))
                data = b"".join(self.open(pin, file, length=limit))
                return data.decode("utf-8", errors="replace")
        return None

    def _open(self, pin: Pin) -> tuple[GitCache, str, str]:
        address = self._parse(pin.source)
        what = shown(address.repository)
        if not is_hex(address.revision, 40) or pin.revision not in (None, address.revision):
            raise SourceError(f"{what}: the lock names no commit for it", hint="layerbuild lock --update NAME")
        return self._fetched(address, address.revision, pin.mirrors), address.revision, what

    def _fetched(self, address: Address, commit: str, mirrors: Sequence[str]) -> GitCache:
        """A local repository that has `commit`: of the address, else of the first mirror that can give it.

        Raises:
            SourceError: nobody can. It is the error of the address, with what the mirrors said.
        """
        named = [(address.url, address.repository), *((_url(m, m, self._context.project), m) for m in mirrors)]
        caches = [(GitCache(self._context, url, shown(name)), shown(name)) for url, name in named]
        for cache, _ in caches:
            if cache.has(commit):
                return cache
        failed: list[SourceError] = []
        for cache, name in caches:
            try:
                cache.ensure(commit)
            except SourceError as error:
                failed.append(error)
                continue
            if failed:
                self._context.progress.note(f"{shown(address.repository)}: commit {commit} was had from {name}")
            return cache
        raise _nobody(failed)

    @staticmethod
    def _listing(cache: GitCache, commit: str, request: Request, what: str) -> bytes:
        def read(entries: list[gittree.TreeEntry]) -> dict[str, bytes]:
            wanted = {e.blob: Content(size=e.size, git_blob=e.blob) for e in entries}
            return {c.git_blob or "": b"".join(chunks) for c, chunks in cache.blobs(list(wanted.values()))}

        tree = gittree.parse(cache.list_tree(commit), what=what)
        gittree.refuse_submodules(tree, request.submodules, what=what)
        document = gittree.document(tree.entries, read, what=what, lfs_pointers=request.lfs_pointers)
        return canonical_json(document).encode()

    def _parse(self, uri: str) -> Address:
        repository, at, revision = uri.rpartition("@")
        if not at:
            raise _malformed(uri, "it names no revision")
        if is_hex(revision.lower(), 40):
            revision = revision.lower()
        elif not _REF.fullmatch(revision) or len(revision) > 255:
            raise _malformed(uri, "what follows the @ is no commit, branch or tag")
        return Address(repository=repository, url=_url(uri, repository, self._context.project), revision=revision)


def cache_names(pin: Pin, project: Path) -> list[str]:
    """Directories of the store's `git/` that the pin of a tree may be read from: its address's, its mirrors'."""
    repositories = [pin.source.rpartition("@")[0], *pin.mirrors]
    return [cache_name(_url(repository, repository, project)) for repository in repositories]


def _nobody(failed: Sequence[SourceError]) -> SourceError:
    """The first error, which is the address's own, with what its mirrors said."""
    first, *others = failed
    if not others:
        return first
    cause = "; ".join([first.cause or first.message, *(f"{e.message} ({e.cause})" for e in others)])
    return type(first)(first.message, cause=cause, hint="name another mirror of it under 'mirrors'")


def _url(uri: str, repository: str, project: Path) -> str:
    """The address of the repository that `uri` names, as git takes it."""
    scheme, _, rest = repository.partition(":")
    scheme = scheme.lower().removeprefix("git+")
    if not repository.isprintable() or (" " in repository and scheme != "file"):
        raise _malformed(uri, "it has a space or a control character")
    if scheme not in ("file", "http", "https") or not repository.lower().startswith("git+"):
        raise _malformed(uri, "it is not a git+https://, git+http:// or git+file: address")
    if scheme == "file":
        if rest.startswith("//") and not rest.startswith("///"):
            raise _malformed(uri, "it names another machine")
        return "file://" + quote(os.fsencode((project / rest.removeprefix("//")).absolute()))
    try:
        parts = urlsplit(f"{scheme}:{rest}")
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise _malformed(uri, "it cannot be parsed") from None
    if not host or host.startswith("-") or parts.query or parts.fragment or not parts.path.strip("/"):
        raise _malformed(uri, "it names no repository on a host")
    if "@" in parts.netloc:
        raise SourceError(
            f"{shown(uri)} has a user name in it",
            cause="declarations and locks are shared, passwords are not",
            hint="use the address of a public repository, or git+file: for a clone that you have",
        )
    if scheme == "http" and not is_loopback(host):
        raise SourceError(
            f"{shown(uri)} is not encrypted",
            cause="git+http is for this machine only: a branch's answer could be anybody's",
            hint="use git+https",
        )
    return f"{scheme}:{rest}"


def _malformed(uri: str, cause: str) -> SourceError:
    return SourceError(
        f"{shown(uri)} is not an address of a git tree",
        cause=cause,
        hint="write git+https://HOST/REPO@COMMIT, or git+file:PATH@BRANCH for a clone on this machine",
    )
