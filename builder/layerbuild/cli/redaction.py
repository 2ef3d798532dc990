"""What `-v` and `--debug` print, without its secrets.

Messages of errors never hold one. Exceptions of other libraries, which a traceback shows, may hold anything: an
address that is signed, a header, a variable's value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from layerbuild.addresses import redact

HIDDEN = "…"
"""What stands where a secret was."""

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>]+")
_TARGET = re.compile(r"(with url: [^\s?]*)\?[^\s'\")]*")
"""What urllib3 says of a request: its target without the host."""

_WORDS = r"(?:authorization|cookie|password|passwd|secret|token|api[_-]?key)"
_VALUE = r"[^&\s'\")]+"

_PATTERNS = (
    # Values of headers and fields, as Python shows them, and as they are sent.
    (re.compile(rf"(?i)({_WORDS}['\"]?\s*[:=]\s*)(['\"]).*?\2"), rf"\1{HIDDEN}"),
    (re.compile(rf"(?i)({_WORDS}=){_VALUE}"), rf"\1{HIDDEN}"),
    (re.compile(r"(?i)(\bauthorization:\s*)[^\s'\"][^\r\n'\"]*"), rf"\1{HIDDEN}"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{4,}"), rf"\1 {HIDDEN}"),
    (re.compile(r"(?i)(header (?:part|value)).*"), rf"\1 {HIDDEN}"),
    (re.compile(rf"(?i)([?&;][\w-]*(?:sig|token|key|secret|credential|password)[\w-]*=){_VALUE}"), rf"\1{HIDDEN}"),
    # What services' own tokens look like.
    (re.compile(r"\b(?:hf_|ghp_|gho_|github_pat_|glpat-|dckr_pat_)\w{4,}"), HIDDEN),
)

_SECRET_NAME = re.compile(r"(?i)token|secret|passw|key|credential|auth|signature|cookie")
_PLAIN_NAME = re.compile(r"\A(?:PATH|PWD|HOME|SHELL|LANG|LC_\w+|TERM|\w*_PROGRAM|HOSTNAME|PYTEST_\w+|COLORTERM)\Z")
_PLACE = re.compile(r"(?:/[a-z0-9._-]+)+/?")
_SHORT = 4
"""Characters of a value that may be a secret, where the variable's name says so."""

_LONG = 16
"""Characters of a variable's value that may be a secret, whatever it is called: a declaration can name any."""


def scrub(text: str, environ: Mapping[str, str]) -> str:
    """`text` without signed addresses, headers that log in, and values of variables that may be secret."""
    text = _ADDRESS.sub(lambda match: redact(match[0]), text)
    text = _TARGET.sub(rf"\1?{HIDDEN}", text)
    for pattern, kept in _PATTERNS:
        text = pattern.sub(kept, text)
    for value in sorted(_secrets(environ), key=len, reverse=True):
        text = text.replace(value, HIDDEN)
    return text


def _secrets(environ: Mapping[str, str]) -> Iterator[str]:
    for name, value in environ.items():
        if _PLAIN_NAME.match(name) or not value:
            continue
        if _SECRET_NAME.search(name):
            # Base64 may begin with a slash, and a passphrase has spaces; an absolute path of words is a place.
            if len(value) >= _SHORT and not _PLACE.fullmatch(value):
                yield value
        elif len(value) >= _LONG and not value.startswith(("/", ".", "~")) and " " not in value:
            yield value
