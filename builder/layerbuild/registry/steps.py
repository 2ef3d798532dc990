"""One try to upload a blob: sessions, bodies, and what is said of them (distribution-spec 1.1, "Push")."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterator, Mapping
from urllib.parse import quote

import requests

from layerbuild import http
from layerbuild.errors import DestinationError, LayerbuildError, Unreachable
from layerbuild.registry import answers
from layerbuild.registry.credentials import Credential
from layerbuild.registry.exchange import Exchange
from layerbuild.registry.manners import SHORTEST, Manners, Memory
from layerbuild.registry.reference import is_digest
from layerbuild.registry.sending import Outgoing, Upload, UploadSession, session_at, shielded, telling
from layerbuild.registry.sessions import Forgetful, Sessions

_RANGE = re.compile(r"(?:bytes[= ])?0-([0-9]{1,18})")

_FIRST_TRIED = 64 * 1024 * 1024
_FIRST_TRIED_LATER = 4 * 1024 * 1024

_NOT_SO = frozenset({400, 405, 411, 413, 415, 416, 501})
"""What is answered to the end of an upload that did not go as its registry would have it."""


class UploadSteps(Exchange):
    """A registry that upload sessions can be had from.

    Args:
        sessions: remembers them for other processes; None remembers none. See `exchange.Exchange` for the rest.
        memory: of what this registry takes; None forgets it with this object.
    """

    def __init__(
        self,
        host: str,
        *,
        client: http.Client,
        environ: Mapping[str, str],
        insecure: bool = False,
        login: Credential | None = None,
        sessions: Sessions | None = None,
        memory: Memory | None = None,
    ) -> None:
        super().__init__(host, client=client, environ=environ, insecure=insecure, login=login)
        self._sessions: Sessions = sessions or Forgetful()
        self.manners = Manners(self.host, memory)

    @property
    def streams(self) -> bool:
        """Whether it takes a blob before its digest is known, as far as that is known."""
        return self.manners.streams

    def cancel_upload(self, repository: str, session: UploadSession) -> None:
        """Gives a session back. Registries drop forgotten ones by themselves, so no failure of this is an error."""
        with contextlib.suppress(LayerbuildError):
            response = self._exchange("DELETE", session.location, scopes=push_scope(repository), retries=0)
            answers.read_refusal(response, self._logins.scrub)

    def open_upload(self, repository: str) -> UploadSession:
        """Begins an upload to `repository`. Pass it to `upload_blob`, or to `cancel_upload`.

        Raises:
            DestinationError: the registry takes none, from us or from anybody.
        """
        response = self._call("POST", f"{repository}/blobs/uploads/")
        self._expect(response, (202,), f"take an upload to {repository}")
        session = self._session_of(response)
        answers.drain(response)
        return session

    def _session_of(self, response: requests.Response) -> UploadSession:
        headers = response.headers
        least = headers.get("OCI-Chunk-Min-Length")
        return session_at(response.url, headers.get("Location"), host=self.host, least=least)

    def _moved(self, response: requests.Response, session: UploadSession) -> UploadSession:
        """Where an answer says that a session is now; where it says nothing, it has stayed."""
        if not response.headers.get("Location"):
            return session
        moved = self._session_of(response)
        return UploadSession(location=moved.location, least=moved.least or session.least)

    def _continued(self, repository: str, session: UploadSession, size: int) -> Upload | None:
        """How far a session has come by the registry's own word; None if nothing can be made of it."""
        if not self.manners.continues:
            return None
        try:
            response = self._exchange("GET", session.location, scopes=push_scope(repository))
            if response.status_code not in (200, 202, 204):
                answers.read_refusal(response, self._logins.scrub)
                return None
            session, said = self._moved(response, session), response.headers.get("Range", "")
            answers.drain(response)
        except LayerbuildError:
            return None
        match = _RANGE.fullmatch(said)
        kept = int(match[1]) + 1 if match else 0
        # "0-0" is what an empty session says, too.
        return Upload(session=session, kept=kept, resumed=True) if 1 < kept <= size else None

    def _check_kept(self, said: str, blob: Outgoing, stop: int) -> None:
        """Holds what the registry can have against what there is: one may answer before it was sent all."""
        match, sent = _RANGE.fullmatch(said), blob.sent.total  # some say one byte more, some nothing
        kept = min(sent, int(match[1]) + 1) if match else sent
        if kept < stop:
            raise Broken(
                DestinationError(
                    f"the registry {self.host} did not keep all of {blob.title}",
                    cause=f"it has {kept} of {stop} bytes, and says that this was all",
                    hint="run the command again, or ask whoever runs the registry",
                )
            )

    def _name(self, blob: Outgoing, upload: Upload, digest: str) -> str:
        """Names what a session holds. Nothing has to be sent for it, so it can be tried again by itself."""
        url = closing(upload.session, digest)
        try:
            response = self._exchange("PUT", url, data=b"", scopes=push_scope(blob.repository))
        except Unreachable as error:
            raise Broken(answers.broken_off(self.host, error), digest) from None
        return self._stored(response, blob, upload, digest)

    def _put(self, blob: Outgoing, upload: Upload, digest: str) -> str:
        """Sends what is missing, and names the whole."""
        url = closing(upload.session, digest)
        return self._stored(self._send("PUT", url, blob, upload, blob.size), blob, upload, digest)

    def _send(self, method: str, url: str, blob: Outgoing, upload: Upload, stop: int) -> requests.Response:
        """One request with the bytes that the registry lacks before `stop`. It is not tried again: what arrived
        is asked for first."""
        start = upload.kept
        with contextlib.ExitStack() as opened:

            def body() -> http.Body | bytes:
                opened.close()
                blob.sent.rewind(start)
                pieces = telling(shielded(blob.window.read(start, stop)), blob.sent)
                chunks: Iterator[bytes] = opened.enter_context(contextlib.closing(pieces))
                if start == stop:  # a body of no length would be sent in chunks
                    return b"".join(chunks)
                if start:  # what comes before is read now, and not while the registry waits
                    chunks = itertools.chain([next(chunks)], chunks)
                return http.Body(chunks, stop - start)

            headers = {"Content-Type": "application/octet-stream"}
            if start or stop < blob.size:
                headers["Content-Range"] = f"{start}-{stop - 1}"
            scopes = push_scope(blob.repository)
            try:
                return self._exchange(method, url, data=body, headers=headers, scopes=scopes, retries=0)
            except Unreachable as error:
                raise Broken(answers.broken_off(self.host, error)) from None

    def _stored(self, response: requests.Response, blob: Outgoing, upload: Upload, digest: str) -> str:
        """`digest`, if the answer to the PUT that ends an upload says that the blob is there."""
        named = blob.title if blob.digest else f"{blob.title} ({digest})"
        action = f"store {named} in {blob.repository}"
        if response.status_code not in (201, 204):
            wait = http.retry_after(response.headers.get("Retry-After"))
            refusal = answers.read_refusal(response, self._logins.scrub)
            if not upload.kept and refusal.status == 413 and self.manners.streams and shorten(upload, blob.size):
                self.manners.no_whole()
                raise Broken(self._refused(refusal, action), digest, lost=True, otherwise=True)
            if upload.resumed and refusal.status in _NOT_SO:
                # It had other bytes than it said, or than they should have been.
                self.manners.lies()
                raise Broken(self._refused(refusal, action), digest, lost=True)
            raise self._failed(refusal, action, digest, wait=wait)
        said = response.headers.get("Docker-Content-Digest")
        answers.drain(response)
        if said and is_digest(said) and said != digest:
            raise DestinationError(
                f"the registry {self.host} did not {action}",
                cause=f"it says that the blob has the digest {said}",
                hint="the bytes changed while they were sent: run the command again, and check memory if it recurs",
            )
        return digest

    def _failed(
        self, refusal: answers.Refusal, action: str, digest: str | None = None, *, wait: float = 0
    ) -> Broken | DestinationError:
        """What to raise after a refusal. `digest` is that of a blob that may be there all the same."""
        error = self._refused(refusal, action)
        if refusal.status == 404:
            return Broken(error, digest, lost=True)
        if refusal.status in http.RETRIED:
            return Broken(error, digest, wait=wait)
        return error


class Broken(Exception):
    """A try that failed where another may do better.

    Args:
        digest: of the blob, where it is known by now.
        lost: whether the session is of no use any more.
        wait: seconds that the registry asks to be left alone.
        otherwise: whether the next try is another than this, and so no repetition.
        ends: whether it is to send what is missing with the PUT.
    """

    def __init__(
        self,
        failure: DestinationError,
        digest: str | None = None,
        *,
        lost: bool = False,
        wait: float = 0,
        otherwise: bool = False,
        ends: bool = False,
    ) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.digest = digest
        self.lost = lost
        self.wait = wait
        self.otherwise = otherwise
        self.ends = ends


def shorten(upload: Upload, length: int) -> bool:
    """Whether less than `length` bytes, which were refused, are worth a try; then `upload` says how many.

    In the middle of a session, the refusal may be of the place and not of the length: less is tried there.
    """
    if length <= SHORTEST:
        return False
    half = 1 << ((length - 1).bit_length() - 1)
    shorter = max(min(half, _FIRST_TRIED_LATER if upload.kept else _FIRST_TRIED), upload.session.least)
    if shorter >= length:
        return False
    upload.longest = shorter
    return True


def closing(session: UploadSession, digest: str) -> str:
    """The address of the PUT that ends an upload."""
    return f"{session.location}{'&' if '?' in session.location else '?'}digest={quote(digest, safe='')}"


def push_scope(repository: str) -> tuple[str, ...]:
    """What uploads to `repository` need. The address of a session does not say it."""
    return (f"repository:{repository}:pull,push",)
