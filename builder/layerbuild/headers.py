"""Headers that a declaration adds to requests: names, and values that refer to the environment.

`Authorization: Bearer ${MY_TOKEN}`: declarations and locks hold the reference. What it stands for is
looked up when a request is made, and kept nowhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from layerbuild.errors import SourceError

NAME = r"^[0-9A-Za-z][0-9A-Za-z_-]{0,63}$"
"""What a header may be called: less than RFC 9110, 5.1 allows, and all that is in use."""

_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_OURS = re.compile(
    r"accept-encoding|connection|content-.*|expect|host|if-.*|keep-alive|proxy-.*|range|te|trailer|transfer-.*|upgrade",
    re.IGNORECASE,
)
_SECRET = re.compile(r"auth|cookie|credential|key|passw|secret|session|signature|token", re.IGNORECASE)
_LONGEST = 4096


def fault(name: str, value: str) -> str | None:
    """Why a declaration may not have this header, or None if it may. The value is not repeated."""
    if not re.fullmatch(NAME, name):
        return f"{name[:80]!r} cannot be the name of a header"
    if _OURS.fullmatch(name):
        return f"layerbuild itself decides about the header {name}"
    plain = _REFERENCE.sub("", value)
    if "${" in plain:
        return f"the header {name} has a '${{' that begins no reference: write ${{NAME}}"
    if not _sendable(value):
        return f"the value of the header {name} is not printable ASCII, or has spaces around it"
    if _SECRET.search(name) and plain == value:
        return f"the header {name} holds a secret: write ${{NAME}}, and put the value into that variable"
    return None


def refer(headers: Iterable[tuple[str, str]]) -> bool:
    """Whether any of the values comes from the environment: then it is taken to be secret."""
    return any(_REFERENCE.search(value) for _, value in headers)


def resolved(headers: Iterable[tuple[str, str]], environ: Mapping[str, str], *, what: str) -> dict[str, str]:
    """The headers as they are sent.

    Args:
        what: they are sent for, for messages.

    Raises:
        SourceError: a variable is not set, or holds what no header can; or the headers are none.
    """
    found: dict[str, str] = {}
    for name, value in headers:
        reason = fault(name, value)
        if reason is not None:
            raise SourceError(f"{what}: {reason}", hint="correct `headers` in the declaration")
        for variable in _REFERENCE.findall(value):
            if not environ.get(variable):
                raise SourceError(
                    f"{what}: the variable {variable} is not set",
                    cause=f"the header {name} refers to it",
                    hint=f"set {variable}, or remove the header from the declaration",
                )
        sent = _REFERENCE.sub(lambda match: environ[match[1]].strip(), value)
        if not _sendable(sent):
            raise SourceError(
                f"{what}: the header {name} cannot be sent",
                cause="a variable that it refers to holds a line break, or is too long, or not ASCII",
                hint="set the variable again",
            )
        found[name] = sent
    return found


def _sendable(value: str) -> bool:
    return 0 < len(value) <= _LONGEST and value.isascii() and value.isprintable() and value == value.strip()
