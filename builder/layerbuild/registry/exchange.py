"""Requests to one registry, with a login where it asks for one.

oras brings the shape and its small reading helpers (`get_tags`, ...); everything that carries layers
is replaced, beginning here with `do_request`: time-outs, retries, logins per scope, bodies that can
be opened again, and an Authorization that never leaves the registry's own origin.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import oras.provider
import requests

from layerbuild import addresses, http, tls
from layerbuild.errors import DestinationError, LayerbuildError, NotFound, Unreachable
from layerbuild.registry import answers, certificates
from layerbuild.registry.auth import Authenticator, scopes_for
from layerbuild.registry.credentials import Credential, Lookup, find_credential
from layerbuild.registry.reference import api_host, is_loopback, normal_host

_TRIES_WITH_LOGIN = 3  # as known, after a challenge, and once more after a refusal


class Exchange(oras.provider.Registry):  # type: ignore[misc]  # oras has no types
    """A registry that can be asked. Safe to share between threads.

    Args:
        host: with its port, as people write it. Loopback hosts are spoken to over plain HTTP, unless there are
            certificates for them.
        client: for everything that goes over the wire.
        environ: where logins and certificates are looked for: see `credentials.find_credential`, `certificates.find`.
        insecure: plain HTTP for this host, too.
        login: used instead of one that is looked for.

    Raises:
        DestinationError: its certificates cannot be used.
    """

    def __init__(
        self,
        host: str,
        *,
        client: http.Client,
        environ: Mapping[str, str],
        insecure: bool = False,
        login: Credential | None = None,
    ) -> None:
        found = None if insecure else certificates.find(normal_host(host), environ)
        plain = insecure or (is_loopback(host) and found is None)
        super().__init__(hostname=api_host(host), insecure=plain)
        self.host = normal_host(host)
        self._base = f"{self.prefix}://{self.hostname}"
        self._client = client if found is None else client.trusting(_trust(found, self._base, environ))
        self._logins = Authenticator(
            host=self.host,
            secure=not plain,
            client=self._client,
            lookup=lambda: Lookup(credential=login) if login else find_credential(self.host, environ),
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.host!r})"

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
            return self._exchange(method, url, data=data, headers=headers, scopes=scopes)
        except Unreachable as error:
            raise answers.unreachable(self.host, error) from None

    def check_login(self) -> bool:
        """Whether the registry asked for a login when its front door was knocked at (distribution-spec 1.1, "API",
        end-1), and took ours; False if it lets anybody in.

        Raises:
            LoginRequired: it did not take ours.
            DestinationError: it is down, or none.
        """
        response = self._call("GET", "")
        self._expect(response, (200,), "log in")
        answers.finish(response)
        return self._logins.challenged

    def _call(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, data: bytes | None = None
    ) -> requests.Response:
        return self.do_request(f"{self._base}/v2/{path}", method, data, headers)

    def _exchange(
        self,
        method: str,
        url: str,
        *,
        data: bytes | http.BodyFactory | None = None,
        headers: Mapping[str, str] | None = None,
        scopes: tuple[str, ...] | None = None,
        retries: int | None = None,
    ) -> requests.Response:
        scopes = scopes_for(method, url) if scopes is None else scopes
        ours = addresses.origin(url) == addresses.origin(self._base)
        for attempt in range(1, _TRIES_WITH_LOGIN + 1):
            login = self._logins.header(scopes) if ours else None
            sent = dict(headers or {}, **({"Authorization": login.reveal()} if login else {}))
            follow = method in ("GET", "HEAD")
            response = self._client.request(method, url, headers=sent, body=data, follow=follow, retries=retries)
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
        if refusal.status == 400 and not refusal.codes and self.prefix == "http":
            # What TLS servers say to who does not speak it: Go's in a body that a HEAD has not, nginx's in HTML.
            error.hint = certificates.advice_to_plain(self.host)
        return error

    def _missing(self, name: str) -> NotFound:
        return NotFound(f"{self.host}/{name} does not exist", hint="check the name, the tag and the digest")


def _trust(found: certificates.Certificates, base: str, environ: Mapping[str, str]) -> tls.Trust:
    """Its authorities are believed wherever the registry sends us, as docker does it; its own origin alone gets
    to see our certificate, which docker shows to everybody."""
    identity = None
    if found.pair is not None:
        certificate, key = found.pair
        identity = tls.Identity(certificate=certificate, key=key, origin=addresses.origin(base))
    return tls.Trust(environ, authorities=found.authorities, identity=identity)
