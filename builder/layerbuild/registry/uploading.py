"""Blobs on their way to a registry: what is there, what can be mounted, and uploads (distribution-spec 1.1, "Push")."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote, urlencode

from layerbuild import http
from layerbuild.errors import DestinationError, LayerbuildError, LoginRequired, Unreachable
from layerbuild.model import Readable
from layerbuild.registry import answers
from layerbuild.registry.exchange import Exchange
from layerbuild.registry.sending import Counter, Mount, SendFailed, UploadSession, checked, session_at, shielded


class Uploads(Exchange):
    """A registry that blobs can be put into."""

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
        """Gives a session back. Registries drop forgotten ones by themselves, so a refusal is no error."""
        response = self.do_request(session.location, "DELETE", scopes=_push(repository))
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
            DestinationError: the registry is down, or refuses.
            LayerbuildError: whatever reading `blob` raises.
        """
        last = self._client.policy.retries
        for attempt in range(last + 1):
            started, session = session or self._start(repository), None
            sent = Counter(advance)
            try:
                refusal = self._put(repository, blob, started, sent)
                if refusal is None:
                    return
                failure: LayerbuildError = self._refused(refusal, f"store {blob.digest} in {repository}")
                # 404: the session has gone
                again = refusal.status in http.RETRIED or refusal.status == 404
            except SendFailed as error:
                sent.take_back()
                raise error.failure from None
            except Unreachable as error:
                failure, again = answers.unreachable(self.host, error), True
            sent.take_back()
            if not again or attempt == last:
                raise failure
            self._client.pause(attempt)
            if self.head_blob(repository, blob.digest) == blob.size:
                advance(blob.size)
                return

    def _start(self, repository: str) -> UploadSession:
        response = self._call("POST", f"{repository}/blobs/uploads/")
        self._expect(response, (202,), f"take an upload to {repository}")
        url, location = response.url, response.headers.get("Location")
        answers.finish(response)
        return session_at(url, location, host=self.host)

    def _put(self, repository: str, blob: Readable, session: UploadSession, sent: Counter) -> answers.Refusal | None:
        """One try. What the registry said if it did not take the blob."""

        def body() -> http.Body | bytes:
            sent.take_back()
            pieces = shielded(checked(blob, sent))
            # A body of no length would be sent in chunks.
            return http.Body(pieces, blob.size) if blob.size else b"".join(pieces)

        url = session.location
        url += f"{'&' if '?' in url else '?'}digest={quote(blob.digest, safe='')}"
        headers = {"Content-Type": "application/octet-stream"}
        # A broken upload needs a new session: sending it again to this one would not help.
        response = self._exchange("PUT", url, data=body, headers=headers, scopes=_push(repository), retries=0)
        if response.status_code in (201, 204):
            answers.finish(response)
            return None
        return answers.read_refusal(response, self._logins.scrub)


def _push(repository: str) -> tuple[str, ...]:
    return (f"repository:{repository}:pull,push",)
