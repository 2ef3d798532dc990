"""What may be said of an address, and to whom a credential for it belongs. Pure."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit


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
