"""One bare repository per address, in the store's cache, and what git itself knows of a commit.

A commit counts as present when `refs/layerbuild/COMMIT` points at it: git writes a ref only after
everything below it has arrived and been checked. Several processes may use one repository: fetching
holds a lock, which the git command inherits, so that it outlives a parent that was killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO

from layerbuild.errors import NotFound, SourceError, StoreError
from layerbuild.model import Content, sha256_hex
from layerbuild.sources import gitmodules
from layerbuild.sources.base import Context, is_hex, mismatch, require_online, verified
from layerbuild.sources.gitcommand import Failure, Git
from layerbuild.wire import BLOCK

# A file transport runs this by a shell, without our environment's configuration: whose the
# repository is does not matter to someone who only reads it.
_UPLOAD_PACK = "--upload-pack=git -c 'safe.directory=*' upload-pack"

_NOT_ADVERTISED = re.compile("unadvertised|dumb http|shallow capabilities|did not send all", re.IGNORECASE)


class GitCache:
    """A remote repository and its local copy.

    Args:
        url: as git takes it: https://, http:// or file://.
        what: its name in messages.
    """

    def __init__(self, context: Context, url: str, what: str) -> None:
        self._context = context
        self._url = url
        self._what = what
        self._directory = context.cache / "git" / cache_name(url)
        self._protocol = url.partition(":")[0]
        self._transport = (_UPLOAD_PACK,) if self._protocol == "file" else ()

    def look_up(self, ref: str) -> str:
        """The commit that a branch, a tag or a full ref name points at on the server; tags are peeled.

        Raises:
            NotFound: there is no such ref, or no such repository.
            Unreachable, AccessDenied, SourceError: the server cannot be asked; two refs have that name.
        """
        require_online(self._context, f"{self._what}: where {ref} is")
        names = [ref] if ref == "HEAD" or ref.startswith("refs/") else [f"refs/heads/{ref}", f"refs/tags/{ref}"]
        patterns = [pattern for name in names for pattern in (name, name + "^{}")]
        git = Git(self._context.environ, protocol=self._protocol)
        output = git.run("ls-remote", "--quiet", *self._transport, "--", self._url, *patterns)
        if isinstance(output, Failure):
            raise output.error(f"{self._what} cannot be read")
        lines = (line.partition("\t") for line in output.decode(errors="replace").splitlines())
        ids = {name: commit for commit, _, name in lines}
        found = {ids.get(name + "^{}", ids[name]) for name in names if name in ids}
        if not found:
            hint = "check the name; a commit is written with all of its 40 digits"
            raise NotFound(f"{self._what} has no branch or tag {ref}", hint=hint)
        commit = found.pop()
        if found:
            hint = f"write refs/heads/{ref} or refs/tags/{ref}"
            raise SourceError(f"{self._what} has a branch and a tag {ref}, at different commits", hint=hint)
        if not is_hex(commit, 40):
            raise SourceError(
                f"{self._what}: git answers {commit[:80]!r}",
                cause="that is no SHA-1 object id",
                hint="use a repository of git with SHA-1 object ids",
            )
        return commit

    def ensure(self, commit: str) -> None:
        """Makes `commit` present, without the network if it is already.

        Raises:
            NotFound, Unreachable, AccessDenied, SourceError: it cannot be fetched, or git refuses it.
        """
        if self.has(commit):
            return
        require_online(self._context, f"{self._what}: commit {commit}")
        with self._locked() as lock, self._context.progress.task(f"fetching {self._what}"):
            if self.has(commit):
                return
            git = Git(self._context.environ, str(self._directory), protocol=self._protocol, inherit=[lock])
            self._remove_leftovers()
            _must(git.run("init", "--quiet", "--bare", "--template=", "--object-format=sha1", str(self._directory)))
            self._fetch(git, commit)
            kind = git.run("cat-file", "-t", commit)
            if kind != b"commit\n":
                cause = "the server has no such object" if isinstance(kind, Failure) else "it is no commit"
                hint = "check the commit; it may have been removed by a rewrite of the history"
                raise NotFound(f"{self._what} has no commit {commit}", cause=cause, hint=hint)
            _must(git.run("update-ref", _marker(commit), commit))

    def tree(self, commit: str) -> str:
        """Id of the commit's tree."""
        return _must(self._local().run("rev-parse", "--verify", f"{commit}^{{tree}}")).decode().strip()

    def date(self, commit: str) -> int:
        """When it was committed, in Unix seconds; 0 for a commit that claims a time before 1970."""
        text = _must(self._local().run("show", "--no-patch", "--format=%ct", commit)).decode().strip()
        return int(text) if text.isdigit() else 0

    def list_tree(self, commit: str) -> bytes:
        """`git ls-tree -r -l -z` of the commit's whole tree."""
        return _must(self._local().run("ls-tree", "-r", "-l", "-z", "--full-tree", commit, limit=256 * 1024 * 1024))

    def submodules(self, commit: str) -> bytes:
        """What the commit's `.gitmodules` says of paths and addresses, as `git config --null` lists it.

        Git reads it as a configuration file without includes; empty where it has none.
        """
        listed = self._local().run(
            *("config", f"--blob={commit}:{gitmodules.NAME}", "--null", "--no-includes"),
            *("--get-regexp", r"^submodule\..*\.(path|url)$"),
        )
        return b"" if isinstance(listed, Failure) else listed

    def blobs(self, blobs: Sequence[Content]) -> Iterator[tuple[Content, Iterator[bytes]]]:
        """Contents of blobs, in the order asked for, by one `git cat-file --batch`.

        Each iterator must be used before the next pair is taken; what is left of it is skipped.

        Raises:
            SourceError: a blob is not there.
            ContentMismatch: a blob is not what its id says (a damaged cache), or has another size.
        """
        with self._local().start("cat-file", "--batch", stdin=subprocess.PIPE) as (process, failure):
            assert process.stdin is not None and process.stdout is not None
            for content in blobs:
                with contextlib.suppress(BrokenPipeError):
                    os.write(process.stdin.fileno(), f"{content.git_blob}\n".encode())
                header = process.stdout.readline(256).decode("ascii", "replace").split()
                if not header:
                    process.wait()
                    raise failure().error(f"{self._what}: git cannot read blob {content.git_blob}")
                chunks = self._blob(process.stdout, content, header)
                yield content, chunks
                for _ in chunks:
                    pass
            process.stdin.close()

    def _blob(self, stream: IO[bytes], content: Content, header: Sequence[str]) -> Iterator[bytes]:
        what = f"{self._what}: blob {content.git_blob}"
        if len(header) != 3 or header[0] != content.git_blob or header[1] != "blob":
            raise SourceError(
                f"{what} is not there",
                cause=f"git says {' '.join(header)[:100]!r}",
                hint="run 'layerbuild lock --update NAME': the tree may have been changed on its server",
            )
        size = int(header[2])
        if content.size is not None and content.size != size:
            raise mismatch(what, f"it has {size} bytes, {content.size} are pinned")
        yield from verified(_exactly(stream, size), Content(size=size, git_blob=content.git_blob), what=what)
        stream.read(1)

    def _local(self) -> Git:
        return Git(self._context.environ, str(self._directory))

    def has(self, commit: str) -> bool:
        """Whether `commit` is here."""
        if not self._context.present(self._directory / "HEAD"):
            return False
        return self._local().run("rev-parse", "--quiet", "--verify", _marker(commit)) == f"{commit}\n".encode()

    def _fetch(self, git: Git, commit: str) -> None:
        """Fetches this commit alone where the server lets it, else all branches and tags."""
        common = ("fetch", "--quiet", "--no-write-fetch-head", "--no-recurse-submodules", "--no-auto-maintenance")
        answer = git.run(*common, "--no-tags", "--depth=1", *self._transport, "--", self._url, commit)
        if not isinstance(answer, Failure):
            return
        if not _NOT_ADVERTISED.search(answer.said):
            raise answer.error(f"{self._what} cannot be fetched")
        # What was cut off by an earlier fetch of one commit has to be completed, or the wanted one may lie behind.
        whole = ("--unshallow",) if (self._directory / "shallow").exists() else ()
        refs = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
        answer = git.run(*common, "--force", *whole, *self._transport, "--", self._url, *refs)
        if isinstance(answer, Failure):
            raise answer.error(f"{self._what} cannot be fetched")

    def _remove_leftovers(self) -> None:
        """What a killed git left behind. Nobody else is at work here: we hold the lock."""
        for pattern in ("*.lock", "refs/**/*.lock", "objects/pack/tmp_*"):
            for path in self._directory.glob(pattern):
                path.unlink(missing_ok=True)

    @contextmanager
    def _locked(self) -> Iterator[int]:
        path = self._directory.with_suffix(".lock")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StoreError(
                "the store's git cache cannot be written", cause=error.strerror, hint="check its owner and free space"
            ) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        finally:
            os.close(descriptor)


def cache_name(url: str) -> str:
    """The directory below the cache's `git/` that copies the repository at `url`."""
    return sha256_hex(url.encode())


def _marker(commit: str) -> str:
    return f"refs/layerbuild/{commit}"


def _must(output: bytes | Failure) -> bytes:
    """For commands that fail only if this machine's cache is unusable."""
    if isinstance(output, Failure):
        raise StoreError(
            "the store's git cache cannot be used",
            cause=output.said,
            hint="check free space; a damaged cache can be deleted, it is fetched again",
        )
    return output


def _exactly(stream: IO[bytes], size: int) -> Iterator[bytes]:
    left = size
    while left and (block := stream.read(min(BLOCK, left))):
        left -= len(block)
        yield block
