"""Secrets that an image carries: files, environment and history. No value is ever repeated."""

from __future__ import annotations

import re
from collections.abc import Iterator

from layerbuild.audit.findings import Finding, printable
from layerbuild.audit.interest import is_secret_path
from layerbuild.audit.view import ImageView

_NAME = re.compile(
    r"(?:^|_)(?:TOKENS?|SECRETS?|PASSWORD|PASSWD|APIKEY|API_KEY|ACCESS_KEY|PRIVATE_KEY|CREDENTIALS?)(?:$|_)"
)
_PUBLIC_NAME = re.compile(r"(?:_FILE|_PATH|_DIR|_URL|_TIMEOUT|_LIMIT|_ID|TOKENIZERS_PARALLELISM)$")
_VALUES = (
    ("a Hugging Face token", re.compile(r"\bhf_[A-Za-z0-9]{20,}")),
    ("an AWS access key", re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b")),
    ("a GitHub token", re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,})")),
    ("a GitLab token", re.compile(r"\bglpat-[\w-]{16,}")),
    ("a private key", re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY")),
    ("a password in an address", re.compile(r"\b[a-z][a-z0-9+.-]{1,15}://[^\s/:@$'\"]*:[^\s/@$'\"{]+@")),
    ("an Authorization header", re.compile(r"(?i)authorization\s*[:=]\s*(?:bearer|basic|token)\s+(?!\$)[^\s'\"]{8,}")),
    (
        "a token in an address",
        re.compile(r"(?i)[?&](?:token|api[_-]?key|access_token|sig|X-Amz-Signature)=(?!\$)[^\s&'\"]{8,}"),
    ),
)
_BUILD_ARGUMENT = re.compile(r"\b([A-Za-z_]\w*)=(?!\$)(\S+)")
_SCANNED = 64 * 1024
_ROTATE = "revoke it, and pass a new one when the container runs"


def check(view: ImageView) -> Iterator[Finding]:
    """Files by their names, visible or deleted by a later layer; variables and history by names and values."""
    yield from _files(view)
    yield from _environment(view)
    yield from _history(view)


def _files(view: ImageView) -> Iterator[Finding]:
    for path, node in view.files.everything():
        if node.type == "file" and node.size and is_secret_path(path):
            yield Finding(
                id="secret-file",
                severity="error",
                paths=(path,),
                what="a file that holds credentials is in the image",
                hint=f"{_ROTATE}; build without it: deleting it in a later layer hides it from nobody",
            )
    for hidden in view.files.hidden:
        if is_secret_path(hidden.path):
            yield Finding(
                id="secret-file",
                severity="error",
                paths=(hidden.path,),
                what=f"layer {hidden.layer + 1} holds credentials; a later layer hides them, anybody can read them",
                hint=f"{_ROTATE}; use a build secret (RUN --mount=type=secret)",
            )


def _environment(view: ImageView) -> Iterator[Finding]:
    texts = {**{f"variable {k}": (k, v) for k, v in view.runtime.env.items()}}
    texts |= {f"label {k}": ("", v) for k, v in view.runtime.labels.items()}
    for where, (name, value) in texts.items():
        kind = _kind(value) or ("a secret by its name" if _is_secret(name, value) else None)
        if kind:
            yield Finding(
                id="secret-in-config",
                severity="error",
                paths=(),
                what=f"the image config's {printable(where)[:100]} holds {kind}",
                hint=f"{_ROTATE} (docker run -e, or the platform's secrets)",
            )


def _history(view: ImageView) -> Iterator[Finding]:
    for number, line in enumerate(view.runtime.history, 1):
        text = line[:_SCANNED]
        names = [name for name, value in _BUILD_ARGUMENT.findall(text) if _is_secret(name, value)]
        kind = _kind(text) or (f"a value for {printable(names[0])[:60]}" if names else None)
        if kind and not _is_of_environment(view, names, text):
            yield Finding(
                id="secret-in-history",
                severity="error",
                paths=(),
                what=f"line {number} of the image's history holds {kind}",
                hint=f"{_ROTATE}; use a build secret (RUN --mount=type=secret) and no --build-arg",
            )


def _is_of_environment(view: ImageView, names: list[str], text: str) -> bool:
    """Whether the line only repeats an ENV that is reported by itself."""
    return bool(names) and text.startswith("ENV ") and all(name in view.runtime.env for name in names)


def _kind(text: str) -> str | None:
    return next((kind for kind, pattern in _VALUES if pattern.search(text[:_SCANNED])), None)


def _is_secret(name: str, value: str) -> bool:
    name = name.upper()
    plain = value.strip("'\"")
    known = plain and not plain.startswith("$") and plain.lower() not in ("true", "false", "0", "1", "none", "null")
    return bool(known) and _NAME.search(name) is not None and _PUBLIC_NAME.search(name) is None
