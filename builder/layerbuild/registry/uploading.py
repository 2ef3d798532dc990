"""Blobs on their way to a registry: what is there, what can be mounted, and uploads (distribution-spec 1.1, "Push")."""

from __future__ import annotations

from collections.abc import Callable, Generator
from urllib.parse import urlencode

from layerbuild import http
from layerbuild.errors import DestinationError, DigestFirst, LoginRequired
from layerbuild.model import LARGE, Readable
from layerbuild.registry import answers
from layerbuild.registry.limits import too_large
from layerbuild.registry.sending import Counter, Mount, Proof, SendFailed, Upload, UploadSession, session_at
from layerbuild.registry.sessions import Forgetful, HeldSession
from layerbuild.registry.steps import Broken, UploadSteps, closing

_NONE = Forgetful()

_PATCHED = 64 * 1024 * 1024
"""Bytes from which on a blob goes by PATCH: before, what a break costs is not worth another request."""

_FURTHER = 1024 * 1024
"""Bytes that a try must bring an upload further to be no failure."""


class Uploads(UploadSteps):
    """A registry that blobs can be put into. See `exchange.Exchange` for what it is made of."""

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
        if not http.is_count(size):
            raise DestinationError(f"the registry {self.host} does not tell the size of {digest} in {repository}")
        return int(size)

    def mount_blob(self, repository: str, digest: str, source_repository: str) -> Mount:
        """Asks the registry to take a blob over from another of its repositories.

        Returns:
            A true `Mount`, or a false one, with the session that was opened instead, if any: pass
            it to `upload_blob` or to `cancel_upload`.
        """
        query = urlencode({"mount": digest, "from": source_repository})
        try:
            response = self._call("POST", f"{repository}/blobs/uploads/?{query}")
        except LoginRequired:
            # We may not be allowed to read the other repository, and still to upload to this one.
            return Mount(mounted=False)
        status, location = response.status_code, response.headers.get("Location")
        if status in (201, 202):
            url = response.url
            answers.finish(response)
            session = session_at(url, location, host=self.host) if status == 202 else None
            return Mount(mounted=status == 201, session=session)
        # Whatever stands in the way of an upload, too, is told by the upload.
        answers.read_refusal(response, self._logins.scrub)
        return Mount(mounted=False)

    def upload_blob(
        self,
        repository: str,
        blob: Readable,
        *,
        advance: Callable[[int], None],
        session: UploadSession | None = None,
    ) -> None:
        """Uploads a blob: POST, then one streamed PUT, which is what every registry takes.

        A large one goes by PATCH where that is taken: more registries keep what arrived of one that breaks.
        After a break the registry is asked what it has, and sent the rest; where it has nothing, all anew.

        Args:
            advance: told of bytes as they are sent; of a negative number when some are lost.
            session: one that a refused mount left.

        Raises:
            ContentMismatch: the bytes are not what `blob.digest` and `blob.size` say. The request is
                broken off before its end, so the registry keeps nothing.
            DestinationError: the registry is down, or refuses, or takes no blob of that size.
            LayerbuildError: whatever reading `blob` raises.
        """
        self._check_size(blob.size, blob.digest)
        # An address of no use is not worth a file.
        sessions = self._sessions if blob.size >= LARGE and self._continues else _NONE
        with sessions.held(self.host, repository, blob.digest) as memory:
            if memory.waited and self.head_blob(repository, blob.digest) == blob.size:
                advance(blob.size)
                if session is not None:
                    self.cancel_upload(repository, session)
            else:
                self._upload(repository, blob, advance, session, memory)
            memory.drop()

    def _upload(
        self,
        repository: str,
        blob: Readable,
        advance: Callable[[int], None],
        session: UploadSession | None,
        memory: HeldSession,
    ) -> None:
        action, proof = f"store {blob.digest} in {repository}", Proof(blob)

        def once(upload: Upload, sent: Counter) -> str:
            def pieces() -> Generator[bytes, None, None]:
                return proof.rest(sent, upload.kept)

            if upload.kept or (self._streams and blob.size > _PATCHED):
                self._patch(repository, upload, blob.size, pieces, sent, blob.digest)
                memory.put(upload.session.location)
                return self._name(upload, repository, blob.digest, action)
            response = self._send(
                "PUT", closing(upload.session, blob.digest), repository, upload, blob.size, pieces, sent
            )
            return self._stored(response, blob.digest, action)

        try:
            self._tried(repository, blob.size, once, advance, session=session, digest=blob.digest, memory=memory)
        except DigestFirst:  # learnt by a large one's first PATCH
            self._tried(repository, blob.size, once, advance, digest=blob.digest, memory=memory)

    def _tried(
        self,
        repository: str,
        size: int,
        once: Callable[[Upload, Counter], str],
        advance: Callable[[int], None],
        *,
        session: UploadSession | None = None,
        digest: str | None = None,
        memory: HeldSession = _NONE,
    ) -> str:
        """Calls `once`, which carries on the upload that it is given, until it works: what it returns.

        Tries that bring the upload further do not count.

        Args:
            session: for the first try.
            digest: of the blob, where it is known before it is sent.
            memory: knows the session of an earlier process, which is better than `session`.
        """
        sent, attempt, furthest = Counter(advance), 0, 0
        upload = self._remembered(repository, memory, size)
        if upload is None:
            upload = Upload(session=session or self.open_upload(repository))
        elif session is not None:
            self.cancel_upload(repository, session)
        sent.rewind(upload.kept)
        while True:
            memory.put(upload.session.location)
            try:
                return once(upload, sent)
            except Broken as broken:
                if attempt == self._client.policy.retries:
                    sent.rewind(0)
                    raise broken.failure from None
                digest, lost = broken.digest or digest, broken.lost
            except BaseException as error:
                sent.rewind(0)
                self.cancel_upload(repository, upload.session)
                memory.drop()
                if isinstance(error, SendFailed):
                    raise error.failure from None
                raise
            self._client.pause(attempt)
            attempt += 1
            if digest and self.head_blob(repository, digest) == size:
                sent.rewind(size)
                return digest
            found = None if lost else self._continued(repository, upload.session, size)
            if found is None:
                self.cancel_upload(repository, upload.session)
            elif found.kept >= furthest + _FURTHER:
                attempt, furthest = 0, found.kept
            upload = found or Upload(session=self.open_upload(repository))
            sent.rewind(upload.kept)

    def _remembered(self, repository: str, memory: HeldSession, size: int) -> Upload | None:
        """The upload that an earlier process was at, as far as the registry still has it."""
        location = memory.get()
        if location is None:
            return None
        try:
            session = session_at(self._base, location, host=self.host)
        except DestinationError:
            return None
        return self._continued(repository, session, size)

    def _check_size(self, size: int, title: str) -> None:
        if self._limits.largest is not None and size > self._limits.largest:
            raise too_large(self.host, title, size, self._limits.largest)
