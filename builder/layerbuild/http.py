"""The one HTTP client: time-outs, retries, redirects, credentials, redaction.

Sources and the registry client both speak through it. It knows nothing of either: it tries again
what can be helped by that, gives back the last answer whatever its status, and raises `Unreachable`
where there was none.
"""

from __future__ import annotations

import contextlib
import email.utils
import logging
import os
import random
import re
import ssl
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urljoin

import requests
import urllib3

from layerbuild import __version__, tls
from layerbuild.addresses import origin, redact
from layerbuild.connections import Session, as_given
from layerbuild.errors import SourceError, Unreachable
from layerbuild.wire import BLOCK, is_count

_log = logging.getLogger(__name__)
"""Every request and what came of it, at level DEBUG; addresses as they may be shown, of headers only lengths."""

RETRIED = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses that may pass by themselves (RFC 9110, RFC 6585)."""

LONGEST_WAIT = 60.0
"""Seconds for which a server is waited for at most. One that asks for more has refused."""
CARRIED = frozenset({"accept", "accept-encoding", "if-range", "range", "user-agent"})
"""Headers that go along where a redirect leads to another origin."""

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS = 10
_SHORT = 64 * 1024


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


class Client:
    """HTTP for one purpose. Safe to share between threads: each has a session of its own."""

    def __init__(
        self,
        policy: Policy | None = None,
        *,
        sleep: Callable[[float], None] = time.sleep,
        trust: tls.Trust | None = None,
    ) -> None:
        self.policy = policy or Policy()
        self._sleep = sleep
        self._trust = trust or tls.Trust(os.environ)
        self._local = threading.local()

    def trusting(self, trust: tls.Trust) -> Client:
        """A client like this one, with TLS as `trust` has it."""
        return Client(self.policy, sleep=self._sleep, trust=trust)

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = Session(self._trust)
        return session

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | BodyFactory | None = None,
        follow: bool = True,
        retries: int | None = None,
    ) -> requests.Response:
        """One request, tried again where that can help. The answer is streamed: read it or close it.

        Args:
            headers: sent as they are. To another origin only those of `CARRIED` go along: any other may be secret.
            body: bytes, or a factory that opens the body anew for every try.
            follow: follow redirects (GET and HEAD); else a redirect is given back.
            retries: tries after the first; the policy's where None.

        Raises:
            Unreachable: no answer after the last try. An answer with a status of `RETRIED` is given back.
            SourceError: not an address; too many redirects, or one to something that is not HTTP.
        """
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
                sent = {name: value for name, value in sent.items() if name.lower() in CARRIED}
            url = target
        raise SourceError(
            f"{redact(url)}: too many redirects", hint="open the address in a browser, and declare where it ends"
        )

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
                    auth=as_given,
                    stream=True,
                    allow_redirects=False,
                    # What is sent is held to the first of them, and a registry may be slow to take a block.
                    timeout=(policy.read_timeout if callable(body) else policy.connect_timeout, policy.read_timeout),
                )
            # urllib3's own errors come through where a host's name cannot be one.
            except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
                taken = time.monotonic() - started
                _log.debug("%s %s: %s after %.3f s", method, redact(url), describe(error), taken)
                self._check_trust(method, url, error, last=last)
                if last or not _may_pass(error):
                    raise Unreachable(
                        f"{method} {redact(url)} failed",
                        cause=describe(error),
                        hint="check the address, the network and the proxy settings (HTTPS_PROXY, NO_PROXY)",
                    ) from None
                wait = self._backoff(attempt)
            else:
                taken = time.monotonic() - started
                _log.debug("%s %s: %d in %.3f s%s", method, redact(url), response.status_code, taken, _sizes(response))
                if response.status_code not in RETRIED:
                    return response
                wait = max(self._backoff(attempt), retry_after(response.headers.get("Retry-After")))
                if last or wait > LONGEST_WAIT:
                    return response
                _discard(response)
            self._sleep(wait)
        raise AssertionError("unreachable: the last try returns or raises")

    def _check_trust(self, method: str, url: str, error: Exception, *, last: bool) -> None:
        """Raises:
        Untrusted: `error` is about certificates, and another try would end in the same way.
        """
        trouble = tls.trouble_of(error, presented=self._trust.presents(origin(url)))
        if trouble is not None and (last or trouble is not tls.Trouble.HUNG_UP):
            message, hint = f"{method} {redact(url)} failed", _ADVICE.get(trouble, "ask whoever runs that server")
            cause = tls.describe(trouble, error)
            raise tls.Untrusted(message, trouble=trouble, cause=cause, hint=hint) from None

    def pause(self, attempt: int, *, least: float = 0) -> None:
        """Waits before try number `attempt` + 1 of something that this client cannot repeat by itself.

        Args:
            least: seconds that a server asks for.
        """
        self._sleep(max(self._backoff(attempt), least))

    def _backoff(self, attempt: int) -> float:
        return self.policy.backoff * float(2**attempt) * (0.5 + random.random())  # noqa: S311  # jitter, no secret


def _sizes(response: requests.Response) -> str:
    """What went and what will come, in bytes, where HTTP says it."""
    sent, coming = response.request.headers.get("Content-Length"), response.headers.get("Content-Length")
    if response.request.method == "HEAD":
        coming = None  # it is what a GET would get
    told = [f"{count} B {where}" for count, where in ((sent, "sent"), (coming, "to come")) if is_count(count or "")]
    return f", {', '.join(told)}" if told else ""


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
        raise SourceError(
            f"{redact(url)} redirects to an address that cannot be parsed",
            hint="declare the address that it should lead to",
        ) from None
    if not host or scheme not in ("http", "https") or (origin(url)[0] == "https" and scheme == "http"):
        raise SourceError(
            f"{redact(url)} redirects to {redact(target)}",
            cause="that is not a safe address to follow",
            hint="declare the address that it should lead to",
        )
    return target


def _may_pass(error: Exception) -> bool:
    if isinstance(error, requests.exceptions.SSLError):
        return any(isinstance(cause, ssl.SSLEOFError) for cause in tls.causes(error))
    return isinstance(error, (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError))


_ADVICE = {
    tls.Trouble.UNKNOWN: f"name a file with the certificate of its authority in {tls.BUNDLES[-1]}",
    tls.Trouble.EARLY: "check this machine's clock",
    tls.Trouble.EXPIRED: "check this machine's clock; if it is right, that server's certificate must be renewed",
}

_KNOWN = {
    "InvalidURL": "the host's name cannot be one",
    "LocationParseError": "the host's name cannot be one",
    "ConnectTimeoutError": "no connection in time",
    "NameResolutionError": "the host's name cannot be resolved",
    "ReadTimeoutError": "no answer in time",
    "TimeoutError": "no answer in time",
}


_TUNNEL = re.compile(r"Tunnel connection failed: (\d{3})\b")


def describe(error: BaseException) -> str:
    """Why a request failed, in a few words and without its address (which may be signed)."""
    text = type(error).__name__
    for seen in tls.causes(error):
        if isinstance(seen, OSError) and seen.strerror:
            return seen.strerror
        refused = _TUNNEL.match(str(seen)) if isinstance(seen, OSError) else None
        if refused:
            return f"the proxy does not let us through: it answered {refused[1]}"
        text = type(seen).__name__ if "Error" in type(seen).__name__ else text
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
