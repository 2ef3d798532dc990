"""One try to upload a blob: sessions, bodies, and what is said of them (distribution-spec 1.1, "Push")."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import NoReturn
from urllib.parse import quote

import requests

from layerbuild import http
from layerbuild.errors import DestinationError, DigestFirst, LayerbuildError, Unreachable
from layerbuild.registry import answers
from layerbuild.registry.credentials import Credential
from layerbuild.registry.exchange import Exchange
from layerbuild.registry.limits import limits_of
from layerbuild.registry.reference import is_digest
from layerbuild.registry.sending import Counter, Upload, UploadSession, session_at, shielded
from layerbuild.registry.sessions import Forgetful, Sessions

# What registries answer to a PATCH that take none, or none of this length. 200 and 201 (ECR) mean: that was all.
_NO_STREAMS = frozenset({200, 201, 400, 404, 405, 411, 413, 415, 416, 501})
_RANGE = re.compile(r"(?:bytes[= ])?0-([0-9]{1,18})")


class UploadSteps(Exchange):
    """A registry that upload sessions can be had from.

    Args:
        sessions: remembers them for other processes; None remembers none. See `exchange.Exchange` for the rest.
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
    ) -> None:
        super().__init__(host, client=client, environ=environ, insecure=insecure, login=login)
        self._sessions: Sessions = sessions or Forgetful()
        self._limits = limits_of(self.host)
        self._streams = self._continues = self._limits.streams

    @property
    def streams(self) -> bool:
        """Whether it takes a blob before its digest is known, as far as that is known."""
        return self._streams

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
        url, location = response.url, response.headers.get("Location")
        answers.finish(response)
        return session_at(url, location, host=self.host)

    def _continued(self, repository: str, session: UploadSession, size: int) -> Upload | None:
        """How far a session has come by the registry's own word; None if nothing can be made of it."""
        if not self._continues:
            return None
        try:
            response = self._exchange("GET", session.location, scopes=push_scope(repository))
            if response.status_code not in (200, 202, 204):
                answers.read_refusal(response, self._logins.scrub)
                return None
            url, location, said = response.url, response.headers.get("Location"), response.headers.get("Range", "")
            answers.finish(response)
            session = session_at(url, location, host=self.host) if location else session
        except LayerbuildError:
            return None
        match = _RANGE.fullmatch(said)
        kept = int(match[1]) + 1 if match else 0
        # "0-0" is what an empty session says, too.
        return Upload(session=session, kept=kept, resumed=True) if 1 < kept <= size else None

    def _patch(
        self,
        repository: str,
        upload: Upload,
        size: int,
        pieces: Callable[[], Generator[bytes, None, None]],
        sent: Counter,
        title: str,
    ) -> None:
        """Sends what a registry lacks of an upload of `size` bytes, which `upload` then says that it has.

        Raises:
            DigestFirst: the registry does not take bytes in this way.
        """
        if upload.kept == size > 0:
            return
        response = self._send("PATCH", upload.session.location, repository, upload, size, pieces, sent)
        if response.status_code not in (202, 204):
            self._refuse_patch(answers.read_refusal(response, self._logins.scrub), repository, upload, title)
        url, location, kept = response.url, response.headers.get("Location"), response.headers.get("Range", "")
        answers.finish(response)
        self._check_kept(kept, sent.total, size, title)
        upload.kept = size
        if location:
            upload.session = session_at(url, location, host=self.host)

    def _refuse_patch(self, refusal: answers.Refusal, repository: str, upload: Upload, title: str) -> NoReturn:
        action = f"store {title} in {repository}"
        if refusal.status not in _NO_STREAMS:
            raise self._failed(refusal, action)
        if upload.resumed:
            # An expired session says nothing about others. A registry that refuses where it said it was is no good.
            self._continues = self._continues and refusal.status == 404
            raise Broken(self._refused(refusal, action), lost=True)
        self._streams = False
        raise self._digest_first(f"it answered {refusal.status}" + f", {refusal.words}" * bool(refusal.words))

    def _digest_first(self, cause: str) -> DigestFirst:
        hint = "hash it first, and send it then"
        return DigestFirst(f"the registry {self.host} takes a blob only by its digest", cause=cause, hint=hint)

    def _check_kept(self, said: str, sent: int, size: int, title: str) -> None:
        """Holds what the registry can have against what there is: one may answer before it was sent all."""
        match = _RANGE.fullmatch(said)  # some say one byte more, some nothing
        kept = min(sent, int(match[1]) + 1) if match else sent
        if kept < size:
            raise Broken(
                DestinationError(
                    f"the registry {self.host} did not keep all of {title}",
                    cause=f"it has {kept} of {size} bytes, and says that this was all",
                    hint="run the command again, or ask whoever runs the registry",
                )
            )

    def _name(self, upload: Upload, repository: str, digest: str, action: str) -> str:
        """Names what a session holds. Nothing has to be sent for it, so it can be tried again by itself."""
        url = closing(upload.session, digest)
        try:
            response = self._exchange("PUT", url, data=b"", scopes=push_scope(repository))
        except Unreachable as error:
            raise Broken(answers.broken_off(self.host, error), digest) from None
        return self._stored(response, digest, action, resumed=upload.resumed)

    def _send(
        self,
        method: str,
        url: str,
        repository: str,
        upload: Upload,
        size: int,
        pieces: Callable[[], Generator[bytes, None, None]],
        sent: Counter,
    ) -> requests.Response:
        """One request with what is missing of `size` bytes. It is not tried again: what arrived is asked for first."""
        start = upload.kept
        with contextlib.ExitStack() as opened:

            def body() -> http.Body | bytes:
                opened.close()
                sent.rewind(start)
                chunks: Iterator[bytes] = opened.enter_context(contextlib.closing(shielded(pieces())))
                if not size:  # a body of no length would be sent in chunks
                    return b"".join(chunks)
                if start:  # what comes before is read now, and not while the registry waits
                    chunks = itertools.chain([next(chunks)], chunks)
                return http.Body(chunks, size - start)

            headers = {"Content-Type": "application/octet-stream"}
            if start:
                headers["Content-Range"] = f"{start}-{size - 1}"
            try:
                return self._exchange(method, url, data=body, headers=headers, scopes=push_scope(repository), retries=0)
            except Unreachable as error:
                raise Broken(answers.broken_off(self.host, error)) from None

    def _stored(self, response: requests.Response, digest: str, action: str, *, resumed: bool = False) -> str:
        """`digest`, if the answer to the PUT that ends an upload says that the blob is there."""
        if response.status_code not in (201, 204):
            refusal = answers.read_refusal(response, self._logins.scrub)
            if resumed and refusal.status in (400, 416):
                # It had other bytes than it said, or than they should have been.
                self._continues = False
                raise Broken(self._refused(refusal, action), digest, lost=True)
            raise self._failed(refusal, action, digest)
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
        if refusal.status == 404:
            return Broken(error, digest, lost=True)
        return Broken(error, digest) if refusal.status in http.RETRIED else error


class Broken(Exception):
    """A try that failed where another may do better.

    Args:
        digest: of the blob, where it is known by now.
        lost: whether the session is of no use any more.
    """

    def __init__(self, failure: DestinationError, digest: str | None = None, *, lost: bool = False) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.digest = digest
        self.lost = lost


def closing(session: UploadSession, digest: str) -> str:
    """The address of the PUT that ends an upload."""
    return f"{session.location}{'&' if '?' in session.location else '?'}digest={quote(digest, safe='')}"


def push_scope(repository: str) -> tuple[str, ...]:
    """What uploads to `repository` need. The address of a session does not say it."""
    return (f"repository:{repository}:pull,push",)
