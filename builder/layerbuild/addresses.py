"""What may be said of an address, and to whom a credential for it belongs. Pure."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urlsplit, urlunsplit

_SESSION = re.compile(r"(/v2/.+/blobs/uploads/).+")
"""An upload: whoever knows its address can write to it (OCI distribution-spec 1.1, "Pushing blobs")."""


_AMBIGUOUS = re.compile(r"[\\\x00-\x20]")
"""What some readers of addresses end a host with, and others leave out or pass over."""


def redact(url: str) -> str:
    """`url` as it may be shown: no user info, no query, no fragment, no name of an upload session. Signed
    addresses carry their secret in the query."""
    try:
        parts = _split(url)
        host = parts.hostname or ""
        host = f"[{host}]" if ":" in host else host
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "(an address that cannot be parsed)"
    query = "…" if parts.query else ""
    return urlunsplit((parts.scheme, host + port, _SESSION.sub(r"\1…", parts.path), query, ""))


def origin(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port: what a credential belongs to (RFC 6454).

    Raises:
        ValueError: it is no address, or one that another reader may find another host in.
    """
    parts = _split(url)
    default = {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or default


def _split(url: str) -> SplitResult:
    if _AMBIGUOUS.search(url):
        raise ValueError("it has a backslash, a space or a control character")
    return urlsplit(url)
