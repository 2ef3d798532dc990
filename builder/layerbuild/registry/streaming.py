"""Uploads of blobs whose digest is known only when the last byte has gone.

distribution-spec 1.1 calls it a chunked upload; with one chunk of all bytes it is what `docker push`
does, and what most registries take.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator

from layerbuild.registry.sending import Counter, Stream, Upload, UploadSession, hashed, shielded
from layerbuild.registry.uploading import Uploads


class StreamUploads(Uploads):
    """A registry that may take a blob before its digest. See `exchange.Exchange` for what it is made of."""

    def upload_unnamed(
        self,
        repository: str,
        stream: Stream,
        *,
        advance: Callable[[int], None],
        session: UploadSession | None = None,
    ) -> str:
        """Uploads bytes while they are hashed: POST, one PATCH, and a PUT that names them.

        A broken try is followed by another, as in `upload_blob`: from the registry's own word on, if it kept
        something. The bytes before that are read again, and not sent. A session that is of no use is given back.

        Args:
            advance: told of bytes as they are sent; of a negative number when a try is given up.
            session: one that was opened for this.

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

        def once(upload: Upload, sent: Counter) -> str:
            digest = self._fill(upload, repository, stream, sent)
            return self._name(upload, repository, digest, f"store {stream.title} ({digest}) in {repository}")

        return self._tried(repository, stream.size, once, advance, session=session)

    def _fill(self, upload: Upload, repository: str, stream: Stream, sent: Counter) -> str:
        """Sends what is missing: the digest of everything. What went before is read again for that."""
        seen = hashlib.sha256()

        def pieces() -> Generator[bytes, None, None]:
            nonlocal seen
            seen = hashlib.sha256()
            return hashed(stream, seen, sent, upload.kept)

        if upload.kept == stream.size > 0:
            for _ in shielded(pieces()):
                pass
        self._patch(repository, upload, stream.size, pieces, sent, stream.title)
        return f"sha256:{seen.hexdigest()}"
