"""One registry, spoken to by distribution-spec 1.1, through the one HTTP client."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode, urljoin

import requests

from layerbuild import addresses, http
from layerbuild.errors import DestinationError, SourceError
from layerbuild.model import sha256_hex
from layerbuild.registry import answers, receiving
from layerbuild.registry.manifests import INDEX_TYPE, MANIFEST_LIMIT
from layerbuild.registry.reference import is_digest
from layerbuild.registry.streaming import StreamUploads

_NO_REFERRERS = frozenset({400, 404, 405, 406, 501})
"""What registries answer that do not know of referrers; the specification's own is 404."""


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

    def put_manifest(self, repository: str, reference: str, media_type: str, data: bytes) -> str | None:
        """Stores a manifest, its bytes exactly as given, under a tag or its digest.

        Returns:
            The digest of the manifest's subject, if the registry says that it lists what refers to it.

        Raises:
            DestinationError: the registry is down or refuses, or says that it stored something else.
        """
        action = f"store the manifest {reference} in {repository}"
        headers = {"Content-Type": media_type}
        response = self._call("PUT", f"{repository}/manifests/{reference}", headers=headers, data=data)
        self._expect(response, (200, 201, 204), action)
        stored, subject = (response.headers.get(name) for name in ("Docker-Content-Digest", "OCI-Subject"))
        answers.finish(response)
        if stored and is_digest(stored) and stored != f"sha256:{sha256_hex(data)}":
            raise DestinationError(
                f"the registry {self.host} did not {action} as given",
                cause=f"it says that the manifest has the digest {stored}",
                hint="this registry rewrites manifests, and cannot hold reproducible images",
            )
        return subject

    def list_referrers(self, repository: str, digest: str, *, artifact_type: str | None = None) -> Page | None:
        """The beginning of the list of what refers to a manifest; None where the registry keeps none.

        Args:
            artifact_type: what is wanted; the registry may give more.

        Raises:
            DestinationError: the registry refuses, or sends more than 4 MiB.
        """
        query = f"?{urlencode({'artifactType': artifact_type})}" if artifact_type is not None else ""
        response = self._call("GET", f"{repository}/referrers/{digest}{query}", headers={"Accept": INDEX_TYPE})
        told = response.headers.get("Content-Type", "").partition(";")[0].strip()
        if response.status_code in _NO_REFERRERS or (response.status_code == 200 and told != INDEX_TYPE):
            answers.read_refusal(response, self._logins.scrub)
            return None
        return self._page(response, f"list what refers to {repository}@{digest}")

    def next_referrers(self, page: Page) -> Page:
        """What follows a page that has `following`.

        Raises:
            DestinationError: it leads to another server; the registry refuses, or sends more than 4 MiB.
        """
        url = page.following or ""
        if addresses.origin(url) != addresses.origin(self._base):
            raise DestinationError(
                f"the registry {self.host} continues a list on another server",
                cause=f"its Link is {addresses.redact(url)!r}",
                hint="if it is behind a proxy, that proxy must pass on X-Forwarded-Proto and Host",
            )
        return self._page(self.do_request(url, headers={"Accept": INDEX_TYPE}), "continue a list")

    def _page(self, response: requests.Response, action: str) -> Page:
        self._expect(response, (200,), action)
        try:
            link = response.links.get("next", {}).get("url")
            following = urljoin(response.url, link) if link else None
            addresses.origin(following or "")
            return Page(data=answers.finish(response, limit=MANIFEST_LIMIT), following=following)
        except (SourceError, ValueError) as error:
            response.close()
            cause = error.message if isinstance(error, SourceError) else "its Link is no address"
            raise DestinationError(f"the registry {self.host} does not {action} as it should", cause=cause) from None

    def pause(self, attempt: int) -> None:
        """See `http.Client.pause`."""
        self._client.pause(attempt)


@dataclass(frozen=True, kw_only=True)
class Page:
    """A part of a list (distribution-spec 1.1, "Listing Referrers").

    Attributes:
        data: an index, as untrusted bytes.
        following: the address of the next part, if there is one.
    """

    data: bytes
    following: str | None
