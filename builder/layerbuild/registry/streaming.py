"""Uploads of blobs whose digest is known only when the last byte has gone.

distribution-spec 1.1 calls it a chunked upload; with one chunk of all bytes it is what `docker push`
does, and what most registries take.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Generator, Mapping

from layerbuild import http
from layerbuild.errors import DestinationError, DigestFirst, Unreachable
from layerbuild.registry import answers
from layerbuild.registry.sending import Counter, Stream, UploadSession, hashed, session_at
from layerbuild.registry.uploading import Broken, Uploads, closing, push_scope

# What registries answer to a PATCH that take none, or none of this length. 200 and 201 (ECR) mean: that was all.
_NO_STREAMS = frozenset({200, 201, 400, 404, 405, 411, 413, 415, 416, 501})
_RANGE = re.compile(r"(?:bytes[= ])?0-([0-9]{1,18})")


class StreamUploads(Uploads):
    """A registry that may take a blob before its digest. See `exchange.Exchange` for what it is made of."""

    def __init__(self, host: str, *, client: http.Client, environ: Mapping[str, str], insecure: bool = False) -> None:
        super().__init__(host, client=client, environ=environ, insecure=insecure)
        self._streams = self._limits.streams

    def upload_unnamed(self, repository: str, stream: Stream, *, advance: Callable[[int], None]) -> str:
        """Uploads bytes while they are hashed: POST, one PATCH, and a PUT that names them.

        A broken try is followed by another, as in `upload_blob`. A session that is of no use is given back.

        Args:
            advance: told of bytes as they are sent; of a negative number when a try is given up.

        Returns:
            `sha256:<hex>`.

        Raises:
            DigestFirst: the registry does not take a blob in this way. Known ones are not asked, others once.
            ContentMismatch: there are more bytes than `stream.size`, or fewer. The registry keeps nothing.
            DestinationError: the registry is down, or refuses, or takes no blob of that size.
            LayerbuildError: whatever reading raises. The registry keeps nothing.
        """
        self._check_size(stream.size, stream.title)
        if not self._streams:
            raise self._digest_first("it is known for that")

        def once(session: UploadSession, sent: Counter) -> str:
            filled, digest = self._fill(session, repository, stream, sent)
            return self._name(filled, repository, digest, stream.title)

        return self._tried(repository, stream.size, once, advance)

    def _fill(
        self, session: UploadSession, repository: str, stream: Stream, sent: Counter
    ) -> tuple[UploadSession, str]:
        """Sends the bytes: the session that holds them, and their digest."""
        seen = hashlib.sha256()

        def pieces() -> Generator[bytes, None, None]:
            nonlocal seen
            seen = hashlib.sha256()
            return hashed(stream, seen, sent)

        response = self._send("PATCH", session.location, repository, stream.size, pieces, sent)
        if response.status_code not in (202, 204):
            refusal = answers.read_refusal(response, self._logins.scrub)
            if refusal.status in _NO_STREAMS:
                self._streams = False
                raise self._digest_first(f"it answered {refusal.status}" + f", {refusal.words}" * bool(refusal.words))
            raise self._failed(refusal, f"store {stream.title} in {repository}")
        url, location, kept = response.url, response.headers.get("Location"), response.headers.get("Range", "")
        answers.finish(response)
        self._check_kept(kept, sent.total, stream)
        return session_at(url, location, host=self.host) if location else session, f"sha256:{seen.hexdigest()}"

    def _check_kept(self, said: str, sent: int, stream: Stream) -> None:
        """Holds what the registry can have against what there is: one may answer before it was sent all."""
        match = _RANGE.fullmatch(said)  # some say one byte more, some nothing
        kept = min(sent, int(match[1]) + 1) if match else sent
        if kept < stream.size:
            raise Broken(
                DestinationError(
                    f"the registry {self.host} did not keep all of {stream.title}",
                    cause=f"it has {kept} of {stream.size} bytes, and says that this was all",
                    hint="run the command again, or ask whoever runs the registry",
                )
            )

    def _name(self, session: UploadSession, repository: str, digest: str, title: str) -> str:
        """Names what a session holds. Nothing has to be sent for it, so it can be tried again by itself."""
        try:
            response = self._exchange("PUT", closing(session, digest), data=b"", scopes=push_scope(repository))
        except Unreachable as error:
            raise Broken(answers.broken_off(self.host, error), digest) from None
        return self._stored(response, digest, f"store {title} ({digest}) in {repository}")

    def _digest_first(self, cause: str) -> DigestFirst:
        hint = "hash it first, and send it then"
        return DigestFirst(f"the registry {self.host} takes a blob only by its digest", cause=cause, hint=hint)
