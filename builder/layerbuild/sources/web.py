"""`https://` and `http://`: a file at an address, pinned by its sha256.

Plain HTTP is as good as TLS here, because no byte is used that its digest does not vouch for.
Where no digest is declared, the file is fetched once and what came is recorded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import partial
from urllib.parse import parse_qsl, unquote, urlsplit

import requests

from layerbuild import addresses
from layerbuild.errors import AccessDenied, SourceError
from layerbuild.model import Content, Pin, PinnedFile
from layerbuild.paths import safe_relative
from layerbuild.sources.base import Context, Request, agree, declared, one_file_only, require_online
from layerbuild.sources.transfer import Remote, is_page, probe_size, read, refusal

_SECRET_PARAMETERS = frozenset(
    (
        *("access_token", "api_key", "apikey", "key-pair-id", "password", "sig", "signature", "token"),
        *("x-amz-credential", "x-amz-security-token", "x-amz-signature", "x-goog-credential", "x-goog-signature"),
    )
)


class WebSource:
    """Reads files from web servers."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def resolve(self, request: Request) -> Pin:
        """See `Source.resolve`. No request is made where sha256 and size are declared.

        Raises:
            SourceError: the address cannot be one, or holds a secret.
            NotFound, AccessDenied, Unreachable: the server says so, or nothing.
            ContentMismatch: another size than the declared one.
        """
        url = _checked(request.uri)
        one_file_only(request)
        sha256, size = declared(request)
        if sha256 is None:
            content = self._fetch_once(url)
            agree(request, content, who="the server")
        else:
            if size is None:
                require_online(self._context, f"the size of {addresses.redact(url)}")
                size = probe_size(self._remote(url, None))
            content = Content(sha256=sha256, size=size)
        return Pin(source=url, files=(PinnedFile(path=_name(url), content=content),))

    def open(self, pin: Pin, file: PinnedFile, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """See `Source.open`. A download that breaks off is resumed.

        Raises:
            NotFound, AccessDenied, Unreachable: the server says so, or nothing.
            ContentMismatch: another size than the pinned one.
        """
        url = _checked(pin.source)
        require_online(self._context, f"the content of {addresses.redact(url)}")
        return read(self._remote(url, file.content.size), offset=offset, length=length)

    def _remote(self, url: str, size: int | None, *, pinned: bool = True) -> Remote:
        what = addresses.redact(url)
        check = partial(_check, url)
        return Remote(client=self._context.client, url=url, what=what, check=check, size=size, pinned=pinned)

    def _fetch_once(self, url: str) -> Content:
        what = addresses.redact(url)
        require_online(self._context, f"the sha256 of {what}")
        digest, size = hashlib.sha256(), 0
        with self._context.progress.task(f"hashing {what}") as task:
            for chunk in read(self._remote(url, None, pinned=False)):
                digest.update(chunk)
                size += len(chunk)
                task.advance(len(chunk))
        self._context.progress.note(f"nobody publishes a digest of {what}: fetched once and recorded what came")
        return Content(sha256=digest.hexdigest(), size=size)


def _checked(uri: str) -> str:
    """`uri` without its fragment, if it may be asked for and may stand in a lock."""
    shown = addresses.redact(uri)
    try:
        parts = urlsplit(uri)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise SourceError(f"{shown} is not an address", hint="check it") from None
    if not host or not uri.isprintable() or " " in uri:
        raise SourceError(f"{shown} is not an address", hint="percent-encode what is no letter, digit or -._~/")
    if parts.username is not None or parts.password is not None:
        raise SourceError(
            f"{shown} has a user name in it",
            cause="declarations and locks are shared, passwords are not",
            hint="remove it; use an address that needs no login, or file: for what you have already",
        )
    secret = [name for name, _ in parse_qsl(parts.query) if name.lower() in _SECRET_PARAMETERS]
    if secret:
        raise SourceError(
            f"{shown} has a secret in it",
            cause=f"the parameter {secret[0]} would end up in the lock, which is shared",
            hint="use an address that needs no signature or token",
        )
    return parts._replace(fragment="").geturl()


def _name(url: str) -> str:
    """The last component of the address's path, decoded."""
    name = unquote(urlsplit(url).path.rpartition("/")[2]).rpartition("/")[2]
    return safe_relative(name or "download", origin=addresses.redact(url))


def _check(url: str, response: requests.Response) -> None:
    what = addresses.redact(url)
    error = refusal(response, what)
    if error is not None:
        raise error
    if is_page(response) and not urlsplit(url).path.lower().endswith((".html", ".htm")):
        raise AccessDenied(
            f"{what} is a web page instead of a file",
            cause="the server answered with text/html: a login, a licence or an error page",
            hint="open the address in a browser to see what it asks for, and use the address of the file itself",
        )
