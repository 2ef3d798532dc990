"""A registry as a destination: the image NAME lands at PREFIX/NAME."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from layerbuild.destinations.base import Room
from layerbuild.errors import NotFound
from layerbuild.model import Readable, sha256_hex
from layerbuild.registry.client import RegistryClient
from layerbuild.registry.limits import limits_of
from layerbuild.registry.manifests import INDEX_TYPE, MANIFEST_TYPE
from layerbuild.registry.reference import check_repository, check_tag, is_digest
from layerbuild.registry.sending import Stream, UploadSession

_FRESH = 300.0
"""Seconds for which an upload that was opened can be relied on."""

_Since = tuple[UploadSession, float]
"""An upload, and when it was opened."""

_TYPES = (MANIFEST_TYPE, INDEX_TYPE)


class RegistryDestination:
    """Images below one prefix of one registry. See `base.Destination`.

    Args:
        name: as the user wrote it.
        client: of the registry.
        prefix: without slashes around it; may be empty.
    """

    ordered = False

    def __init__(self, name: str, client: RegistryClient, prefix: str) -> None:
        self.name = name
        self._client = client
        self._prefix = prefix
        self._lock = threading.Lock()
        self._sessions: dict[tuple[str, str], _Since] = {}
        self._open: set[str] = set()
        self._spare: dict[str, _Since] = {}

    @property
    def host(self) -> str | None:
        """The registry, as in `Reference.host`."""
        host: str = self._client.host
        return host

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """See `Destination.whole`: a registry shows an image when it has its tag. Sessions that nobody used
        are given back."""
        try:
            yield
        finally:
            with self._lock:
                left = [(target, session) for (target, _), (session, _) in self._sessions.items()]
                left += [(target, session) for target, (session, _) in self._spare.items()]
                self._sessions, self._spare = {}, {}
            for target, session in left:
                self._client.cancel_upload(target, session)

    def room(self) -> Room:
        """See `Destination.room`."""
        return Room(largest=limits_of(self._client.host).largest)

    def check_push(self, repository: str, *, soon: bool) -> None:
        """See `Destination.check_push`: opens an upload. A token that names the right to push is no proof, and none
        is needed where a registry gives no tokens. The upload is given back, or, if `soon`, the next blob's."""
        target = self.full_name(repository)
        with self._lock:
            if target in self._open:
                return
        session = self._client.open_upload(target)
        with self._lock:
            self._open.add(target)
            if soon:
                self._spare[target] = session, time.monotonic()
        if not soon:
            self._client.cancel_upload(target, session)

    def full_name(self, repository: str) -> str:
        """`PREFIX/NAME`, the repository on the registry.

        Raises:
            UsageError: no registry takes such a name.
        """
        name = f"{self._prefix}/{repository}" if self._prefix else repository
        return check_repository(name, where=f"{self.name.rstrip('/')}/{repository}")

    def has(self, repository: str, digest: str, size: int | None = None) -> bool:
        """See `Destination.has`."""
        found = self._client.head_blob(self.full_name(repository), digest)
        return found is not None and size in (None, found)

    def mount(self, repository: str, digest: str, candidates: Sequence[str]) -> bool:
        """See `Destination.mount`. The session that a refusal leaves is kept for `put`.

        Where the registry seems never to mount, only the first candidate is tried: that costs nothing, since the
        blob is sent to the session that comes instead.
        """
        target = self.full_name(repository)
        left: UploadSession | None = None
        for candidate in candidates:
            source = candidate[1:] if candidate.startswith("/") else self.full_name(candidate)
            if source == target:
                continue
            answer = self._client.mount_blob(target, digest, source)
            if left is not None and (answer.mounted or answer.session):
                self._client.cancel_upload(target, left)
                left = None
            if answer.mounted:
                return True
            left = answer.session or left
            if not self._client.manners.mounts:
                break
        if left is not None:
            with self._lock:
                self._sessions[target, digest] = left, time.monotonic()
        return False

    def put(self, repository: str, blob: Readable, *, advance: Callable[[int], None]) -> None:
        """See `Destination.put`."""
        target = self.full_name(repository)
        with self._lock:
            refused = self._sessions.pop((target, blob.digest), None)
        session = self._fresh(target, refused) or self._spared(target)
        self._client.upload_blob(target, blob, advance=advance, session=session, mountable=refused is None)

    def _spared(self, target: str) -> UploadSession | None:
        """The upload that `check_push` opened."""
        with self._lock:
            spare = self._spare.pop(target, None)
        return self._fresh(target, spare)

    def _fresh(self, target: str, opened: _Since | None) -> UploadSession | None:
        """An upload that can be relied on: a large body must not go to one that has expired."""
        if opened is None:
            return None
        session, since = opened
        if time.monotonic() > since + _FRESH:
            self._client.cancel_upload(target, session)
            return None
        return session

    def put_unnamed(
        self,
        repository: str,
        size: int,
        open: Callable[[], Iterator[bytes]],
        *,
        title: str,
        advance: Callable[[int], None],
    ) -> str:
        """See `Destination.put_unnamed`."""
        stream = Stream(open=open, size=size, title=title)
        target = self.full_name(repository)
        session = self._spared(target) if self._client.streams else None
        return self._client.upload_unnamed(target, stream, advance=advance, session=session)

    def manifest(self, repository: str, reference: str) -> bytes | None:
        """See `Destination.manifest`."""
        target = self.full_name(repository)
        if not is_digest(reference):
            check_tag(reference, where=f"{target}:{reference}")
        try:
            media_type, data, _ = self._client.get_manifest(target, reference, accept=_TYPES)
        except NotFound:
            return None
        return data if media_type in _TYPES else None

    def put_manifest(self, repository: str, tag: str | None, media_type: str, data: bytes) -> None:
        """See `Destination.put_manifest`."""
        target = self.full_name(repository)
        reference = f"sha256:{sha256_hex(data)}" if tag is None else check_tag(tag, where=f"{target}:{tag}")
        self._client.put_manifest(target, reference, media_type, data)
