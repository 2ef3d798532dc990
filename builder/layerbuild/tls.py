"""Whom TLS believes, as whom it speaks, and what its failures mean.

An address gets a context of its own: authorities are for every place that a request comes to, a client
certificate for one origin and no other, wherever that redirects to.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.util.ssl_ import create_urllib3_context

from layerbuild.errors import Unreachable

Origin = tuple[str, str, int | None]
"""See `addresses.origin`."""

BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
"""Variables that name a file or directory of authorities. The first that is set counts, and in place of all others."""


class Trouble(Enum):
    """What stands between two ends that do not believe each other."""

    UNKNOWN = "nobody that is trusted here has signed its certificate"
    NAME = "its certificate is for another name"
    EXPIRED = "its certificate has expired"
    EARLY = "its certificate is not valid yet"
    WANTED = "it wants a client certificate"
    REFUSED = "it does not take our client certificate"
    HUNG_UP = "it hung up in the middle of TLS"
    PLAIN = "it does not speak TLS there"
    SETUP = "what this machine knows of certificates cannot be used"


class Untrusted(Unreachable):
    """Nobody to talk to over TLS.

    Args:
        trouble: what kind of failure it is; whoever knows the place better has better advice for it.
    """

    page = "pushing.md#tls"
    way_out = "ask whoever runs that server"

    def __init__(
        self, message: str, *, trouble: Trouble = Trouble.SETUP, cause: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, cause=cause, hint=hint)
        self.trouble = trouble


@dataclass(frozen=True, kw_only=True)
class Identity:
    """A client certificate and its key, in PEM files. `origin` alone gets to see it."""

    certificate: Path
    key: Path
    origin: Origin


class Trust:
    """Contexts for connections, each made once. Safe to share between threads.

    Args:
        environ: where `BUNDLES` are looked for. Without any, those of certifi and of the system are believed.
        authorities: PEM files that are believed besides.
        identity: who we are, if anybody asks.
    """

    def __init__(
        self, environ: Mapping[str, str], *, authorities: tuple[Path, ...] = (), identity: Identity | None = None
    ) -> None:
        self._named = next(((name, Path(environ[name])) for name in BUNDLES if environ.get(name)), None)
        self._authorities = authorities
        self._identity = identity
        self._lock = threading.Lock()
        self._contexts: dict[bool, ssl.SSLContext] = {}

    def context(self, where: Origin | None) -> ssl.SSLContext:
        """For a connection to that origin; for one to a proxy if None.

        Raises:
            Untrusted: a file of certificates cannot be used.
        """
        named = self._identity is not None and where == self._identity.origin
        with self._lock:
            if named not in self._contexts:
                self._contexts[named] = self._make(named)
            return self._contexts[named]

    def presents(self, where: Origin) -> bool:
        """Whether a server there gets to see a client certificate."""
        return self._identity is not None and where == self._identity.origin

    def _make(self, named: bool) -> ssl.SSLContext:
        context = create_urllib3_context()
        if self._named is None:
            context.load_default_certs()
            context.load_verify_locations(DEFAULT_CA_BUNDLE_PATH)
        else:
            _believe(context, self._named[1], f"{self._named[0]} names {self._named[1]}, which")
        for path in self._authorities:
            _believe(context, path, str(path))
        if named and self._identity is not None:
            _present(context, self._identity)
        return context


def _believe(context: ssl.SSLContext, path: Path, what: str) -> None:
    try:
        if path.is_dir():
            context.load_verify_locations(capath=path)
        else:
            context.load_verify_locations(cafile=path)
    except ssl.SSLError:
        raise unusable(f"{what} holds no certificates in PEM form") from None
    except OSError as error:
        raise unusable(f"{what} cannot be read: {error.strerror}") from None


class _Locked(Exception):
    """A key wants a passphrase."""


def _no_passphrase() -> str:
    raise _Locked


def _present(context: ssl.SSLContext, identity: Identity) -> None:
    try:
        context.load_cert_chain(identity.certificate, identity.key, password=_no_passphrase)
    except _Locked:
        raise unusable(f"{identity.key} is encrypted, and nobody is asked for its passphrase") from None
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise unusable(f"{identity.key} is not the key of {identity.certificate}") from None
        raise unusable(f"{identity.certificate} or {identity.key} is not in PEM form") from None
    except OSError as error:
        raise unusable(f"{identity.certificate} or {identity.key} cannot be read: {error.strerror}") from None


def unusable(cause: str) -> Untrusted:
    """The error for certificates of this machine that are of no use."""
    return Untrusted(
        "TLS cannot be set up",
        trouble=Trouble.SETUP,
        cause=cause,
        hint="repair that file, or take it away",
    )


_VERIFY = {9: Trouble.EARLY, 10: Trouble.EXPIRED, 62: Trouble.NAME, 64: Trouble.NAME}
"""OpenSSL's X509_V_ERR_...: not yet valid, expired, another host's name, another address."""

_ALERTS = ("BAD_CERTIFICATE", "CERTIFICATE_REQUIRED", "HANDSHAKE_FAILURE")
_REFUSALS = ("UNKNOWN_CA", "CERTIFICATE_EXPIRED", "CERTIFICATE_REVOKED", "CERTIFICATE_UNKNOWN", "UNSUPPORTED_CERT")


def trouble_of(error: BaseException, *, presented: bool) -> Trouble | None:
    """What a failed request says about certificates; None if it is about something else.

    Args:
        presented: whether the server got to see a client certificate.
    """
    for failure in causes(error):
        if isinstance(failure, ssl.SSLCertVerificationError):
            return _VERIFY.get(failure.verify_code, Trouble.UNKNOWN)
        if isinstance(failure, ssl.SSLEOFError):
            return Trouble.HUNG_UP
        if presented and isinstance(failure, ConnectionResetError | BrokenPipeError):
            # TLS 1.3 lets us speak before our certificate was looked at, and what is said of it may get lost.
            return Trouble.HUNG_UP
        if isinstance(failure, ssl.SSLError):
            reason = failure.reason or ""
            if "WRONG_VERSION_NUMBER" in reason or "HTTP_REQUEST" in reason:
                return Trouble.PLAIN
            # What the other end has against us comes as an alert (RFC 8446, 6.2).
            if "ALERT" in reason and any(name in reason for name in (*_ALERTS, *_REFUSALS)):
                return Trouble.REFUSED if presented else Trouble.WANTED
    return None


def causes(error: BaseException) -> Iterator[BaseException]:
    """`error` and what lies behind it, as requests and urllib3 wrap it; some of both is in `args` and `reason`."""
    seen: BaseException | None = error
    for _ in range(16):  # a chain of exceptions may hold a loop
        if seen is None:
            return
        yield seen
        reason = getattr(seen, "reason", None)
        if not isinstance(reason, BaseException):
            reason = next((a for a in seen.args if isinstance(a, BaseException)), None)
        seen = reason or seen.__cause__ or seen.__context__


def describe(trouble: Trouble, error: BaseException) -> str:
    """What happened, in words; OpenSSL's own are with them where they add something."""
    said = next((e for e in causes(error) if isinstance(e, ssl.SSLError)), None)
    if isinstance(said, ssl.SSLCertVerificationError) and trouble in (Trouble.UNKNOWN, Trouble.NAME):
        return f"{trouble.value} ({said.verify_message.rstrip('.')})"
    return f"{trouble.value} ({said.reason})" if said is not None and said.reason else trouble.value
