"""One registry, spoken to by distribution-spec 1.1, through the one HTTP client."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode, urljoin

import requests

from layerbuild import addresses, http
from layerbuild.errors import DestinationError, NotFound, SourceError, Unreachable
from layerbuild.model import sha256_hex
from layerbuild.registry import answers, receiving
from layerbuild.registry.manifests import INDEX_TYPE, MANIFEST_LIMIT
from layerbuild.registry.reference import is_digest
from layerbuild.registry.streaming import StreamUploads
from layerbuild.wire import BLOCK

_NO_REFERRERS = frozenset({400, 404, 405, 406, 501})
"""What registries answer that do not know of referrers; the specification's own is 404."""


class RegistryClient(StreamUploads):
    """A registry: its blobs and manifests. See `exchange.Exchange` for what it is made of."""

    def open_blob(self, repository: str, digest: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """A blob's bytes from `offset` on, at most `length` of them. The request is made at the first chunk.

        After a break the rest is asked for, as often as that brings something.

        Raises:
            NotFound: the repository lacks it.
            ContentMismatch: a read of the whole was not what the digest says.
            Unreachable: the connection broke again and again.
            DestinationError: the registry refuses.
        """
        pieces = self._parts(repository, digest, offset, length)
        if offset == 0 and length is None:
            pieces = receiving.verified(pieces, digest, f"the blob {digest} of {self.host}/{repository}")
        yield from pieces

    def _parts(self, repository: str, digest: str, offset: int, length: int | None) -> Iterator[bytes]:
        position, resumed_at, fruitless = offset, offset, 0
        end = None if length is None else offset + length
        while position != end:
            try:
                for piece in self._part(repository, digest, position, end):
                    position += len(piece)
                    yield piece
                return
            except Unreachable:  # noqa: PERF203  # once per answer, not per byte
                fruitless = 0 if position - resumed_at >= BLOCK else fruitless + 1
                if fruitless > self._client.policy.retries:
                    raise
                resumed_at = position
                self._client.pause(fruitless)

    def _part(self, repository: str, digest: str, start: int, end: int | None) -> Iterator[bytes]:
        """What one answer gives of the bytes from `start` to `end`."""
        headers = {}
        if start or end is not None:
            headers["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
        response = self._call("GET", f"{repository}/blobs/{digest}", headers=headers)
        if response.status_code == 404:
            answers.read_refusal(response, self._logins.scrub)
            raise self._missing(f"{repository}@{digest}")
        self._expect(response, (200, 206), f"read {digest} from {repository}")
        skip = start if response.status_code == 200 else 0
        given = response.headers.get("Content-Range", "")
        if response.status_code == 206 and not given.startswith(f"bytes {start}-"):
            response.close()
            raise DestinationError(
                f"the registry {self.host} sends another part of {digest} than it was asked for",
                hint="run the command again; if it stays so, a proxy or cache before the registry is at fault",
            )
        with contextlib.closing(http.chunks(response)) as pieces:
            yield from receiving.window(pieces, skip, None if end is None else end - start)

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

        def asked() -> requests.Response:
            path = f"{repository}/manifests/{reference}"
            response = self._call("GET", path, headers={"Accept": ", ".join(accept)})
            if response.status_code == 404:
                answers.read_refusal(response, self._logins.scrub)
                raise self._missing(name)
            self._expect(response, (200,), f"read the manifest {name}")
            return response

        try:
            response, data = answers.whole(asked, self._client, limit=MANIFEST_LIMIT)
        except NotFound:
            raise
        except SourceError as error:
            raise DestinationError(
                f"the registry {self.host} does not give the manifest {name}", cause=error.message, hint=error.hint
            ) from None
        media_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
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
        digest = f"sha256:{sha256_hex(data)}"
        stored = stored or ""
        answers.drain(response)
        if response.status_code != 201 and not is_digest(stored):
            # Not what the specification asks for, and what a proxy might say that is no registry.
            stored = self._shown(repository, reference, media_type)
        if is_digest(stored) and stored != digest:
            raise DestinationError(
                f"the registry {self.host} did not {action} as given",
                cause=f"it says that the manifest has the digest {stored}",
                hint="this registry rewrites manifests, and cannot hold reproducible images",
            )
        return subject

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
            raise DestinationError(
                f"the registry {self.host} does not {action} as it should",
                cause=cause,
                hint="check the registry's name, and any proxy before it; its log may say more",
            ) from None

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
