"""The one HTTP client: time-outs, retries, redirects, credentials, redaction.

Sources and the registry client both speak through it. It knows nothing of either: it tries again
what can be helped by that, gives back the last answer whatever its status, and raises `Unreachable`
where there was none.
"""

from __future__ import annotations

import contextlib
import email.utils
import ipaddress
import logging
import random
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import urljoin

import requests
import urllib3
from requests.adapters import HTTPAdapter

from layerbuild import __version__
from layerbuild.addresses import origin, redact
from layerbuild.errors import SourceError, Unreachable

_log = logging.getLogger(__name__)
"""Every request and what came of it, at level DEBUG; addresses as they may be shown, and no headers."""

BLOCK = 1024 * 1024
"""Bytes per read and per write on a connection. urllib3's 16 KiB cost half the rate on loopback."""

RETRIED = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses that may pass by themselves (RFC 9110, RFC 6585)."""

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS = 10
_LONGEST_WAIT = 60.0
_SHORT = 64 * 1024


def is_loopback(host: str) -> bool:
    """Whether `host` (without brackets) is this machine: localhost, 127.0.0.0/8 or ::1."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Body:
    """A request body of known length that is made while it is sent, with flat memory and without copies.

    requests takes the length for the Content-Length, and urllib3 sends what the iterator gives as it is.
    """

    def __init__(self, chunks: Iterator[bytes], length: int) -> None:
        self._chunks = chunks
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[memoryview]:
        """Blocks of at most `BLOCK` bytes: a time-out is for the whole of a block."""
        for chunk in self._chunks:
            view = memoryview(chunk)
            for start in range(0, len(view), BLOCK):
                yield view[start : start + BLOCK]


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


class _Session(requests.Session):
    """Leaves redirects alone. requests would parse where they lead, and read their bodies whole into
    memory, even where it is told not to follow them. Reads the environment's proxies and certificates once
    for each origin: for small requests that took longer than everything else."""

    def __init__(self) -> None:
        super().__init__()
        self._settings: dict[tuple[str, str, int | None], Any] = {}

    def merge_environment_settings(self, url: Any, *args: Any, **kwargs: Any) -> Any:
        where = origin(url)
        if where not in self._settings:
            self._settings[where] = super().merge_environment_settings(url, *args, **kwargs)
        return self._settings[where]

    def resolve_redirects(self, *args: Any, **kwargs: Any) -> Any:
        return iter(())


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
            session = _Session()
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
        retries: int | None = None,
    ) -> requests.Response:
        """One request, tried again where that can help. The answer is streamed: read it or close it.

        Args:
            headers: sent as they are. Those named by `secret_headers` go to the first origin only.
            body: bytes, or a factory that opens the body anew for every try.
            follow: follow redirects (GET and HEAD); else a redirect is given back.
            retries: tries after the first; the policy's where None.

        Raises:
            Unreachable: no answer after the last try. An answer with a status of `RETRIED` is given back.
            SourceError: not an address; too many redirects, or one to something that is not HTTP.
        """
        secret = {name.lower() for name in secret_headers}
        sent = {"User-Agent": f"layerbuild/{__version__}", "Accept-Encoding": "identity", **(headers or {})}
        first = _origin_or_error(url)
        for _ in range(_MAX_REDIRECTS + 1):
            response = self._try(method, url, sent, body, self.policy.retries if retries is None else retries)
            location = response.headers.get("Location")
            if not follow or response.status_code not in _REDIRECTS or not location:
                return response
            _discard(response)
            target = _redirected(url, location)
            if origin(target) != first:
                sent = {k: v for k, v in sent.items() if k.lower() not in secret}
            url = target
        raise SourceError(f"{redact(url)}: too many redirects")

    def _try(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | BodyFactory | None, retries: int
    ) -> requests.Response:
        policy = self.policy
        for attempt in range(retries + 1):
            last = attempt == retries
            started = time.monotonic()
            try:
                response = self._session().request(
                    method,
                    url,
                    headers=dict(headers),
                    data=body() if callable(body) else body,  # type: ignore[arg-type]  # no memoryviews for types-requests
                    auth=_as_given,
                    stream=True,
                    allow_redirects=False,
                    # What is sent is held to the first of them, and a registry may be slow to take a block.
                    timeout=(policy.read_timeout if callable(body) else policy.connect_timeout, policy.read_timeout),
                    verify=policy.verify,
                )
            # urllib3's own errors come through where a host's name cannot be one.
            except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
                _log.debug("%s %s: %s", method, redact(url), describe(error))
                if last or not _may_pass(error):
                    raise Unreachable(
                        f"{method} {redact(url)} failed",
                        cause=describe(error),
                        hint="check the address, the network and the proxy settings (HTTPS_PROXY, NO_PROXY)",
                    ) from None
                wait = self._backoff(attempt)
            else:
                taken = time.monotonic() - started
                _log.debug("%s %s: %d in %.3f s", method, redact(url), response.status_code, taken)
                if response.status_code not in RETRIED:
                    return response
                wait = max(self._backoff(attempt), retry_after(response.headers.get("Retry-After")))
                if last or wait > _LONGEST_WAIT:
                    return response
                _discard(response)
            self._sleep(wait)
        raise AssertionError("unreachable: the last try returns or raises")

    def pause(self, attempt: int) -> None:
        """Waits before try number `attempt` + 1 of something that this client cannot repeat by itself."""
        self._sleep(self._backoff(attempt))

    def _backoff(self, attempt: int) -> float:
        return self.policy.backoff * float(2**attempt) * (0.5 + random.random())  # noqa: S311  # jitter, no secret


def _discard(response: requests.Response) -> None:
    """Closes `response`. Its connection can be used again if the rest of the body is short."""
    with contextlib.suppress(urllib3.exceptions.HTTPError, OSError):
        response.raw.read(_SHORT, decode_content=False)
    response.close()


def _origin_or_error(url: str) -> tuple[str, str, int | None]:
    try:
        return origin(url)
    except ValueError:
        raise SourceError(f"{redact(url)} is not an address", hint="check its host and port") from None


def _redirected(url: str, location: str) -> str:
    """Where `location` leads from `url`, if it may be followed: HTTP, and never from TLS to plain."""
    try:
        target = urljoin(url, location)
        scheme, host, _ = origin(target)
    except ValueError:
        raise SourceError(f"{redact(url)} redirects to an address that cannot be parsed") from None
    if not host or scheme not in ("http", "https") or (origin(url)[0] == "https" and scheme == "http"):
        raise SourceError(f"{redact(url)} redirects to {redact(target)}", cause="that is not a safe address to follow")
    return target


class _NoCookies(DefaultCookiePolicy):
    def set_ok(self, cookie: Any, request: Any) -> bool:
        return False


def _may_pass(error: Exception) -> bool:
    if isinstance(error, requests.exceptions.SSLError):
        return False
    return isinstance(error, (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError))


_KNOWN = {
    "InvalidURL": "the host's name cannot be one",
    "LocationParseError": "the host's name cannot be one",
    "ConnectTimeoutError": "no connection in time",
    "NameResolutionError": "the host's name cannot be resolved",
    "ReadTimeoutError": "no answer in time",
    "TimeoutError": "no answer in time",
}


def describe(error: BaseException) -> str:
    """Why a request failed, in a few words and without its address (which may be signed)."""
    seen: BaseException | None = error
    text = type(error).__name__
    for _ in range(16):  # a chain of exceptions may hold a loop
        if seen is None:
            break
        if isinstance(seen, OSError) and seen.strerror:
            return seen.strerror
        text = type(seen).__name__ if "Error" in type(seen).__name__ else text
        reason = getattr(seen, "reason", None)
        if not isinstance(reason, BaseException):
            reason = next((a for a in seen.args if isinstance(a, BaseException)), None)
        seen = reason or seen.__cause__ or seen.__context__
    return _KNOWN.get(text, text)


def retry_after(value: str | None, *, now: Callable[[], float] = time.time) -> float:
    """Seconds to wait by a `Retry-After` header (RFC 9110, 10.2.3), 0 where there is none."""
    if not value:
        return 0.0
    if is_count(value.strip()):
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - now())
    except (TypeError, ValueError, OverflowError, OSError):
        return 0.0


def is_count(value: str) -> bool:
    """Whether `value` is a number of bytes or seconds as HTTP writes it (RFC 9110, 8.6), of sane length."""
    return value.isascii() and value.isdigit() and len(value) <= 18


def chunks(response: requests.Response, *, limit: int | None = None) -> Generator[bytes, None, None]:
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
    if expected is not None and is_count(expected) and int(expected) != seen:
        raise Unreachable(
            f"the download of {address} is truncated",
            cause=f"{seen} of {expected} bytes arrived",
            hint="run the command again",
        )
