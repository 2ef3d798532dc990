"""Bytes of a blob by PATCH, in one or in chunks of a length that the registry takes (distribution-spec 1.1, "Pushing a
blob in chunks")."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from layerbuild import http
from layerbuild.errors import DigestFirst
from layerbuild.registry import answers
from layerbuild.registry.sending import Outgoing, Upload
from layerbuild.registry.steps import Broken, UploadSteps, shorten

# What registries answer to a PATCH that take none, or none of this length. 200 and 201 (ECR) mean: that was all.
_NO_STREAMS = frozenset({200, 201, 400, 404, 405, 411, 413, 415, 416, 501})
_TOO_LONG = frozenset({413, 416})
_NO_METHOD = frozenset({405, 411, 413, 415, 501})
_CERTAIN = _NO_METHOD | {200, 201, 416}


class ChunkSteps(UploadSteps):
    """A registry that may take PATCHes."""

    def _patch(self, blob: Outgoing, upload: Upload, remember: Callable[[str], None] = lambda location: None) -> None:
        """Sends what a registry lacks of an upload, which `upload` then says that it has.

        Args:
            remember: told where the session is after each chunk.

        Raises:
            DigestFirst: the registry does not take bytes in this way.
        """
        while upload.kept < blob.size or not blob.size:
            length = self._length(upload, blob.size - upload.kept)
            stop = upload.kept + length
            response = self._send("PATCH", upload.session.location, blob, upload, stop)
            if response.status_code not in (202, 204):
                wait = http.retry_after(response.headers.get("Retry-After"))
                refusal = answers.read_refusal(response, self._logins.scrub)
                self._refuse_patch(refusal, blob, upload, length, wait)
            session, kept = self._moved(response, upload.session), response.headers.get("Range", "")
            answers.drain(response)
            self._check_kept(kept, blob, stop)
            upload.kept, upload.session = stop, session
            remember(session.location)
            if length == upload.longest:
                self.manners.takes(length)
            if not blob.size:
                return

    def _length(self, upload: Upload, rest: int) -> int:
        """Bytes of the next PATCH of `rest` that are missing."""
        longest = [length for length in (upload.longest, self.manners.chunk) if length is not None]
        return min(rest, max(min(longest), upload.session.least)) if longest else rest

    def _refuse_patch(
        self, refusal: answers.Refusal, blob: Outgoing, upload: Upload, length: int, wait: float
    ) -> NoReturn:
        action = f"store {blob.title} in {blob.repository}"
        if refusal.status not in _NO_STREAMS:
            raise self._failed(refusal, action, blob.digest, wait=wait)
        error = self._refused(refusal, action)
        if refusal.status in _TOO_LONG and shorten(upload, length):
            raise Broken(error, blob.digest, lost=not upload.kept, otherwise=True)
        if upload.kept and blob.digest and refusal.status in _NO_METHOD and not upload.ends:
            raise Broken(error, blob.digest, otherwise=True, ends=True)
        if upload.kept:
            # An expired session says nothing about others. A registry that refuses where it said it was is no good.
            if refusal.status != 404:
                self.manners.lies()
            raise Broken(error, blob.digest, lost=True)
        self.manners.no_streams(certain=refusal.status in _CERTAIN)
        raise self._digest_first(f"it answered {refusal.status}" + f", {refusal.words}" * bool(refusal.words))

    def _digest_first(self, cause: str) -> DigestFirst:
        hint = "hash it first, and send it then"
        return DigestFirst(f"the registry {self.host} takes a blob only by its digest", cause=cause, hint=hint)
