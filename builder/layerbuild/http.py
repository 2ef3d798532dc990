"""The one HTTP client: time-outs, retries, redirects, credentials, redaction.

Sources and the registry client both speak through it. It knows nothing of either: it gives back
answers of any status that cannot be helped by trying again, and raises `Unreachable` for the rest.
"""

from __future__ import annotations

import email.utils
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import urljoin, urlsplit, urlunsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

from layerbuild.errors import SourceError, Unreachable

BLOCK = 1024 * 1024
"""Bytes per read and per write on a connection. urllib3's 16 KiB cost half the rate on loopback."""

RETRIED = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses that may pass by themselves (RFC 9110, RFC 6585)."""

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS = 10
_LONGEST_WAIT = 60.0


def redact(url: str) -> str:
    """`url` as it may be shown: no user info, no query, no fragment. Signed addresses carry their
    secret in the query."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        host = f"[{host}]" if ":" in host else host
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "(an address that cannot be parsed)"
    query = "…" if parts.query else ""
    return urlunsplit((parts.scheme, host + port, parts.path, query, ""))


def origin(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port: what a credential belongs to (RFC 6454)."""
    parts = urlsplit(url)
    default = {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or default


class Body:
    """A request body of known length that is made while it is sent, with flat memory.

    requests takes it for a file: it has a length and `read`.
    """

    def __init__(self, chunks: Iterator[bytes], length: int) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks

    def read(self, size: int = -1) -> bytes:
        """The next bytes, at most `size`; empty at the end."""
        if not self._rest:
            self._rest = memoryview(next(self._chunks, b""))
        if size < 0 or size >= len(self._rest):
            piece, self._rest = self._rest, memoryview(b"")
        else:
            piece, self._rest = self._rest[:size], self._rest[size:]
        return bytes(piece)


BodyFactory = Callable[[], "Body | bytes"]
"""Opens the body anew for every try: a half-sent stream cannot be rewound."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How patient a client is. Seconds, and tries after the first."""

    connect_timeout: float = 10.0
    read_timeout: float = 60.0
    retries: int = 4
    backoff: float = 0.5
    verify: bool | str = True


class _Adapter(HTTPAdapter):
    """urllib3 with 1 MiB blocks."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, blocksize=BLOCK, **kwargs)


def _as_given(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Keeps requests from putting a `.netrc` password over our Authorization header."""
    return request


class Client:
    """HTTP for one purpose. Safe to share between threads: each has a session of its own."""

    def __init__(self, policy: Policy | None = None, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self.policy = policy or Policy()
        self._sleep = sleep
        self._local = threading.local()

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = requests.Session()
            session.mount("https://", _Adapter())
            session.mount("http://", _Adapter())
            # A registry that sees a cookie takes us for a browser and asks for CSRF tokens (Harbor).
            session.cookies.set_policy(_NoCookies())
            self._local.session = session
        return session

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | BodyFactory | None = None,
        follow: bool = True,
        secret_headers: Iterable[str] = ("Authorization",),
    ) -> requests.Response:
        """One request, tried again where that can help. The answer is streamed: read it or close it.

        Args:
            headers: sent as they are. Those named by `secret_headers` go to the first origin only.
            body: bytes, or a factory that opens the body anew for every try.
            follow: follow redirects (GET and HEAD); else a redirect is given back.

        Raises:
            Unreachable: no answer, or only statuses of `RETRIED`, after the last try.
            SourceError: too many redirects, or one to something that is not HTTP.
        """
        secret = {name.lower() for name in secret_headers}
        sent = {"Accept-Encoding": "identity", **(headers or {})}
        first = origin(url)
        for _ in range(_MAX_REDIRECTS + 1):
            response = self._try(method, url, sent, body)
            location = response.headers.get("Location")
            if not follow or response.status_code not in _REDIRECTS or not location:
                return response
            response.close()
            target = urljoin(url, location)
            if origin(target)[0] not in ("http", "https") or (url.startswith("https:") and target.startswith("http:")):
                raise SourceError(
                    f"{redact(url)} redirects to {redact(target)}", cause="that is not a safe address to follow"
                )
            if origin(target) != first:
                sent = {k: v for k, v in sent.items() if k.lower() not in secret}
            url = target
        raise SourceError(f"{redact(url)}: too many redirects")

    def _try(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | BodyFactory | None
    ) -> requests.Response:
        policy = self.policy
        for attempt in range(policy.retries + 1):
            last = attempt == policy.retries
            try:
                response = self._session().request(
                    method,
                    url,
                    headers=dict(headers),
                    data=body() if callable(body) else body,  # Body is file-like
                    auth=_as_given,
                    stream=True,
                    allow_redirects=False,
                    timeout=(policy.connect_timeout, policy.read_timeout),
                    verify=policy.verify,
                )
            except requests.RequestException as error:
                if last or not _may_pass(error):
                    raise Unreachable(
                        f"{method} {redact(url)} failed",
                        cause=describe(error),
                        hint="check the address, the network and the proxy settings (HTTPS_PROXY, NO_PROXY)",
                    ) from None
                wait = self._backoff(attempt)
            else:
                if response.status_code not in RETRIED:
                    return response
                wait = max(self._backoff(attempt), retry_after(response.headers.get("Retry-After")))
                if last or wait > _LONGEST_WAIT:
                    return response
                response.close()
            self._sleep(wait)
        raise AssertionError("unreachable: the last try returns or raises")

    def _backoff(self, attempt: int) -> float:
        return self.policy.backoff * float(2**attempt) * (0.5 + random.random())  # noqa: S311  # jitter, no secret


class _NoCookies(DefaultCookiePolicy):
    def set_ok(self, cookie: Any, request: Any) -> bool:
        return False


def _may_pass(error: requests.RequestException) -> bool:
    if isinstance(error, requests.exceptions.SSLError):
        return False
    return isinstance(error, (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError))


def describe(error: BaseException) -> str:
    """Why a request failed, in a few words and without its address (which may be signed)."""
    seen: BaseException | None = error
    text = type(error).__name__
    while seen is not None:
        if isinstance(seen, OSError) and seen.strerror:
            return seen.strerror
        text = type(seen).__name__ if "Error" in type(seen).__name__ else text
        reason = getattr(seen, "reason", None)
        if not isinstance(reason, BaseException):
            reason = next((a for a in seen.args if isinstance(a, BaseException)), None)
        seen = reason or seen.__cause__ or seen.__context__
    known = {"NameResolutionError": "the host's name cannot be resolved", "ReadTimeoutError": "no answer in time"}
    return known.get(text, text)


def retry_after(value: str | None, *, now: Callable[[], float] = time.time) -> float:
    """Seconds to wait by a `Retry-After` header (RFC 9110, 10.2.3), 0 where there is none."""
    if not value:
        return 0.0
    if value.strip().isdigit():
        return float(value)
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except (TypeError, ValueError):
        return 0.0
    return max(0.0, moment.timestamp() - now())


def chunks(response: requests.Response, *, limit: int | None = None) -> Iterator[bytes]:
    """The body, undecoded, in blocks; closes the response.

    Raises:
        Unreachable: the connection broke, or closed before `Content-Length` was reached.
        SourceError: more than `limit` bytes came.
    """
    seen = 0
    expected = response.headers.get("Content-Length")
    address = redact(response.url or "")
    try:
        while piece := response.raw.read(BLOCK, decode_content=False):
            seen += len(piece)
            if limit is not None and seen > limit:
                raise SourceError(
                    f"{address} sent more than {limit} bytes", hint="the file there is not the one that was asked for"
                )
            yield piece
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise Unreachable(
            f"the download of {address} broke off after {seen} bytes",
            cause=describe(error),
            hint="run the command again: what arrived is kept",
        ) from None
    finally:
        response.close()
    if expected is not None and expected.isdigit() and int(expected) != seen:
        raise Unreachable(
            f"the download of {address} is truncated",
            cause=f"{seen} of {expected} bytes arrived",
            hint="run the command again",
        )
