"""Servers that a variable names, and tokens for them: what sources with an API have in common.

A token goes over TLS or within this machine only, and to its own server's origin only.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from layerbuild import addresses
from layerbuild.errors import SourceError
from layerbuild.wire import is_loopback


def endpoint(environ: Mapping[str, str], variable: str, default: str, *, what: str) -> str:
    """The address that `variable` holds, else `default`; without a trailing slash.

    Args:
        what: what must be there, for the message: `a Hub`.

    Raises:
        SourceError: it is no address of a server, or holds a user name.
    """
    address = (environ.get(variable) or default).rstrip("/")
    try:
        parts = urlsplit(address)
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port or True)
    except ValueError:
        good = False
    if not good or "@" in parts.netloc or parts.query or parts.fragment or not address.isprintable():
        raise SourceError(
            f"{variable} is not the address of {what}: {addresses.redact(address)}",
            hint=f"set it to something like {default}, without a user name",
        )
    return address


def confidential(address: str) -> bool:
    """Whether a secret may be sent there: over TLS, or within this machine."""
    parts = urlsplit(address)
    return parts.scheme == "https" or is_loopback(parts.hostname or "")


def plausible_token(token: str, where: str, *, like: str) -> str:
    """`token`, if it can be one.

    Args:
        where: what holds it, and `like` what one looks like, for the message.

    Raises:
        SourceError: it cannot.
    """
    if not token.isascii() or not token.isprintable() or " " in token:
        raise SourceError(f"{where} does not hold a token", hint=f"a token is one word, like {like}; set it again")
    return token
