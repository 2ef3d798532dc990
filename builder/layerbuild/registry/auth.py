"""Logging in to one registry: which Authorization a request gets, by host and scope.

The first request goes without. What it is challenged with (RFC 9110, 11.6.1) decides the rest:
`Basic`, or `Bearer` with the token dance of the distribution project ("Token Authentication
Specification", and its OAuth2 variant for identity tokens). Credentials are used where there are
any, because anonymous pulls are counted more strictly (Docker Hub); without, an anonymous token is
asked for.
"""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import cast
from urllib.parse import parse_qs, urlencode, urlsplit

import requests

from layerbuild import addresses, http
from layerbuild.errors import DestinationError, SourceError, Unreachable
from layerbuild.registry import answers
from layerbuild.registry.credentials import Credential, Lookup, Secret

_LARGEST_TOKEN = 1024 * 1024
_SHORTEST_LIFE = 60.0
_LONGEST_LIFE = 3600.0
_MARGIN = 10.0
_LONGEST_CHALLENGE = 4096
_PARAMETER = re.compile(r'(?<![A-Za-z_-])([A-Za-z_-]{1,32})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_REPOSITORY_PATH = re.compile(r"/v2/(.+)/(?:blobs|manifests|tags|referrers)/")


def scopes_for(method: str, url: str) -> tuple[str, ...]:
    """The scopes that a request of the distribution API needs, read off its address.

    A mount also needs to pull from the repository that it mounts from.
    """
    parts = urlsplit(url)
    match = _REPOSITORY_PATH.match(parts.path)
    if match is None:
        return ()
    actions = "pull" if method in ("GET", "HEAD") else "pull,push"
    scopes = [f"repository:{match.group(1)}:{actions}"]
    scopes += [f"repository:{name}:pull" for name in parse_qs(parts.query).get("from", [])]
    return tuple(scopes)


@dataclass(frozen=True, kw_only=True)
class Challenge:
    """One `WWW-Authenticate`: its scheme in lower case and the parameters that are used."""

    scheme: str
    realm: str = ""
    service: str = ""
    scope: str = ""


def parse_challenge(value: str | None) -> Challenge | None:
    """The first challenge of a `WWW-Authenticate` that is `Bearer` or `Basic`; None where there is none.

    Bearer comes first where a header has both. Of a very long header, the beginning is looked at.
    """
    value = (value or "")[:_LONGEST_CHALLENGE]
    for scheme in ("bearer", "basic"):
        match = re.search(rf"(?:^|,)\s*{scheme}(?:\s+|$)", value, re.IGNORECASE)
        if match:
            found = {m[0].lower(): m[1] or m[2] for m in _PARAMETER.findall(value[match.end() :])}
            return Challenge(
                scheme=scheme,
                realm=found.get("realm", ""),
                service=found.get("service", ""),
                scope=found.get("scope", ""),
            )
    return None


def merge_scopes(scopes: Iterable[str]) -> list[str]:
    """`scopes` with one entry per resource, its actions united."""
    merged: dict[str, list[str]] = {}
    for scope in scopes:
        resource, _, actions = scope.rpartition(":")
        known = merged.setdefault(resource, [])
        known += [a for a in actions.split(",") if a not in known]
    return [f"{resource}:{','.join(actions)}" for resource, actions in merged.items()]


@dataclass(frozen=True, kw_only=True)
class _Token:
    value: Secret
    until: float


class Authenticator:
    """The logins of one registry. Shared by threads; one dance at a time.

    Args:
        host: as people name the registry.
        secure: whether the registry is spoken to over TLS; then its token server must be, too.
        client: for the token server.
        lookup: finds the credentials; called once, when first challenged.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        *,
        host: str,
        secure: bool,
        client: http.Client,
        lookup: Callable[[], Lookup],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._host = host
        self._secure = secure
        self._client = client
        self._lookup = lookup
        self._clock = clock
        self._lock = threading.Lock()
        self._found: Lookup | None = None
        self._challenge: Challenge | None = None
        self._tokens: dict[tuple[str, ...], _Token] = {}
        self._given: deque[Secret] = deque(maxlen=64)

    def header(self, scopes: tuple[str, ...]) -> Secret | None:
        """The value of `Authorization` for a request that needs `scopes`; None to send none.

        A token that has run out is replaced first, so that no large body is sent for nothing.

        Raises:
            DestinationError: the token server refuses, or makes no sense.
        """
        with self._lock:
            return self._header(scopes)

    def renew(self, challenge: str | None, scopes: tuple[str, ...], *, refused: Secret | None) -> bool:
        """After a 401 or 403: whether another try may have more luck.

        Args:
            challenge: the `WWW-Authenticate` of the answer.
            scopes: what the request needs.
            refused: the Authorization that it was sent with.

        Raises:
            DestinationError: the token server refuses, or makes no sense.
        """
        with self._lock:
            parsed = parse_challenge(challenge)
            self._challenge = parsed or self._challenge
            if self._challenge is None:
                return False
            if parsed is None and refused is None:
                return False
            # If it is no longer here, another thread has renewed it already. If it is, older ones are no better.
            if any(token.value == refused for token in self._tokens.values()):
                self._tokens = {held: t for held, t in self._tokens.items() if not _covers(held, scopes)}
            return self._header(scopes, extra=parsed.scope if parsed else "") not in (None, refused)

    @property
    def challenged(self) -> bool:
        """Whether the registry has asked for a login yet."""
        return self._challenge is not None

    def credentials(self) -> Lookup:
        """What was found for this host; looked up once."""
        if self._found is None:
            self._found = self._lookup()
        return self._found

    def scrub(self, text: str) -> str:
        """`text` without the secrets that were sent to this registry, in case it repeats them."""
        found = self._found.credential if self._found else None
        secrets = [token.reveal().partition(" ")[2] for token in tuple(self._given)]
        if found:
            secrets += [s.reveal() for s in (found.password, found.identity_token) if s]
            basic = _basic(found)
            secrets += [basic.reveal().partition(" ")[2]] if basic else []
        for secret in secrets:
            if secret:
                text = text.replace(secret, "(secret)")
        return text

    def _header(self, scopes: tuple[str, ...], *, extra: str = "") -> Secret | None:
        if self._challenge is None:
            return None
        if self._challenge.scheme == "basic":
            credential = self.credentials().credential
            return _basic(credential) if credential else None
        now = self._clock()
        for held, token in self._tokens.items():
            if token.until > now and _covers(held, scopes):
                return token.value
        token = self._dance(self._challenge, merge_scopes([*scopes, *extra.split()]))
        self._tokens[scopes] = token
        self._given.append(token.value)
        return token.value

    def _dance(self, challenge: Challenge, scopes: list[str]) -> _Token:
        server = self._token_server(challenge.realm)
        action = f"use {', '.join(scopes)}" if scopes else "enter"
        parameters = [("service", challenge.service)] if challenge.service else []
        parameters += [("scope", scope) for scope in scopes]

        def asked() -> requests.Response:
            response = self._ask(challenge.realm, parameters)
            if response.status_code == 200:
                return response
            refused = answers.read_refusal(response, self.scrub)
            if refused.status in (400, 401, 403):
                cause = f"its token server answered {refused.status}" + (f", {refused.words}" if refused.words else "")
                raise answers.login_required(self._host, action, self.explain(cause))
            raise answers.error_for(refused, host=self._host, action=f"give a token to {action}")

        try:
            return self._read(answers.whole(asked, self._client, limit=_LARGEST_TOKEN)[1])
        except Unreachable as error:
            raise answers.unreachable(server, error) from None
        except SourceError as error:
            raise DestinationError(
                f"the token server of {self._host} makes no sense",
                cause=error.message,
                hint="check the registry's name, and any proxy before it",
            ) from None

    def _token_server(self, realm: str) -> str:
        """The host of a token server that may be given the credentials."""
        try:
            scheme, host, _ = addresses.origin(realm)
        except ValueError:
            scheme = host = ""
        if not host or scheme not in (("https",) if self._secure else ("https", "http")):
            raise DestinationError(
                f"the registry {self._host} names no usable place to get a token from",
                cause=f"{addresses.redact(realm)!r} is not an {'https' if self._secure else 'HTTP'} address",
                hint="ask whoever runs the registry",
            )
        return host

    def explain(self, cause: str) -> str:
        """`cause`, with what stood in the way of finding a login."""
        found = self.credentials()
        if found.credential is None:
            cause += "; no login for this registry was found"
        return "; ".join([cause, *found.problems])

    def _ask(self, realm: str, parameters: list[tuple[str, str]]) -> requests.Response:
        credential = self.credentials().credential
        if credential and credential.identity_token:
            form = [
                ("grant_type", "refresh_token"),
                ("client_id", "layerbuild"),
                ("refresh_token", credential.identity_token.reveal()),
                *((k, v) for k, v in parameters if k == "service"),
                ("scope", " ".join(v for k, v in parameters if k == "scope")),
            ]
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            return self._client.request("POST", realm, headers=headers, body=urlencode(form).encode(), follow=False)
        basic = _basic(credential) if credential else None
        headers = {"Authorization": basic.reveal()} if basic else {}
        query = urlencode(parameters)
        return self._client.request("GET", f"{realm}{'&' if '?' in realm else '?'}{query}", headers=headers)

    def _read(self, data: bytes) -> _Token:
        try:
            answer = json.loads(data)
        except (ValueError, RecursionError):
            answer = None
        fields: Mapping[str, object] = answer if isinstance(answer, dict) else {}
        value = fields.get("token") or fields.get("access_token")
        if not isinstance(value, str) or not re.fullmatch(r"[\x21-\x7e]+", value):
            raise DestinationError(
                f"the token server of {self._host} gave no token",
                cause="its answer is not of the form that the specification asks for",
                hint="ask whoever runs the registry",
            )
        seconds = fields.get("expires_in")
        told = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        # In this order NaN is cut as well, and a number of any length before it has to fit into a float.
        life = float(min(_LONGEST_LIFE, cast("float", seconds))) if told else _SHORTEST_LIFE
        until = self._clock() + max(life, 2 * _MARGIN) - _MARGIN
        return _Token(value=Secret(f"Bearer {value}"), until=until)


def _covers(held: Iterable[str], wanted: Iterable[str]) -> bool:
    return all(merge_scopes([*held, scope]) == merge_scopes(held) for scope in wanted)


def _basic(credential: Credential) -> Secret | None:
    if credential.password is None:
        return None
    pair = f"{credential.username}:{credential.password.reveal()}"
    return Secret("Basic " + base64.b64encode(pair.encode()).decode())
