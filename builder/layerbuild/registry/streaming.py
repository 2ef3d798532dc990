"""Uploads of blobs whose digest is known only when the last byte has gone.

distribution-spec 1.1 calls it a chunked upload; with one chunk of all bytes it is what `docker push`
does, and what most registries take.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator

from layerbuild.errors import LayerbuildError
from layerbuild.registry.sending import Counter, Outgoing, SendFailed, Stream, Upload, UploadSession, hashed
from layerbuild.registry.uploading import Uploads
from layerbuild.registry.window import Window

_HELD = 4 * 1024 * 1024
"""Bytes that can be sent again without reading a source from its beginning: what is on the line when it breaks."""


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
        """Uploads bytes while they are hashed: POST, one PATCH or several, and a PUT that names them.

        A broken try is followed by another, as in `upload_blob`: from the registry's own word on, if it kept
        something. Where that is further back than the last 4 MiB, the bytes before it are read again, and not sent.
        A session that is of no use is given back.

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
        if not self.manners.streams:
            raise self._digest_first("it is known for that")
        seen = hashlib.sha256()

        def opened(start: int) -> Generator[bytes, None, None]:
            nonlocal seen
            seen = hashlib.sha256()
            return hashed(stream, seen, start)

        window = Window(opened, stream.size, held=_HELD)
        outgoing = Outgoing(repository=repository, title=stream.title, window=window, sent=Counter(advance))

        def once(upload: Upload) -> str:
            self._patch(outgoing, upload)
            try:
                window.finish()
            except LayerbuildError as error:
                raise SendFailed(error) from None
            return self._name(outgoing, upload, f"sha256:{seen.hexdigest()}")

        return self._tried(outgoing, once, session=session)
