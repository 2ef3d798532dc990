"""What a registry's refusals mean, as errors that a person can act on.

Error bodies are those of distribution-spec 1.1, "Error Codes". They come from outside: bounded,
freed of control characters, and with their addresses redacted before they are shown.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass

import requests

from layerbuild import addresses, http
from layerbuild.errors import (
    BlobUnknown,
    DestinationDown,
    DestinationError,
    LayerbuildError,
    LoginRequired,
    SourceError,
    Unreachable,
)
from layerbuild.registry import certificates
from layerbuild.tls import Untrusted

_LARGEST_ERROR = 64 * 1024
_LONGEST_QUOTE = 300
_LONGEST_CLEANED = 8 * _LONGEST_QUOTE
_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]{0,20}://[^\s\"'<>]+")


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """What a registry said: the status, its codes in upper case, and its words."""

    status: int
    codes: tuple[str, ...]
    words: str

    def has(self, *codes: str) -> bool:
        """Whether one of `codes` is among those that the registry named."""
        return any(code in self.codes for code in codes)


def clean(text: str) -> str:
    """`text` from outside as it may be shown: one line, at most 300 characters, addresses redacted."""
    text = " ".join("".join(c if c.isprintable() else " " for c in text[:_LONGEST_CLEANED]).split())
    text = _URL.sub(lambda match: addresses.redact(match.group()), text)
    return text if len(text) <= _LONGEST_QUOTE else text[: _LONGEST_QUOTE - 1] + "…"


def finish(response: requests.Response, *, limit: int = _LARGEST_ERROR) -> bytes:
    """Reads a small answer so that its connection can be used again, and closes it.

    Raises:
        SourceError: more than `limit` bytes came, or fewer than were announced.
    """
    if response.request.method == "HEAD":
        response.raw.read()
        response.close()
        return b""
    return b"".join(http.chunks(response, limit=limit))


def drain(response: requests.Response) -> None:
    """Reads and closes an answer of which status and headers say all. What its body does is no news."""
    with contextlib.suppress(SourceError):
        finish(response)


def whole(
    ask: Callable[[], requests.Response], client: http.Client, *, limit: int = _LARGEST_ERROR
) -> tuple[requests.Response, bytes]:
    """A small answer and its body. It is asked for again where that breaks off.

    Raises:
        Unreachable: it broke off each time.
        SourceError: more than `limit` bytes came.
        LayerbuildError: whatever `ask` raises.
    """
    attempt = 0
    while True:
        response = ask()
        try:
            return response, finish(response, limit=limit)
        except Unreachable:
            attempt += 1
            if attempt > client.policy.retries:
                raise
            client.pause(attempt)


def read_refusal(response: requests.Response, scrub: Callable[[str], str]) -> Refusal:
    """Reads and closes `response`. Never raises: what cannot be read is no news.

    Args:
        scrub: takes known secrets out of a text, in case the registry repeats them.
    """
    try:
        body = finish(response)
    except SourceError:
        body = b""
    codes: list[str] = []
    words: list[str] = []
    for code, text in _errors(body):
        codes.append(code.upper())
        words.append(f"{code}: {text}" if code and text else code or text)
    if not words and response.headers.get("Content-Type", "").startswith("text/plain"):
        words = [body.decode("utf-8", "replace")]
    return Refusal(
        status=response.status_code,
        codes=tuple(codes),
        words=clean(scrub("; ".join(words))),
    )


def _errors(body: bytes) -> list[tuple[str, str]]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return []
    listed = document.get("errors") if isinstance(document, dict) else None
    found = []
    for item in listed[:3] if isinstance(listed, list) else []:
        if isinstance(item, dict):
            code, message = item.get("code"), item.get("message")
            found.append((code if isinstance(code, str) else "", message if isinstance(message, str) else ""))
    return found


def unreachable(host: str, error: LayerbuildError) -> DestinationDown:
    """The error for a registry that does not answer."""
    message, cause, hint = _no_answer(host, error)
    return DestinationDown(message, cause=cause, hint=hint)


def broken_off(host: str, error: LayerbuildError) -> DestinationError:
    """The error for an upload that breaks off each time: smaller ones may pass."""
    message, cause, hint = _no_answer(host, error)
    return DestinationError(message, cause=cause, hint=hint)


def _no_answer(host: str, error: LayerbuildError) -> tuple[str, str, str | None]:
    hint: str | None = f"check that {host} is right and up, and the network and proxy settings (HTTPS_PROXY, NO_PROXY)"
    if isinstance(error, Untrusted):
        hint = certificates.advice(error.trouble, host) or error.hint
    return f"the registry {host} cannot be reached", error.cause or error.message, hint


def login_required(host: str, action: str, cause: str) -> LoginRequired:
    """The error for a registry that wants another login, or any."""
    return LoginRequired(
        f"the registry {host} does not allow us to {action}",
        cause=cause,
        hint=f"run `layerbuild login {host}` with an account that may do this, or `docker login` or `podman login`",
    )


def error_for(refusal: Refusal, *, host: str, action: str) -> DestinationError:
    """The error for an answer that was not hoped for.

    Args:
        refusal: what the registry said.
        host: of the registry.
        action: what we wanted, as a verb phrase: `upload sha256:… to acme/a`.
    """
    said = f"it answered {refusal.status}" + (f", {refusal.words}" if refusal.words else "")
    status = refusal.status
    if "quota" in refusal.words.lower() or status == 507:
        hint = "ask for more room there, or delete what is no longer needed"
        return DestinationError(f"the registry {host} has no room to {action}", cause=said, hint=hint)
    if status in (401, 403):
        return login_required(host, action, said)
    kind = BlobUnknown if refusal.has("MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN") else DestinationError
    return kind(f"the registry {host} refuses to {action}", cause=said, hint=_hint(refusal, host))


def _hint(refusal: Refusal, host: str) -> str:
    status = refusal.status
    if status == 405 or refusal.has("UNSUPPORTED") or "read-only" in refusal.words or "readonly" in refusal.words:
        return f"{host} is read-only or in maintenance: push elsewhere, or wait until it takes uploads"
    if status == 413:
        return "the registry, or a proxy before it, limits the size of a request: have that limit raised"
    if status == 429 or refusal.has("TOOMANYREQUESTS"):
        return "the registry limits the rate of requests: wait, or log in with an account that may do more"
    if refusal.has("NAME_INVALID"):
        return "this registry does not take that name: change the image's name or the prefix"
    if refusal.has("NAME_UNKNOWN") or status == 404:
        return "check the name; some registries want a repository to be created before the first push"
    if refusal.has("DIGEST_INVALID", "SIZE_INVALID"):
        return "the bytes changed while they were sent: run the command again, and check memory and disk if it recurs"
    if refusal.has("MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN"):
        return "a blob that was there has gone, maybe by garbage collection: run the command again"
    if status >= 500:
        return "the registry is in trouble: try again later, or ask whoever runs it"
    return "ask whoever runs the registry, with the words above"
