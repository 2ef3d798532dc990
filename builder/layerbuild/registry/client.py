"""One registry, spoken to by distribution-spec 1.1, through the one HTTP client."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from layerbuild import http
from layerbuild.errors import DestinationError, NotFound, SourceError
from layerbuild.model import sha256_hex
from layerbuild.registry import answers, receiving
from layerbuild.registry.manifests import MANIFEST_LIMIT
from layerbuild.registry.reference import is_digest
from layerbuild.registry.streaming import StreamUploads


class RegistryClient(StreamUploads):
    """A registry: its blobs and manifests. See `exchange.Exchange` for what it is made of."""

    def open_blob(self, repository: str, digest: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """A blob's bytes from `offset` on, at most `length` of them. The request is made at the first chunk.

        Raises:
            NotFound: the repository lacks it.
            ContentMismatch: a read of the whole was not what the digest says.
            Unreachable: the connection broke.
            DestinationError: the registry refuses.
        """
        if length == 0:
            return
        headers = {}
        if offset or length is not None:
            last = "" if length is None else str(offset + length - 1)
            headers["Range"] = f"bytes={offset}-{last}"
        response = self._call("GET", f"{repository}/blobs/{digest}", headers=headers)
        if response.status_code == 404:
            answers.read_refusal(response, self._logins.scrub)
            raise self._missing(f"{repository}@{digest}")
        self._expect(response, (200, 206), f"read {digest} from {repository}")
        whole = offset == 0 and length is None
        skip = offset if response.status_code == 200 else 0
        given = response.headers.get("Content-Range", "")
        if response.status_code == 206 and not given.startswith(f"bytes {offset}-"):
            response.close()
            raise DestinationError(f"the registry {self.host} sends another part of {digest} than it was asked for")
        pieces = http.chunks(response)
        with contextlib.closing(pieces):
            if whole:
                yield from receiving.verified(pieces, digest, f"the blob {digest} of {self.host}/{repository}")
            else:
                yield from receiving.window(pieces, skip, length)

    def get_manifest(  # oras's own parses and loses the bytes
        self, repository: str, reference: str, *, accept: Sequence[str]
    ) -> tuple[str, bytes, str]:
        """A manifest by tag or digest: its media type, its bytes, and the digest of those bytes.

        Raises:
            NotFound: there is none of that name, in any of the media types in `accept`.
            ContentMismatch: the bytes are not what the digest says.
            DestinationError: the registry refuses, or sends more than 4 MiB.
        """
        name = f"{repository}{'@' if is_digest(reference) else ':'}{reference}"
        response = self._call("GET", f"{repository}/manifests/{reference}", headers={"Accept": ", ".join(accept)})
        if response.status_code == 404:
            answers.read_refusal(response, self._logins.scrub)
            raise self._missing(name)
        self._expect(response, (200,), f"read the manifest {name}")
        media_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
        try:
            data = answers.finish(response, limit=MANIFEST_LIMIT)
        except SourceError as error:
            raise DestinationError(
                f"the registry {self.host} does not give the manifest {name}", cause=error.message, hint=error.hint
            ) from None
        digest = f"sha256:{sha256_hex(data)}"
        if is_digest(reference) and digest != reference:
            raise receiving.mismatch(f"the manifest {self.host}/{name}", f"its bytes have the digest {digest}")
        return media_type, data, digest

    def put_manifest(self, repository: str, reference: str, media_type: str, data: bytes) -> None:
        """Stores a manifest, its bytes exactly as given, under a tag or its digest.

        Raises:
            DestinationError: the registry is down or refuses, or says that it stored something else.
        """
        action = f"store the manifest {reference} in {repository}"
        headers = {"Content-Type": media_type}
        response = self._call("PUT", f"{repository}/manifests/{reference}", headers=headers, data=data)
        self._expect(response, (200, 201, 204), action)
        digest, stored = f"sha256:{sha256_hex(data)}", response.headers.get("Docker-Content-Digest", "")
        answers.finish(response)
        if response.status_code != 201 and not is_digest(stored):
            # Not what the specification asks for, and what a proxy might say that is no registry.
            stored = self._shown(repository, reference, media_type)
        if is_digest(stored) and stored != digest:
            raise DestinationError(
                f"the registry {self.host} did not {action} as given",
                cause=f"it says that the manifest has the digest {stored}",
                hint="this registry rewrites manifests, and cannot hold reproducible images",
            )

    def _shown(self, repository: str, reference: str, media_type: str) -> str:
        """The digest of the manifest that is to be seen under a name.

        Raises:
            DestinationError: there is none.
        """
        try:
            return self.get_manifest(repository, reference, accept=(media_type,))[2]
        except NotFound:
            raise DestinationError(
                f"the registry {self.host} did not store the manifest {reference} in {repository}",
                cause="it said that it did, and has none of that name",
                hint="check that no proxy before it answers instead",
            ) from None
