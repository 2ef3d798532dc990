"""Civitai's API: what a version of a model holds, and where its files are.

`GET /api/v1/model-versions/ID` and `/by-hash/HASH` (https://developer.civitai.com/site/reference),
at `CIVITAI_ENDPOINT`. The token in `CIVITAI_TOKEN` goes there only, in a header.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import partial
from typing import Any, cast
from urllib.parse import urlsplit

import requests

from layerbuild.errors import AccessDenied, NotFound, SourceError
from layerbuild.paths import safe_relative
from layerbuild.sources.base import MAX_SIZE, Context, is_hex, require_online, words
from layerbuild.sources.endpoints import confidential, endpoint, plausible_token
from layerbuild.sources.transfer import Remote, document, is_page, refusal, total_size

DEFAULT_ENDPOINT = "https://civitai.com"

_LARGEST_ANSWER = 8 * 1024 * 1024
_DOWNLOADS = "/api/download/"


@dataclass(frozen=True, kw_only=True)
class File:
    """A file of a version, as the API describes it.

    Attributes:
        sha256: lower-case hex; None until Civitai has computed it.
        about: bytes; the API rounds them. None if it does not say.
        traits: `type`, `format`, `fp` and `size` in Civitai's words, where it has any.
        scans: scanner and result, of those that did not succeed.
        path: path and query of its address, below the endpoint if it begins with a slash.
    """

    id: int
    name: str
    primary: bool
    sha256: str | None
    about: float | None
    traits: dict[str, str]
    scans: tuple[tuple[str, str], ...]
    path: str


@dataclass(frozen=True, kw_only=True)
class Version:
    """A version of a model.

    Attributes:
        restriction: why not everybody may download it.
        model: the number of the model, by which its page is found; None where it is not told.
        type: of the model, in Civitai's words; empty where it is not told.
        base: the model that it was made from or for, in Civitai's words.
    """

    id: int
    title: str
    files: tuple[File, ...]
    restriction: str | None
    model: int | None = None
    type: str = ""
    base: str = ""

    @property
    def uri(self) -> str:
        """Its address as a source."""
        return f"civitai://{self.id}"


class Api:
    """Civitai as one user sees it. Endpoint and token come from the context's environment.

    Raises:
        SourceError: these variables do not hold what they should.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self.endpoint = endpoint(context.environ, "CIVITAI_ENDPOINT", DEFAULT_ENDPOINT, what="Civitai")
        token = context.environ.get("CIVITAI_TOKEN", "").strip()
        token = plausible_token(token, "CIVITAI_TOKEN", like="0123456789abcdef...") if token else ""
        self._token = token if confidential(self.endpoint) else ""

    def version(self, number: int) -> Version:
        """A version by its number. Each is asked for once in a command.

        Raises:
            NotFound, AccessDenied, Unreachable: Civitai says so, or nothing.
            SourceError: its answer makes no sense.
        """
        return self._ask(str(number), f"civitai://{number}")

    def newest(self, model: int) -> int:
        """The number of a model's newest version: the first one that its page lists. Asked for once in a command.

        Raises:
            NotFound, AccessDenied, Unreachable: Civitai says so, or nothing.
            SourceError: its answer makes no sense, or the model has no version.
        """
        what = f"model {model} on Civitai"
        return _newest(self._fetch(f"models/{model}", what), what)

    def by_hash(self, digest: str) -> Version:
        """The version that has a file with this hash, as `version`."""
        return self._ask(f"by-hash/{digest.upper()}", f"civitai://sha256:{digest}")

    def file(self, version: Version, file: File, size: int | None) -> Remote:
        """The bytes of one file, at the address that the API names."""
        what = f"{version.uri} ({file.name})"
        own = file.path.startswith("/")
        url = self.endpoint + file.path if own else file.path
        headers = self._headers() if own else {}
        check = partial(self._check_download, version, file, what)
        return Remote(client=self._context.client, url=url, what=what, check=check, headers=headers, size=size)

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token}"} if self._token else {}

    def _ask(self, path: str, what: str) -> Version:
        return _version(self._fetch(f"model-versions/{path}", what), what)

    def _fetch(self, path: str, what: str) -> dict[str, Any]:
        """An answer of the API."""
        require_online(self._context, what)
        url = f"{self.endpoint}/api/v1/{path}"
        check = partial(self._check_answer, what)
        remote = Remote(client=self._context.client, url=url, what=what, check=check, headers=self._headers())
        return self._context.memo.get(url, lambda: _object(document(remote, limit=_LARGEST_ANSWER), what))

    def _check_answer(self, what: str, response: requests.Response) -> None:
        error = refusal(response, what)
        if isinstance(error, NotFound):
            raise NotFound(
                f"{what} is unknown or not published any more",
                cause=f"Civitai answered {response.status_code}",
                hint="check the number in the address of its page (modelVersionId); another copy can be declared as "
                "a mirror (https://, hf://, s3://), or take its place",
            )
        if isinstance(error, AccessDenied):
            raise AccessDenied(f"{what} may not be looked at", cause=error.cause, hint=self._login_hint(None))
        if error is not None:
            raise error
        if is_page(response):
            raise SourceError(
                f"{what}: a web page came instead of the API's answer",
                cause="a challenge for browsers, maintenance, or another site",
                hint="try again later; check CIVITAI_ENDPOINT and the proxy settings",
            )

    def _check_download(self, version: Version, file: File, what: str, response: requests.Response) -> None:
        error = refusal(response, what)
        cause = f"the server answered {response.status_code}"
        if isinstance(error, AccessDenied):
            raise self._denied(version, f"{what} may not be downloaded", cause)
        if isinstance(error, NotFound):
            raise NotFound(f"{what} is not there any more", cause=cause, hint="look at its page; declare a mirror")
        if error is not None:
            raise error
        if is_page(response):
            raise self._denied(version, f"{what} may not be downloaded", "a login page came instead of the file")
        size = total_size(response)
        if size is not None and file.about is not None and abs(size - file.about) > max(4096, file.about / 100):
            cause = f"the server has {size} bytes, the API tells of about {file.about:.0f}"
            raise self._denied(version, f"{what}: this cannot be the file", cause)

    def _denied(self, version: Version, message: str, cause: str) -> AccessDenied:
        cause = f"{cause}; {version.restriction}" if version.restriction else cause
        return AccessDenied(message, cause=cause, hint=self._login_hint(version.restriction))

    def _login_hint(self, restriction: str | None) -> str:
        page = f"{self.endpoint}/user/account"
        if self._token:
            also = "buy the access, wait, or take another version" if restriction else "open its page in a browser"
            return f"check that the account of the token in use may download it: {also}"
        if not confidential(self.endpoint):
            return f"no token is sent to {self.endpoint}, because it is plain HTTP: use one with TLS"
        return f"set CIVITAI_TOKEN to an API key of your account ({page})"


def _object(body: bytes, what: str) -> dict[str, Any]:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        raise _nonsense(what, "it is not JSON") from None
    if not isinstance(answer, dict):
        raise _nonsense(what, "it is no JSON object")
    return answer


def _newest(answer: dict[str, Any], what: str) -> int:
    versions = answer.get("modelVersions")
    first = versions[0] if isinstance(versions, list) and versions else None
    if not isinstance(first, dict) or not _is_id(first.get("id")):
        raise _nonsense(what, "it names no version")
    return int(first["id"])


def _version(answer: dict[str, Any], what: str) -> Version:
    if not _is_id(answer.get("id")) or not isinstance(answer.get("files", []), list):
        raise _nonsense(what, "it names no version, or no list of files")
    model = answer.get("model")
    title = f"{_text(model, 'name')} {_text(answer, 'name')}".strip()
    return Version(
        id=answer["id"],
        title=words(title, limit=120),
        files=tuple(_file(what, item) for item in answer.get("files", [])),
        restriction=_restriction(answer),
        model=answer["modelId"] if _is_id(answer.get("modelId")) else None,
        type=words(_text(model, "type"), limit=40),
        base=words(_text(answer, "baseModel"), limit=40),
    )


def _file(what: str, item: Any) -> File:
    if not isinstance(item, dict) or not _is_id(item.get("id")) or not _text(item, "name"):
        raise _nonsense(what, "a file has no number, or no name")
    metadata = item.get("metadata")
    sha256 = _text(item.get("hashes"), "SHA256").lower()
    found = {"type": _text(item, "type")} | {key: _text(metadata, key) for key in ("format", "size", "fp")}
    scans = ((name, _text(item, f"{name}ScanResult") or "missing") for name in ("pickle", "virus"))
    return File(
        id=item["id"],
        name=safe_relative(_text(item, "name"), origin=what),
        primary=item.get("primary") is True,
        sha256=sha256 if is_hex(sha256, 64) else None,
        about=_bytes(item.get("sizeKB")),
        traits={key: words(value, limit=40) for key, value in found.items() if value},
        scans=tuple((name, words(result, limit=40)) for name, result in scans if result.lower() != "success"),
        path=_path(what, _text(item, "downloadUrl")),
    )


def _path(what: str, url: str) -> str:
    """Downloads are asked for at the endpoint, also where a mirror's answer names Civitai itself. An address
    that is none of Civitai's is taken as it is, and gets no token."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise _nonsense(what, "an address in it cannot be parsed") from None
    if parts.path.startswith(_DOWNLOADS):
        return parts._replace(scheme="", netloc="", fragment="").geturl()
    if parts.scheme not in ("http", "https") or not parts.netloc or "@" in parts.netloc:
        raise _nonsense(what, "a file has no address to download it from")
    return url


def _restriction(answer: dict[str, Any]) -> str | None:
    if _text(answer, "availability") == "EarlyAccess":
        until = _text(answer, "earlyAccessEndsAt") or _text(answer, "earlyAccessDeadline")
        return f"it is in early access until {words(until, limit=40)}" if until else "it is in early access"
    use = _text(answer, "usageControl")
    return f"its creator allows no downloads ({words(use, limit=40)} only)" if use not in ("", "Download") else None


def _is_id(value: object) -> bool:
    return type(value) is int and 0 < value <= MAX_SIZE


def _text(mapping: object, key: str) -> str:
    value = mapping.get(key) if isinstance(mapping, dict) else None
    return value if isinstance(value, str) else ""


def _bytes(value: object) -> float | None:
    """Bytes of a `sizeKB`."""
    if type(value) not in (int, float):
        return None
    size = float(cast(float, value)) * 1024 if abs(cast(float, value)) < MAX_SIZE else math.inf
    return size if 0 < size <= MAX_SIZE else None


def _nonsense(what: str, cause: str) -> SourceError:
    return SourceError(
        f"Civitai's answer about {what} makes no sense",
        cause=cause,
        hint="check CIVITAI_ENDPOINT: it must be Civitai, or a mirror of its API",
    )
