"""One upload after as many tries as it takes: nothing is sent twice that a registry says it has kept."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace

from layerbuild import http
from layerbuild.errors import ContentMismatch, DestinationDown, DestinationError, LoginRequired
from layerbuild.registry import answers
from layerbuild.registry.chunks import ChunkSteps
from layerbuild.registry.sending import Outgoing, SendFailed, Upload, UploadSession, session_at
from layerbuild.registry.sessions import Forgetful, HeldSession
from layerbuild.registry.steps import Broken
from layerbuild.wire import is_count

NOWHERE = Forgetful()

_FURTHER = 1024 * 1024
"""Bytes that a try must bring an upload further to be no failure."""


class Tries(ChunkSteps):
    """A registry that uploads are tried at until they are done."""

    def _tried(
        self,
        blob: Outgoing,
        once: Callable[[Upload], str],
        *,
        session: UploadSession | None = None,
        memory: HeldSession = NOWHERE,
    ) -> str:
        """Calls `once`, which carries on the upload that it is given, until it works: what it returns.

        Args:
            session: for the first try.
            memory: knows the session of an earlier process, which is better than `session`.
        """
        try:
            with contextlib.closing(blob.window):
                return self._until_done(blob, once, session, memory)
        except BaseException:
            blob.sent.rewind(0)
            raise

    def _until_done(
        self, blob: Outgoing, once: Callable[[Upload], str], session: UploadSession | None, memory: HeldSession
    ) -> str:
        upload, patience = self._first(blob, session, memory), _Patience(self._client.policy.retries)
        while True:
            blob.sent.rewind(upload.kept)
            memory.put(upload.session.location)
            with self._leaving(blob, upload, memory):
                try:
                    return once(upload)
                except Broken as failed:
                    broken = failed
            if not broken.otherwise and (patience.ended or broken.wait > http.LONGEST_WAIT):
                self._leave(blob, upload, memory, resumable=not broken.lost)
                raise broken.failure from None
            with self._leaving(blob, upload, memory):
                if not broken.otherwise:
                    self._client.pause(patience.attempt, least=broken.wait)
                    digest = broken.digest or blob.digest
                    if digest and self.head_blob(blob.repository, digest) == blob.size:
                        blob.sent.rewind(blob.size)
                        return digest
                upload = self._next(blob, upload, broken, patience)

    @contextlib.contextmanager
    def _leaving(self, blob: Outgoing, upload: Upload, memory: HeldSession) -> Iterator[None]:
        """Gives the upload up where an error ends this run's part in it."""
        try:
            yield
        except BaseException as error:
            self._leave(blob, upload, memory, resumable=_may_go_on(error))
            if isinstance(error, SendFailed):
                raise error.failure from None
            raise

    def _first(self, blob: Outgoing, session: UploadSession | None, memory: HeldSession) -> Upload:
        upload = self._remembered(blob, memory)
        if upload is None:
            return Upload(session=session or self.open_upload(blob.repository))
        if session is not None:
            self.cancel_upload(blob.repository, session)
        return upload

    def _remembered(self, blob: Outgoing, memory: HeldSession) -> Upload | None:
        """The upload that an earlier process was at, as far as the registry still has it."""
        location = memory.get()
        if location is None:
            return None
        try:
            session = session_at(self._base, location, host=self.host)
        except DestinationError:
            return None
        return self._continued(blob.repository, session, blob.size)

    def _next(self, blob: Outgoing, upload: Upload, broken: Broken, patience: _Patience) -> Upload:
        """What is tried after a try of `upload` that failed: the same session from where it is, else a new one."""
        found = None if broken.lost else self._continued(blob.repository, upload.session, blob.size)
        kept = found.kept if found else 0
        if broken.otherwise and kept == upload.kept:
            again = found or Upload(session=self._anew(blob, upload))
            return replace(again, longest=upload.longest, ends=broken.ends)
        patience.count(kept)
        return found or Upload(session=self._anew(blob, upload))

    def _anew(self, blob: Outgoing, upload: Upload) -> UploadSession:
        self.cancel_upload(blob.repository, upload.session)
        return self.open_upload(blob.repository)

    def _leave(self, blob: Outgoing, upload: Upload, memory: HeldSession, *, resumable: bool) -> None:
        """Gives an upload up: for the next run to go on with where that is possible, else for good."""
        if not resumable or memory.get() is None:
            self.cancel_upload(blob.repository, upload.session)
            memory.drop()

    def head_blob(self, repository: str, digest: str) -> int | None:
        """Bytes of a blob, or None if the repository lacks it.

        Raises:
            DestinationError: the registry does not tell.
        """
        response = self._call("HEAD", f"{repository}/blobs/{digest}")
        if response.status_code == 404:
            answers.finish(response)
            return None
        self._expect(response, (200,), f"look for {digest} in {repository}")
        size = response.headers.get("Content-Length", "")
        answers.finish(response)
        # Not every proxy lets the length of an answer without a body through.
        return int(size) if is_count(size) else self._size_by_range(repository, digest)

    def _size_by_range(self, repository: str, digest: str) -> int | None:
        """As `head_blob`, by asking for the first byte (RFC 9110, 14.4)."""
        response = self._call("GET", f"{repository}/blobs/{digest}", headers={"Range": "bytes=0-0"})
        if response.status_code == 404:
            answers.read_refusal(response, self._logins.scrub)
            return None
        self._expect(response, (200, 206, 416), f"look for {digest} in {repository}")
        name = "Content-Length" if response.status_code == 200 else "Content-Range"
        size = response.headers.get(name, "").rpartition("/")[2]
        response.close()
        if not is_count(size):
            raise DestinationError(
                f"the registry {self.host} does not tell the size of {digest} in {repository}",
                hint="run the command again; if it stays so, a proxy before the registry is at fault",
            )
        return int(size)


class _Patience:
    """Tries that are left. Those that bring an upload further do not count."""

    def __init__(self, retries: int) -> None:
        self.attempt = 0
        self._retries = retries
        self._furthest = 0

    @property
    def ended(self) -> bool:
        """Whether no try is left."""
        return self.attempt >= self._retries

    def count(self, kept: int) -> None:
        """One more, after which the registry has `kept` bytes."""
        self.attempt += 1
        if kept >= self._furthest + _FURTHER:
            self.attempt, self._furthest = 0, kept


def _may_go_on(error: BaseException) -> bool:
    """Whether another run can carry on the upload that ended so: it was interrupted, or nothing of it is wrong."""
    if isinstance(error, SendFailed):
        return not isinstance(error.failure, ContentMismatch)
    return isinstance(error, LoginRequired | DestinationDown) or not isinstance(error, Exception)
