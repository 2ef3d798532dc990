"""The uv command (PyPI's `uv`), which chooses Python packages, and builds those that are named for it.

A run sees no configuration of the user's but logins in `.netrc`, proxies and certificates,
fetches no Python and asks no question.
"""

from __future__ import annotations

import re
import ssl
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from layerbuild import addresses
from layerbuild.errors import AccessDenied, NotFound, SourceError, Unreachable, UsageError
from layerbuild.sources.base import words
from layerbuild.tls import BUNDLES

ROUTES = frozenset(
    (
        *("PATH", "TMPDIR", "LD_LIBRARY_PATH", "SSL_CERT_DIR", "UV_SYSTEM_CERTS"),
        *("http_proxy", "https_proxy", "HTTPS_PROXY", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"),
    )
)
"""Variables that say where programs are, and how to get out."""

_KEPT = ROUTES | {"HOME", "XDG_CACHE_HOME", "UV_CACHE_DIR", "NETRC", "SSL_CLIENT_CERT", "UV_KEYRING_PROVIDER"}
"""Variables that reach uv."""

_TIMEOUT = 1800
_MAX_OUTPUT = 64 * 1024 * 1024
_URL = re.compile(r"https?://[^\s'\"<>`]+")

_CAUSES: tuple[tuple[type[SourceError], str, str], ...] = (
    (
        AccessDenied,
        r"\b(?:401|403)\b",
        "put a login for the index into ~/.netrc, which layerbuild reads too",
    ),
    (
        Unreachable,
        r"dns error|client error|connection|timed out|error sending request|network connectivity",
        "check the addresses of the indexes, the network and the proxy settings (HTTPS_PROXY, NO_PROXY)",
    ),
    (
        NotFound,
        r"no usable wheels|building (?:from source|source distributions).* (?:is|are) disabled|has no wheels",
        "name the packages that may be built from source under 'build'",
    ),
    (
        NotFound,
        r"no solution found|unsatisfiable|not found in the package registry",
        "loosen the requirements, add 'constraints', or name another index under 'indexes'",
    ),
)


def run(
    environ: Mapping[str, str],
    *arguments: str,
    directory: Path,
    what: str,
    alone: bool = False,
    further: Mapping[str, str] | None = None,
) -> bytes:
    """What uv prints on stdout.

    Args:
        directory: where it runs.
        what: has failed if it fails, for messages.
        alone: whether what it runs may know nothing of the user: neither logins nor the home directory.
        further: variables for what it runs.

    Raises:
        UsageError: uv is not installed.
        SourceError: it failed; the subclass says why.
    """
    command = [_program(), *arguments, "--no-config", "--no-python-downloads", "--no-progress", "--color", "never"]
    kept = ROUTES if alone else _KEPT
    environment = {k: v for k, v in environ.items() if k in kept}
    if alone:
        environment |= {"HOME": str(directory), "UV_CACHE_DIR": _cache(environ)}
    environment |= further or {}
    trusted = next((environ[name] for name in BUNDLES if environ.get(name)), None)
    # The certificates that layerbuild itself trusts. uv alone would not ask the system.
    if trusted is not None:
        environment["SSL_CERT_FILE"] = trusted
    elif ssl.create_default_context().cert_store_stats()["x509_ca"] or _has_directory_of_certificates():
        environment |= {"UV_SYSTEM_CERTS": "1", "UV_NATIVE_TLS": "1"}  # the second in older ones
    try:
        done = subprocess.run(
            command,
            cwd=directory,
            env={**environment, "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Unreachable(f"{what}: uv took more than {_TIMEOUT} s", hint="run the command again") from None
    except OSError as error:
        raise SourceError(f"{what}: uv cannot be run", cause=error.strerror, hint=_INSTALL) from None
    if done.returncode:
        raise _failure(what, done.stderr, directory)
    if len(done.stdout) > _MAX_OUTPUT:
        raise SourceError(f"{what}: uv says more than {_MAX_OUTPUT} bytes", hint="name fewer packages in one layer")
    return done.stdout


def _has_directory_of_certificates() -> bool:
    path = ssl.get_default_verify_paths().capath
    return path is not None and any(Path(path).iterdir())


def _cache(environ: Mapping[str, str]) -> str:
    """Where uv keeps what it has fetched (its documentation, "Caching")."""
    below = environ.get("XDG_CACHE_HOME") or f"{environ.get('HOME') or '.'}/.cache"
    return environ.get("UV_CACHE_DIR") or f"{below}/uv"


_INSTALL = "pip install 'layerbuild[python]'"


def _program() -> str:
    try:
        from uv import find_uv_bin  # noqa: PLC0415  # an extra
    except ImportError:
        raise UsageError("Python packages are chosen by uv, which is not installed", hint=_INSTALL) from None
    try:
        return str(find_uv_bin())
    except FileNotFoundError as error:
        raise UsageError("uv is not whole", cause=str(error)[:200], hint=_INSTALL) from None


def _failure(what: str, stderr: bytes, directory: Path) -> SourceError:
    said = said_by(stderr, (directory,))
    for kind, pattern, hint in _CAUSES:
        if re.search(pattern, said, re.IGNORECASE):
            return kind(what, cause=said, hint=hint)
    return SourceError(what, cause=said or "uv says nothing", hint="run uv by hand to see more")


def said_by(stderr: bytes, directories: Sequence[Path]) -> str:
    """What a program said, fit to be shown: without secrets of addresses, and without paths of this run."""
    text = stderr[-16384:].decode(errors="replace")
    for directory in directories:
        text = text.replace(f"{directory}/", "")
    return words(_URL.sub(lambda match: addresses.redact(match[0]), text), limit=1500)
