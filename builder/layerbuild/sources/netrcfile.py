"""Logins from `.netrc`, where curl and git keep them too: the file that `NETRC` names, or `~/.netrc`.

Only lines for a machine count. A `default` line would send a password to whatever host a declaration names.
"""

from __future__ import annotations

import base64
import netrc
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from layerbuild.errors import SourceError
from layerbuild.sources.base import Context
from layerbuild.sources.endpoints import confidential

_LARGEST = 1024 * 1024

Logins = Mapping[str, tuple[str, str, str]]


def authorization(context: Context, url: str) -> str | None:
    """The `Authorization` header for the host of `url`; None without a login, or where it could be overheard.

    Raises:
        SourceError: the file cannot be read.
    """
    path = _path(context.environ)
    host = (urlsplit(url).hostname or "").lower()
    if path is None or not confidential(url):
        return None
    logins = context.memo.get(("netrc", str(path)), lambda: _read(path))
    if host not in logins:
        return None
    login, _, password = logins[host]
    return "Basic " + base64.b64encode(f"{login}:{password}".encode()).decode()


def _path(environ: Mapping[str, str]) -> Path | None:
    if environ.get("NETRC"):
        return Path(environ["NETRC"])
    return Path(environ["HOME"]) / ".netrc" if environ.get("HOME") else None


def _read(path: Path) -> Logins:
    try:
        if not path.is_file():
            return {}
        if path.stat().st_size > _LARGEST:
            raise SourceError(f"{path} is too large", hint="is that a .netrc file? check NETRC")
        found = netrc.netrc(str(path)).hosts
    except netrc.NetrcParseError as error:
        # Its message may repeat a password.
        raise SourceError(
            f"{path} is no .netrc file", cause=f"line {error.lineno} cannot be understood", hint="correct it"
        ) from None
    except UnicodeDecodeError:
        raise SourceError(f"{path} is no .netrc file", cause="it is not text", hint="check NETRC") from None
    except OSError as error:
        raise SourceError(f"{path} cannot be read", cause=error.strerror, hint="make it readable for you") from None
    machines = {host.lower(): entry for host, entry in found.items() if host != "default"}
    return {host: (entry[0] or "", entry[1] or "", entry[2] or "") for host, entry in machines.items()}
