"""Blobs on their way to a registry: what is there, what can be mounted, and uploads (distribution-spec 1.1, "Push")."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Mapping
from urllib.parse import quote, urlencode

import requests

from layerbuild import http
from layerbuild.errors import DestinationError, LayerbuildError, LoginRequired, Unreachable
from layerbuild.model import Readable
from layerbuild.registry import answers
from layerbuild.registry.exchange import Exchange
from layerbuild.registry.limits import limits_of
from layerbuild.registry.reference import is_digest
from layerbuild.registry.sending import (
    Counter,
    Mount,
    SendFailed,
    UploadSession,
    checked,
    session_at,
    shielded,
)


class Uploads(Exchange):
    """A registry that blobs can be put into. See `exchange.Exchange` for what it is made of."""

    def __init__(self, host: str, *, client: http.Client, environ: Mapping[str, str], insecure: bool = False) -> None:
        super().__init__(host, client=client, environ=environ, insecure=insecure)
        self._limits = limits_of(self.host)

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

    def cancel_upload(self, repository: str, session: UploadSession) -> None:
        """Gives a session back. Registries drop forgotten ones by themselves, so no failure of this is an error."""
        with contextlib.suppress(LayerbuildError):
            response = self._exchange("DELETE", session.location, scopes=push_scope(repository), retries=0)
            answers.read_refusal(response, self._logins.scrub)

    def upload_blob(
        self,
        repository: str,
        blob: Readable,
        *,
        advance: Callable[[int], None],
        session: UploadSession | None = None,
    ) -> None:
        """Uploads a blob: POST, then one streamed PUT, which is what every registry takes.

        A broken try is followed by another, in a session of its own and with the body opened anew.

        Args:
            advance: told of bytes as they are sent; of a negative number when a try is given up.
            session: one that a refused mount left.

        Raises:
            ContentMismatch: the bytes are not what `blob.digest` and `blob.size` say. The request is
                broken off before its end, so the registry keeps nothing.
            DestinationError: the registry is down, or refuses, or takes no blob of that size.
            LayerbuildError: whatever reading `blob` raises.
        """
        self._check_size(blob.size, blob.digest)
        action = f"store {blob.digest} in {repository}"

        def once(session: UploadSession, sent: Counter) -> str:
            url = closing(session, blob.digest)
            response = self._send("PUT", url, repository, blob.size, lambda: checked(blob, sent), sent)
            return self._stored(response, blob.digest, action)

        self._tried(repository, blob.size, once, advance, session=session, digest=blob.digest)

    def _tried(
        self,
        repository: str,
        size: int,
        once: Callable[[UploadSession, Counter], str],
        advance: Callable[[int], None],
        *,
        session: UploadSession | None = None,
        digest: str | None = None,
    ) -> str:
        """Calls `once`, which uploads to the session that it is given, until it works: what it returns.

        Args:
            session: for the first try; every other has one of its own.
            digest: of the blob, where it is known before it is sent.
        """
        last = self._client.policy.retries
        for attempt in range(last + 1):
            started, session = session or self._start(repository), None
            sent = Counter(advance)
            try:
                return once(started, sent)
            except Broken as broken:
                sent.take_back()
                if attempt == last:
                    raise broken.failure from None
                digest = broken.digest or digest
            except BaseException as error:
                sent.take_back()
                self.cancel_upload(repository, started)
                if isinstance(error, SendFailed):
                    raise error.failure from None
                raise
            self._client.pause(attempt)
            if digest and self.head_blob(repository, digest) == size:
                advance(size)
                return digest
            self.cancel_upload(repository, started)
        raise AssertionError("unreachable: the last try returns or raises")

    def _start(self, repository: str) -> UploadSession:
        response = self._call("POST", f"{repository}/blobs/uploads/")
        self._expect(response, (202,), f"take an upload to {repository}")
        url, location = response.url, response.headers.get("Location")
        answers.finish(response)
        return session_at(url, location, host=self.host)

    def _send(
        self,
        method: str,
        url: str,
        repository: str,
        size: int,
        pieces: Callable[[], Generator[bytes, None, None]],
        sent: Counter,
    ) -> requests.Response:
        """One request with a long body. It is not tried again: many registries lose a session that broke."""
        with contextlib.ExitStack() as opened:

            def body() -> http.Body | bytes:
                opened.close()
                sent.take_back()
                chunks = opened.enter_context(contextlib.closing(shielded(pieces())))
                # A body of no length would be sent in chunks.
                return http.Body(chunks, size) if size else b"".join(chunks)

            headers = {"Content-Type": "application/octet-stream"}
            try:
                return self._exchange(method, url, data=body, headers=headers, scopes=push_scope(repository), retries=0)
            except Unreachable as error:
                raise Broken(answers.broken_off(self.host, error)) from None

    def _stored(self, response: requests.Response, digest: str, action: str) -> str:
        """`digest`, if the answer to the PUT that ends an upload says that the blob is there."""
        if response.status_code not in (201, 204):
            raise self._failed(answers.read_refusal(response, self._logins.scrub), action, digest)
        said = response.headers.get("Docker-Content-Digest")
        answers.finish(response)
        if said and is_digest(said) and said != digest:
            raise DestinationError(
                f"the registry {self.host} did not {action}",
                cause=f"it says that the blob has the digest {said}",
                hint="the bytes changed while they were sent: run the command again, and check memory if it recurs",
            )
        return digest

    def _failed(self, refusal: answers.Refusal, action: str, digest: str | None = None) -> Broken | DestinationError:
        """What to raise after a refusal. `digest` is that of a blob that may be there all the same."""
        error = self._refused(refusal, action)
        # 404: the session has gone
        return Broken(error, digest) if refusal.status in http.RETRIED or refusal.status == 404 else error

    def _check_size(self, size: int, title: str) -> None:
        if self._limits.largest is not None and size > self._limits.largest:
            raise DestinationError(
                f"the registry {self.host} takes no layer as large as {title}",
                cause=f"it has {size} bytes, and the limit there is {self._limits.largest}",
                hint="push to another registry, or use a smaller version of that model (fp16, pruned)",
            )


class Broken(Exception):
    """A try that failed where another may do better. `digest` is that of the blob, where it is known by now."""

    def __init__(self, failure: DestinationError, digest: str | None = None) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.digest = digest


def closing(session: UploadSession, digest: str) -> str:
    """The address of the PUT that ends an upload."""
    return f"{session.location}{'&' if '?' in session.location else '?'}digest={quote(digest, safe='')}"


def push_scope(repository: str) -> tuple[str, ...]:
    """What uploads to `repository` need. The address of a session does not say it."""
    return (f"repository:{repository}:pull,push",)
