"""A registry as a destination: the image NAME lands at PREFIX/NAME."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence

from layerbuild.errors import NotFound
from layerbuild.model import Readable, sha256_hex
from layerbuild.registry.client import RegistryClient
from layerbuild.registry.manifests import INDEX_TYPE, MANIFEST_TYPE
from layerbuild.registry.reference import check_repository, check_tag, is_digest
from layerbuild.registry.sending import Stream, UploadSession

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
        self._sessions: dict[tuple[str, str], UploadSession] = {}

    @property
    def host(self) -> str | None:
        """The registry, as in `Reference.host`."""
        host: str = self._client.host
        return host

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """See `Destination.whole`: a registry shows an image when it has its tag. Sessions that nobody used
        are given back."""
        yield
        with self._lock:
            left, self._sessions = self._sessions, {}
        for (target, _), session in left.items():
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
        """See `Destination.mount`. The session that a refusal leaves is kept for `put`."""
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
        if left is not None:
            with self._lock:
                self._sessions[target, digest] = left
        return False

    def put(self, repository: str, blob: Readable, *, advance: Callable[[int], None]) -> None:
        """See `Destination.put`."""
        target = self.full_name(repository)
        with self._lock:
            session = self._sessions.pop((target, blob.digest), None)
        self._client.upload_blob(target, blob, advance=advance, session=session)

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
        return self._client.upload_unnamed(self.full_name(repository), stream, advance=advance)

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
