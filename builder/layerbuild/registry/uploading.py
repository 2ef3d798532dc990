"""Blobs on their way to a registry: what is there, what can be mounted, and uploads (distribution-spec 1.1, "Push")."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from urllib.parse import urlencode

from layerbuild.errors import DestinationError, DigestFirst, LoginRequired
from layerbuild.model import LARGE, Readable
from layerbuild.registry import answers
from layerbuild.registry.limits import too_large
from layerbuild.registry.sending import Counter, Mount, Outgoing, Proof, Upload, UploadSession
from layerbuild.registry.sessions import HeldSession
from layerbuild.registry.steps import Broken
from layerbuild.registry.tries import NOWHERE, Tries
from layerbuild.registry.window import Window

_PATCHED = 64 * 1024 * 1024
"""Bytes above which a blob goes by PATCH: before, what a break costs is not worth another request."""


class Uploads(Tries):
    """A registry that blobs can be put into. See `exchange.Exchange` for what it is made of."""

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
        status = response.status_code
        if status in (201, 202):
            session = None
            if status == 202:
                # One at no usable place is as good as none: the upload opens its own.
                with contextlib.suppress(DestinationError):
                    session = self._session_of(response)
            answers.drain(response)
            self.manners.mount(done=status == 201)
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
        mountable: bool = True,
    ) -> None:
        """Uploads a blob: POST, then one streamed PUT, which is what every registry takes.

        A large one goes by PATCH where that is taken: more registries keep what arrived of one that breaks. It goes
        in chunks where a registry takes only short requests. After a break the registry is asked what it has, and
        sent the rest; where it has nothing, all anew. What another thread or process of this machine is sending to
        the same registry is waited for, and not sent; to another repository, if it can be mounted from there.

        Args:
            advance: told of bytes as they are sent; of a negative number when some are lost.
            session: one that a refused mount left, or `open_upload` gave.
            mountable: False where a mount of this blob was refused already.

        Raises:
            ContentMismatch: the bytes are not what `blob.digest` and `blob.size` say. The request is
                broken off before its end, so the registry keeps nothing.
            DestinationError: the registry is down, or refuses, or takes no blob of that size.
            LayerbuildError: whatever reading `blob` raises.
        """
        self._check_size(blob.size, blob.digest)
        with self._sessions.held(self.host, repository, blob.digest, anywhere=mountable) as memory:
            if self._came_otherwise(repository, blob, memory, mountable=mountable):
                advance(blob.size)
                if session is not None:
                    self.cancel_upload(repository, session)
            else:
                # The address of a small one is not worth a file.
                self._upload(repository, blob, advance, session, memory if blob.size >= LARGE else NOWHERE)
            memory.done()

    def _came_otherwise(self, repository: str, blob: Readable, memory: HeldSession, *, mountable: bool) -> bool:
        """Whether the blob has come since somebody looked: sent by another process, or mounted from where that one
        sent it.
        """
        places = memory.places()
        if repository in places and self.head_blob(repository, blob.digest) == blob.size:
            return True
        others = [place for place in places if place != repository]
        if not others or not mountable:
            return False
        mount = self.mount_blob(repository, blob.digest, others[0])
        if mount.session is not None:
            self.cancel_upload(repository, mount.session)
        # Nobody is left to notice a mount that lies: this may be the second try, after one that did.
        return mount.mounted and self.head_blob(repository, blob.digest) == blob.size

    def _upload(
        self,
        repository: str,
        blob: Readable,
        advance: Callable[[int], None],
        session: UploadSession | None,
        memory: HeldSession,
    ) -> None:
        window = Window(Proof(blob).rest, blob.size)
        outgoing = Outgoing(
            repository=repository, title=blob.digest, window=window, sent=Counter(advance), digest=blob.digest
        )

        def once(upload: Upload) -> str:
            if upload.ends or not self._by_patch(upload, blob.size):
                return self._put(outgoing, upload, blob.digest)
            try:
                self._patch(outgoing, upload, memory.put)
            except DigestFirst as error:
                raise Broken(error, blob.digest, lost=True, otherwise=True) from None
            return self._name(outgoing, upload, blob.digest)

        self._tried(outgoing, once, session=session, memory=memory)

    def _by_patch(self, upload: Upload, size: int) -> bool:
        """Whether what is missing goes by PATCH, and not by the one PUT that every registry takes."""
        if not self.manners.streams:
            return False
        whole = self.manners.whole
        return upload.kept > 0 or size > (_PATCHED if whole is None else whole)

    def _check_size(self, size: int, title: str) -> None:
        largest = self.manners.largest
        if largest is not None and size > largest:
            raise too_large(self.host, title, size, largest)
