"""`civitai://`: a file of a version of a model on Civitai.

    civitai://VERSION_ID[?file=ID|NAME&type=...&format=...&fp=...&size=...]
    civitai://sha256:HEX        the file with this sha256, or with these first 10 digits (AutoV2)

VERSION_ID is the `modelVersionId` of a page's address; the query is that of Civitai's own download
links, and `file`. Digests come from the API, so that nothing is downloaded to pin a file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote

from layerbuild.errors import NotFound, SourceError
from layerbuild.model import Content, Pin, PinnedFile
from layerbuild.sources.base import (
    Context,
    Request,
    agree,
    declared,
    is_hex,
    mismatch,
    one_file_only,
    require_online,
    words,
)
from layerbuild.sources.civitaiapi import Api, File, Version
from layerbuild.sources.transfer import probe_size, read

_TRAITS = ("type", "format", "fp", "size")
_MODELS = ("model", "pruned model")
_DIGEST = "sha256:"
_SHORT_HASH = 10


@dataclass(frozen=True, kw_only=True)
class Address:
    """A parsed `civitai://` URI: `version` or `digest`, and what narrows the choice."""

    version: int | None = None
    digest: str | None = None
    query: Mapping[str, str] = field(default_factory=dict)


class CivitaiSource:
    """Reads Civitai at `CIVITAI_ENDPOINT`."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._api: Api | None = None

    def checked(self, uri: str) -> str:
        """`uri`, if it may stand in a lock.

        Raises:
            SourceError: it may not.
        """
        parse(uri)
        return uri

    def resolve(self, request: Request) -> Pin:
        """See `Source.resolve`. One request, and one or two for the size, which the API only rounds.

        Raises:
            NotFound: no such version or file, or an archived one.
            AccessDenied: a login is needed, or early access must be bought.
            ContentMismatch: declared sha256 or size differ.
            SourceError: several files could be meant, or a scan found something, or no digest is known.
        """
        address = parse(request.uri)
        one_file_only(request)
        sha256, size = declared(request)
        version, file = self._look_up(address)
        self._heed_scans(version, file)
        if file.sha256 is None and sha256 is None:
            raise SourceError(
                f"{version.uri} ({file.name}): Civitai publishes no sha256",
                cause="it has not scanned the file yet",
                hint="try again later, or declare its sha256",
            )
        agree(request, Content(sha256=file.sha256, size=None), who="Civitai")
        if size is None:
            size = probe_size(self._connect().file(version, file, None))
        content = Content(sha256=file.sha256 or sha256, size=size)
        return Pin(source=f"{version.uri}?file={file.id}", files=(PinnedFile(path=file.name, content=content),))

    def open(self, pin: Pin, file: PinnedFile, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """See `Source.open`. A download that breaks off is resumed, by a fresh address.

        Raises:
            NotFound, AccessDenied, Unreachable: Civitai says so, or nothing.
            ContentMismatch: another sha256 or size than the pinned one.
        """
        address = parse(pin.source)
        require_online(self._context, f"the content of {pin.source}")
        version, found = self._look_up(address)
        if found.sha256 and file.content.sha256 and found.sha256 != file.content.sha256:
            raise mismatch(pin.source, f"Civitai has sha256 {found.sha256}, {file.content.sha256} is pinned")
        remote = self._connect().file(version, found, file.content.size)
        return read(remote, offset=offset, length=length)

    def _connect(self) -> Api:
        if self._api is None:
            self._api = Api(self._context)
        return self._api

    def _look_up(self, address: Address) -> tuple[Version, File]:
        api = self._connect()
        if address.version is None:
            digest = address.digest or ""
            version = api.by_hash(digest)
            found = [f for f in version.files if (f.sha256 or "").startswith(digest)]
            if not found:
                raise NotFound(f"no file of {version.uri} has the sha256 {digest}", hint="look at the version's page")
            return version, found[0]
        version = api.version(address.version)
        if version.id != address.version:
            raise SourceError(f"{version.uri} came, civitai://{address.version} was asked for", hint="try again later")
        return version, choose(version, address.query)

    def _heed_scans(self, version: Version, file: File) -> None:
        """Danger is refused, and what was not looked at is told."""
        for scanner, result in file.scans:
            if result.lower() == "danger":
                raise SourceError(
                    f"{version.uri} ({file.name}) is dangerous",
                    cause=f"Civitai's {scanner} scan says {result}: loading it may run somebody else's code",
                    hint="take a .safetensors file of this model",
                )
            self._context.progress.note(f"{version.uri} ({file.name}): Civitai's {scanner} scan says {result}")


def choose(version: Version, query: Mapping[str, str]) -> File:
    """The file of a version that `query` means: the only one it leaves, else the primary one among these.

    Without `file` and `type`, models are meant: no VAE, configuration or training data beside them.

    Raises:
        NotFound: the version was archived, or has no such file.
        SourceError: several are left, and none is the primary one.
    """
    if not version.files:
        raise NotFound(
            f"{version.uri} ({version.title}) has no files",
            cause="it was archived: Civitai keeps the page, and removed the files",
            hint="take another version, or declare another place that has the file",
        )
    found = [file for file in version.files if _matches(file, query)]
    if not {"file", "type"} & set(query):
        found = [f for f in found if f.traits.get("type", "").lower() in _MODELS] or found
    primary = [file for file in found if file.primary]
    if len(found) == 1 or len(primary) == 1:
        return (primary or found)[0]
    if found:
        raise SourceError(
            f"{version.uri} ({version.title}) has several files that could be meant",
            cause="none of them, or more than one, is its primary file",
            hint=f"write one of {_listed(version, found)}",
        )
    raise NotFound(
        f"{version.uri} ({version.title}) has no such file",
        cause="nothing matches " + words(" and ".join(f"{key}={value}" for key, value in query.items())),
        hint=f"write one of {_listed(version, version.files)}",
    )


def _matches(file: File, query: Mapping[str, str]) -> bool:
    if "file" in query and query["file"] not in (str(file.id), file.name):
        return False
    return all(file.traits.get(t, "").lower() == query[t].lower() for t in _TRAITS if t in query)


def _listed(version: Version, files: Sequence[File]) -> str:
    return ", ".join(
        f"{version.uri}?file={f.id} ({', '.join([words(f.name, limit=80), *f.traits.values()])})" for f in files[:20]
    )


def parse(uri: str) -> Address:
    """Takes a `civitai://` URI apart.

    Raises:
        SourceError: it is not one. What follows its `?` is not repeated: it could hold a token.
    """
    name, mark, text = uri.partition("://")[2].partition("?")
    if name.startswith(_DIGEST):
        digest = name.removeprefix(_DIGEST).lower()
        if mark or not (is_hex(digest, 64) or is_hex(digest, _SHORT_HASH)):
            raise _malformed(name, "64 hex digits, or the first 10 of them, follow sha256:, and nothing else")
        return Address(digest=digest)
    if not (name.isascii() and name.isdigit() and len(name) <= 15 and int(name)):
        raise _malformed(name, "the number of a version is expected")
    query: dict[str, str] = {}
    for part in text.split("&") if mark else []:
        key, _, value = part.partition("=")
        if key not in ("file", *_TRAITS):
            cause = "a token never stands in an address" if "token" in key.lower() else "it has an unknown parameter"
            raise _malformed(name, cause)
        if key in query or not value:
            raise _malformed(name, f"{key} needs one value")
        query[key] = unquote(value)
    return Address(version=int(name), query=query)


def _malformed(name: str, cause: str) -> SourceError:
    return SourceError(
        f"civitai://{words(name, limit=100)} is not an address on Civitai",
        cause=cause,
        hint="write civitai://VERSION_ID, narrowed by ?file=, type=, format=, fp= or size=, or civitai://sha256:HEX; "
        "a token belongs into CIVITAI_TOKEN",
    )
