"""One registry, spoken to by distribution-spec 1.1, through the one HTTP client.

oras brings the shape and its small reading helpers (`get_tags`, ...); everything that carries layers
is replaced here, beginning with `do_request`: time-outs, retries, logins per scope, bodies that can
be opened again, and an Authorization that never leaves the registry's own origin.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from urllib.parse import quote, urlencode

import oras.provider
import requests

from layerbuild import addresses, http
from layerbuild.errors import DestinationError, LayerbuildError, LoginRequired, NotFound, Unreachable
from layerbuild.model import Readable, sha256_hex
from layerbuild.registry import answers, receiving
from layerbuild.registry.auth import Authenticator, scopes_for
from layerbuild.registry.credentials import find_credential
from layerbuild.registry.reference import api_host, is_digest, is_loopback, normal_host
from layerbuild.registry.sending import Counter, Mount, SendFailed, UploadSession, checked, session_at, shielded

MANIFEST_LIMIT = 4 * 1024 * 1024
"""Bytes of the largest manifest that registries agree to take (distribution-spec 1.1)."""

_TRIES_WITH_LOGIN = 3  # as known, after a challenge, and once more after a refusal


class RegistryClient(oras.provider.Registry):  # type: ignore[misc]  # oras has no types
    """A registry. Safe to share between threads.

    Args:
        host: with its port, as people write it. Loopback hosts are spoken to over plain HTTP.
        client: for everything that goes over the wire.
        environ: where logins are looked for: see `credentials.find_credential`.
        insecure: plain HTTP for this host, too.
    """

    def __init__(
        self,
        host: str,
        *,
        client: http.Client,
        environ: Mapping[str, str],
        insecure: bool = False,
    ) -> None:
        plain = insecure or is_loopback(host)
        super().__init__(hostname=api_host(host), insecure=plain)
        self.host = normal_host(host)
        self._base = f"{self.prefix}://{self.hostname}"
        self._client = client
        # A broken upload needs a new session, so what is below must not try it again by itself.
        self._once = http.Client(replace(client.policy, retries=0))
        self._logins = Authenticator(
            host=self.host,
            secure=not plain,
            client=client,
            lookup=lambda: find_credential(self.host, environ),
        )

    def __repr__(self) -> str:
        return f"RegistryClient({self.host!r})"

    __str__ = __repr__

    def do_request(
        self,
        url: str,
        method: str = "GET",
        data: bytes | http.BodyFactory | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        scopes: tuple[str, ...] | None = None,
    ) -> requests.Response:
        """One request, with a login where the registry asks for one. The answer is streamed.

        Args:
            url: absolute; without a scheme, this registry's (as oras passes it).
            data: bytes, or a factory that opens the body anew for every try.
            scopes: what the request needs, where its address does not say.

        Raises:
            DestinationError: the registry, or its token server, is down.
            LoginRequired: the token server refuses us.
        """
        url = url if url.startswith(("http://", "https://")) else f"{self.prefix}://{url}"
        try:
            return self._exchange(self._client, method, url, data=data, headers=headers, scopes=scopes)
        except Unreachable as error:
            raise answers.unreachable(self.host, error) from None

    def head_blob(self, repository: str, digest: str) -> int | None:
        """Bytes of a blob, or None if the repository lacks it.

        Raises:
            DestinationError: the registry does not tell.
        """
        response = self._call("HEAD", f"{repository}/blobs/{digest}")
        if response.status_code == 404:
            answers.finish(response)
            return None
        self._expect(response, (200,), f"look for {digest} in {repository}")
        size = response.headers.get("Content-Length", "")
        answers.finish(response)
        if not http.is_count(size):
            raise DestinationError(f"the registry {self.host} does not tell the size of {digest} in {repository}")
        return int(size)

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
        status, location = response.status_code, response.headers.get("Location")
        if status in (201, 202):
            url = response.url
            answers.finish(response)
            session = session_at(url, location, host=self.host) if status == 202 else None
            return Mount(mounted=status == 201, session=session)
        # Whatever stands in the way of an upload, too, is told by the upload.
        answers.read_refusal(response, self._logins.scrub)
        return Mount(mounted=False)

    def cancel_upload(self, repository: str, session: UploadSession) -> None:
        """Gives a session back. Registries drop forgotten ones by themselves, so a refusal is no error."""
        response = self.do_request(session.location, "DELETE", scopes=_push(repository))
        answers.read_refusal(response, self._logins.scrub)

    def upload_blob(
        self,
        repository: str,
        blob: Readable,
        *,
        advance: Callable[[int], None],
        session: UploadSession | None = None,
    ) -> None:
        """Uploads a blob: POST, then one streamed PUT, which is what every registry takes.

        A broken try is followed by another, in a session of its own and with the body opened anew.

        Args:
            advance: told of bytes as they are sent; of a negative number when a try is given up.
            session: one that a refused mount left.

        Raises:
            ContentMismatch: the bytes are not what `blob.digest` and `blob.size` say. The request is
                broken off before its end, so the registry keeps nothing.
            DestinationError: the registry is down, or refuses.
            LayerbuildError: whatever reading `blob` raises.
        """
        last = self._client.policy.retries
        for attempt in range(last + 1):
            started, session = session or self._start(repository), None
            sent = Counter(advance)
            try:
                refusal = self._put(repository, blob, started, sent)
                if refusal is None:
                    return
                failure: LayerbuildError = self._refused(refusal, f"store {blob.digest} in {repository}")
                # 404: the session has gone
                again = refusal.status in http.RETRIED or refusal.status == 404
            except SendFailed as error:
                sent.take_back()
                raise error.failure from None
            except Unreachable as error:
                failure, again = answers.unreachable(self.host, error), True
            sent.take_back()
            if not again or attempt == last:
                raise failure
            self._client.pause(attempt)
            if self.head_blob(repository, blob.digest) == blob.size:
                advance(blob.size)
                return

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
        data = answers.finish(response, limit=MANIFEST_LIMIT)
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
        stored = response.headers.get("Docker-Content-Digest")
        answers.finish(response)
        if stored and is_digest(stored) and stored != f"sha256:{sha256_hex(data)}":
            raise DestinationError(
                f"the registry {self.host} did not {action} as given",
                cause=f"it says that the manifest has the digest {stored}",
                hint="this registry rewrites manifests, and cannot hold reproducible images",
            )

    def _call(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, data: bytes | None = None
    ) -> requests.Response:
        return self.do_request(f"{self._base}/v2/{path}", method, data, headers)

    def _exchange(
        self,
        client: http.Client,
        method: str,
        url: str,
        *,
        data: bytes | http.BodyFactory | None = None,
        headers: Mapping[str, str] | None = None,
        scopes: tuple[str, ...] | None = None,
    ) -> requests.Response:
        scopes = scopes_for(method, url) if scopes is None else scopes
        ours = addresses.origin(url) == addresses.origin(self._base)
        for attempt in range(1, _TRIES_WITH_LOGIN + 1):
            login = self._logins.header(scopes) if ours else None
            sent = dict(headers or {}, **({"Authorization": login.reveal()} if login else {}))
            response = client.request(method, url, headers=sent, body=data, follow=method in ("GET", "HEAD"))
            # A refusal by the place that we were redirected to is not about our login.
            here = ours and addresses.origin(response.url) == addresses.origin(self._base)
            if response.status_code not in (401, 403) or not here or attempt == _TRIES_WITH_LOGIN:
                return response
            try:
                again = self._logins.renew(response.headers.get("WWW-Authenticate"), scopes, refused=login)
            except LayerbuildError:
                response.close()
                raise
            if not again:
                return response
            answers.read_refusal(response, self._logins.scrub)
        raise AssertionError("unreachable: the last try returns")

    def _expect(self, response: requests.Response, statuses: Collection[int], action: str) -> None:
        if response.status_code not in statuses:
            raise self._refused(answers.read_refusal(response, self._logins.scrub), action)

    def _refused(self, refusal: answers.Refusal, action: str) -> DestinationError:
        error = answers.error_for(refusal, host=self.host, action=action)
        if refusal.status in (401, 403) and error.cause:
            error.cause = self._logins.explain(error.cause)
        return error

    def _missing(self, name: str) -> NotFound:
        return NotFound(f"{self.host}/{name} does not exist", hint="check the name, the tag and the digest")

    def _start(self, repository: str) -> UploadSession:
        response = self._call("POST", f"{repository}/blobs/uploads/")
        self._expect(response, (202,), f"take an upload to {repository}")
        url, location = response.url, response.headers.get("Location")
        answers.finish(response)
        return session_at(url, location, host=self.host)

    def _put(self, repository: str, blob: Readable, session: UploadSession, sent: Counter) -> answers.Refusal | None:
        """One try. What the registry said if it did not take the blob."""

        def body() -> http.Body | bytes:
            sent.take_back()
            pieces = shielded(checked(blob, sent))
            # A body of no length would be sent in chunks.
            return http.Body(pieces, blob.size) if blob.size else b"".join(pieces)

        url = session.location
        url += f"{'&' if '?' in url else '?'}digest={quote(blob.digest, safe='')}"
        headers = {"Content-Type": "application/octet-stream"}
        response = self._exchange(self._once, "PUT", url, data=body, headers=headers, scopes=_push(repository))
        if response.status_code in (201, 204):
            answers.finish(response)
            return None
        return answers.read_refusal(response, self._logins.scrub)


def _push(repository: str) -> tuple[str, ...]:
    return (f"repository:{repository}:pull,push",)
