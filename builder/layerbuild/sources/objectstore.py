"""One object in a store that fsspec reads: what is known of it, and its bytes by range.

The libraries behind fsspec find logins, endpoints and proxies as they always do. What they raise is
told in words of ours: their own may hold signed addresses.
"""

from __future__ import annotations

import base64
import binascii
import importlib
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from layerbuild.errors import AccessDenied, NotFound, SourceError, Unreachable
from layerbuild.sources.base import is_size, mismatch, words

BLOCK = 16 * 1024 * 1024
"""Bytes per request: few enough for memory, many enough to make the requests' latency small."""

EXTRAS: Mapping[str, tuple[str, str]] = {
    **dict.fromkeys(("s3", "s3a"), ("s3fs", "s3")),
    **dict.fromkeys(("gs", "gcs"), ("gcsfs", "gcs")),
    **dict.fromkeys(("az", "abfs", "abfss"), ("adlfs", "azure")),
}
"""Scheme -> the module that reads it, and layerbuild's extra that installs it."""

_RAISED = (
    ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "ClientError"),
    ("google.auth.exceptions", "GoogleAuthError"),
    ("gcsfs.retry", "HttpError"),
    ("azure.core.exceptions", "AzureError"),
    ("aiohttp", "ClientError"),
    ("ftplib", "Error"),
    ("requests", "RequestException"),
)
"""What libraries raise that is no OSError; looked up where they are loaded."""

_LOGIN = re.compile(r"credential|auth|token|login|permission|denied|forbidden|unauthor", re.IGNORECASE)
_NETWORK = re.compile(r"connect|timeout|endpoint|dns|resol|httpclient|proxy|ssl", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Known:
    """What a store says of an object.

    Attributes:
        size: bytes, None if it does not say.
        sha256: of all its bytes, where the store keeps one.
        version: its id, where the bucket keeps versions.
        tag: changes when the object does.
    """

    size: int | None
    sha256: str | None = None
    version: str | None = None
    tag: str = ""


class Object:
    """The object at `uri`, which `objects.parse` has let through.

    Raises:
        SourceError: what reads this scheme is not installed, or cannot be set up.
    """

    def __init__(self, uri: str, what: str) -> None:
        self._what = what
        self._scheme = uri.partition(":")[0]
        self._files, self._path = self._connect(uri)

    def _connect(self, uri: str) -> tuple[Any, str]:
        module, extra = EXTRAS.get(self._scheme, ("fsspec", "s3"))
        try:
            importlib.import_module(module)
            core = importlib.import_module("fsspec.core")
            with _told(self._what):
                # Its own cache of instances would keep the logins of an earlier environment.
                files, path = core.url_to_fs(uri, skip_instance_cache=True)
        except ImportError as error:
            own = self._scheme in EXTRAS
            raise SourceError(
                f"{self._what}: what reads {self._scheme}:// is not installed",
                cause=None if own else words(str(error)),
                hint=f"pip install 'layerbuild[{extra}]'" + ("" if own else ", and what fsspec needs for this scheme"),
            ) from None
        return files, path

    def look(self) -> Known:
        """What the store says of it now.

        Raises:
            NotFound, AccessDenied, Unreachable: the store says so, or nothing.
            SourceError: it says something else, or this is no object.
        """
        with _told(self._what):
            known = self._head() if self._scheme in ("s3", "s3a") else self._info()
        if known.size is not None and not is_size(known.size):
            raise SourceError(f"{self._what}: its size makes no sense", hint="check that it is an object")
        return known

    def _head(self) -> Known:
        """HeadObject, which tells more than s3fs asks for."""
        bucket, key, version = self._files.split_path(self._path)
        only = {"VersionId": version} if version else {}
        answer = self._files.call_s3("head_object", Bucket=bucket, Key=key, ChecksumMode="ENABLED", **only)
        found = answer.get("VersionId")
        return Known(
            size=answer.get("ContentLength"),
            sha256=_whole_sha256(answer),
            version=found if isinstance(found, str) and found != "null" else None,
            tag=str(answer.get("ETag", "")),
        )

    def _info(self) -> Known:
        info = self._files.info(self._path)
        if info.get("type") == "directory":
            raise SourceError(f"{self._what} is a directory", hint="name an object")
        tags = [
            info.get(name) for name in ("etag", "ETag", "generation", "md5Hash", "mtime", "modify", "last_modified")
        ]
        return Known(size=info.get("size"), tag=repr([tag for tag in tags if tag is not None]))

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """The bytes from `start` up to `stop`, in blocks.

        Raises:
            NotFound, AccessDenied, Unreachable: the store says so, or nothing.
            ContentMismatch: it gives fewer or more bytes than were asked for.
        """
        while start < stop:
            end = min(start + BLOCK, stop)
            with _told(self._what):
                block: bytes = self._files.cat_file(self._path, start=start, end=end)
            if len(block) != end - start:
                raise mismatch(self._what, f"{len(block)} bytes came, {end - start} were asked for at byte {start}")
            yield block
            start = end


def _whole_sha256(answer: Mapping[str, Any]) -> str | None:
    """The object's own SHA-256. That of a multipart upload is made of those of its parts, and is none of it
    (Amazon S3 User Guide, "Checking object integrity": composite checksums)."""
    value, kind = answer.get("ChecksumSHA256"), answer.get("ChecksumType")
    parts = re.search(r'-\d+"?$', str(answer.get("ETag", ""))) is not None
    if not isinstance(value, str) or kind == "COMPOSITE" or (parts and kind != "FULL_OBJECT"):
        return None
    try:
        digest = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return None
    return digest.hex() if len(digest) == 32 else None


def _raised() -> tuple[type[Exception], ...]:
    """What libraries raise, of those that are loaded by now."""
    found = (getattr(sys.modules.get(module), name, None) for module, name in _RAISED)
    return (OSError, *(kind for kind in found if kind is not None))


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Says in our words what a library raises."""
    try:
        yield
    except _raised() as error:
        raise _in_words(what, error) from None
    except (ValueError, TypeError, KeyError) as error:
        raise SourceError(
            f"{what} cannot be read", cause=f"the library gave up ({type(error).__name__})", hint="check the address"
        ) from None


def _in_words(what: str, error: Exception) -> SourceError:
    said = _said(error)
    cause = f"the store says {said}"
    if isinstance(error, FileNotFoundError):
        return NotFound(
            f"{what} does not exist", cause=cause, hint="check bucket and key; an old version may have expired"
        )
    if isinstance(error, PermissionError) or _LOGIN.search(said):
        return AccessDenied(
            f"{what} may not be read",
            cause=cause,
            hint="check the login that this store's own tools would use here, and that it may read this object",
        )
    if isinstance(error, (TimeoutError, ConnectionError)) or _NETWORK.search(said):
        return Unreachable(
            f"{what} cannot be reached", cause=cause, hint="check the endpoint, the network and the proxy settings"
        )
    return SourceError(f"{what} cannot be read", cause=cause, hint="check bucket, key, region and endpoint")


def _said(error: Exception) -> str:
    """The code that the store answered with, else the kind of error: never a message."""
    for seen in (error, error.__cause__):
        answer = getattr(seen, "response", None)
        code = answer.get("Error", {}).get("Code") if isinstance(answer, dict) else None
        if isinstance(code, str):
            return words(code, limit=80)
    return type(error).__name__
