"""`https://` and `http://`: a file at an address, pinned by its sha256.

Plain HTTP is as good as TLS here, because no byte is used that its digest does not vouch for.
Where no digest is declared, the file is fetched once and what came is recorded.

Logins are those of `.netrc`, or of the declaration's headers, which refer to variables. Both go to
the origin of the address, over TLS or within this machine, and no further.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from urllib.parse import parse_qsl, unquote, urlsplit

import requests

from layerbuild import addresses, headers
from layerbuild.errors import AccessDenied, SourceError
from layerbuild.model import Content, Pin, PinnedFile
from layerbuild.paths import safe_relative
from layerbuild.sources.base import Context, Request, agree, declared, fetched_once, one_file_only, require_online
from layerbuild.sources.endpoints import confidential
from layerbuild.sources.netrcfile import authorization
from layerbuild.sources.transfer import Remote, is_page, probe_size, read, refusal

_LOGIN_SENT = "check that the login in ~/.netrc or `headers` is right, and may read it"
_LOGIN_NEEDED = "if it is not public, put a login for its host into ~/.netrc, or declare `headers` with ${VARIABLE}"

Headers = tuple[tuple[str, str], ...]

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

    def checked(self, uri: str) -> str:
        """`uri` as it may stand in a lock: without its fragment.

        Raises:
            SourceError: it cannot be an address, or holds a secret.
        """
        return checked_address(uri)

    def pinned(self, request: Request, content: Content) -> Pin:
        """The pin of `request`, where somebody else knows the content."""
        url = checked_address(request.uri)
        return Pin(source=url, files=(PinnedFile(path=_name(url), content=content),))

    def resolve(self, request: Request) -> Pin:
        """See `Source.resolve`. No request is made where sha256 and size are declared.

        Raises:
            SourceError: the address cannot be one, or holds a secret.
            NotFound, AccessDenied, Unreachable: the server says so, or nothing.
            ContentMismatch: another size than the declared one.
        """
        url = checked_address(request.uri)
        one_file_only(request)
        sha256, size = declared(request)
        if sha256 is None:
            content = self._fetch_once(url, request.headers)
            agree(request, content, who="the server")
        else:
            if size is None:
                require_online(self._context, f"the size of {addresses.redact(url)}")
                size = probe_size(self._remote(url, request.headers, None))
            content = Content(sha256=sha256, size=size)
        return self.pinned(request, content)

    def open(self, pin: Pin, file: PinnedFile, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """See `Source.open`. A download that breaks off is resumed.

        Raises:
            NotFound, AccessDenied, Unreachable: the server says so, or nothing.
            ContentMismatch: another size than the pinned one.
        """
        url = checked_address(pin.source)
        require_online(self._context, f"the content of {addresses.redact(url)}")
        return read(self._remote(url, pin.headers, file.content.size), offset=offset, length=length)

    def _remote(self, url: str, declared: Headers, size: int | None, *, pinned: bool = True) -> Remote:
        what = addresses.redact(url)
        sent = self._headers(url, declared, what)
        return Remote(
            client=self._context.client,
            url=url,
            what=what,
            check=partial(_check, url, bool(sent)),
            headers=sent,
            size=size,
            pinned=pinned,
        )

    def _headers(self, url: str, declared: Headers, what: str) -> dict[str, str]:
        if headers.refer(declared) and not confidential(url):
            raise SourceError(
                f"{what}: a header that refers to a variable would be sent in the clear",
                hint="use https://, or remove it from the declaration",
            )
        sent = headers.resolved(declared, self._context.environ, what=what)
        login = None if "authorization" in map(str.lower, sent) else authorization(self._context, url)
        return {**sent, "Authorization": login} if login else sent

    def _fetch_once(self, url: str, declared: Headers) -> Content:
        what = addresses.redact(url)
        require_online(self._context, f"the sha256 of {what}")
        return fetched_once(self._context, read(self._remote(url, declared, None, pinned=False)), _name(url), what)


def checked_address(uri: str) -> str:
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
            hint="remove it, and put it into ~/.netrc, or into a variable that `headers` refer to",
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


def _check(url: str, known: bool, response: requests.Response) -> None:
    """Judges an answer. `known`: a login or other headers were sent."""
    what = addresses.redact(url)
    error = refusal(response, what)
    if isinstance(error, AccessDenied):
        raise AccessDenied(error.message, cause=error.cause, hint=_LOGIN_SENT if known else _LOGIN_NEEDED)
    if error is not None:
        raise error
    if is_page(response) and not urlsplit(url).path.lower().endswith((".html", ".htm")):
        raise AccessDenied(
            f"{what} is a web page instead of a file",
            cause="the server answered with text/html: a login, a licence or an error page",
            hint="open the address in a browser to see what it asks for, and use the address of the file itself",
        )
