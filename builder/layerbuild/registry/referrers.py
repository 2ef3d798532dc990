"""What refers to a manifest in its registry: SBOMs, signatures, licences (distribution-spec 1.1).

"Listing Referrers" and "Pushing manifests with subject". Registries that do not know of referrers get a list
under a tag instead ("Referrers Tag Schema"), which every client keeps for itself: it is read, added to,
written, and, after a while, read again. Two writers that do it at once can each overwrite what the other
wrote; whoever finds its entry gone writes it again. Lost is an entry only if another client took longer
between its read and its write than we wait, and does not look again itself.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from layerbuild.errors import BlobUnknown, DestinationError, NotFound, SourceError
from layerbuild.model import Descriptor, sha256_hex
from layerbuild.registry.client import RegistryClient
from layerbuild.registry.manifests import (
    INDEX_TYPE,
    INDEXES,
    MANIFEST_LIMIT,
    MANIFESTS,
    annotations_of,
    read_descriptor,
    read_document,
    read_object,
)

_MOST = 10_000
"""Referrers of one manifest that are listed."""

_MOST_PAGES = 200
_ROUNDS = 6
"""Times that a list under a tag is written before we give up."""


@dataclass(frozen=True, kw_only=True)
class Referrer:
    """A manifest that refers to another one. Its texts come from outside.

    Attributes:
        artifact_type: what it is; "" where nobody says.
    """

    descriptor: Descriptor
    artifact_type: str
    annotations: Mapping[str, str]

    def as_json(self) -> dict[str, Any]:
        """The descriptor, as lists of referrers have it."""
        described = {**self.descriptor.as_json(), "artifactType": self.artifact_type}
        return {**described, **({"annotations": dict(self.annotations)} if self.annotations else {})}


def tag_of(digest: str) -> str:
    """The tag under which the referrers of a manifest are listed where there is no API."""
    return digest.replace(":", "-", 1)


def referrers(
    client: RegistryClient, repository: str, digest: str, *, artifact_type: str | None = None
) -> list[Referrer]:
    """What refers to the manifest `digest`, by the API or, where there is none, by the tag.

    Args:
        artifact_type: nothing else; the registry is asked to choose, and checked.

    Raises:
        DestinationError: the registry refuses, its list does not end, or has more than 10,000 entries.
        SourceError: it makes no sense.
    """
    found: dict[str, Referrer] = {}
    for entry in _entries(client, repository, digest, artifact_type):
        referrer = _referrer(entry)
        if referrer is not None and artifact_type in (None, referrer.artifact_type):
            found[referrer.descriptor.digest] = referrer
        if len(found) > _MOST:
            raise _endless(client, repository, digest)
    return list(found.values())


def _entries(client: RegistryClient, repository: str, digest: str, artifact_type: str | None) -> Iterator[Any]:
    page = client.list_referrers(repository, digest, artifact_type=artifact_type)
    if page is None:
        with contextlib.suppress(SourceError):  # what is under the tag and no list names nothing
            yield from (_under_tag(client, repository, digest) or {}).get("manifests", ())
        return
    for left in reversed(range(_MOST_PAGES)):
        yield from _list_in(page.data, f"{client.host}/{repository}@{digest}")
        if page.following is None:
            return
        if not left:
            raise _endless(client, repository, digest)
        page = client.next_referrers(page)


def _endless(client: RegistryClient, repository: str, digest: str) -> DestinationError:
    return DestinationError(
        f"the registry {client.host} lists too much that refers to {repository}@{digest}",
        cause=f"more than {_MOST} manifests, or {_MOST_PAGES} answers",
        hint="ask for one type of them, or whoever runs the registry",
    )


def _list_in(data: bytes, where: str) -> list[Any]:
    listed = read_object(data, where).get("manifests")
    return listed if isinstance(listed, list) else []


def _referrer(entry: object) -> Referrer | None:
    """An entry of a list; None if it makes no sense, or has a digest of a kind that is not known here."""
    try:
        described = read_descriptor(entry, "")
    except SourceError:
        return None
    kind = entry.get("artifactType") if isinstance(entry, dict) else None
    return Referrer(
        descriptor=described,
        artifact_type=kind if isinstance(kind, str) else "",
        annotations=annotations_of(entry),
    )


# --- attaching -------------------------------------------------------------------------------------


def put_referrer(client: RegistryClient, repository: str, media_type: str, data: bytes) -> Descriptor:
    """Stores a manifest that has a `subject`, and sees that the subject's referrers name it. All that it names
    must be there, but for the subject. The same manifest again changes nothing.

    Raises:
        DestinationError: the registry refuses; or the list under a tag is something else, has no room for
            another entry, or changes all the time. The manifest may be stored then, without being listed.
    """
    digest = f"sha256:{sha256_hex(data)}"
    document = read_object(data, f"{client.host}/{repository}@{digest}")
    subject = read_descriptor(document.get("subject"), f"{client.host}/{repository}@{digest}").digest
    described = Descriptor(media_type=media_type, digest=digest, size=len(data))
    if client.put_manifest(repository, digest, media_type, data) != subject:
        kind = document.get("artifactType") or (document.get("config") or {}).get("mediaType")
        notes = annotations_of(document)
        entry = {**described.as_json(), "artifactType": kind, **({"annotations": notes} if notes else {})}
        with _one_at_a_time:
            _list_under_tag(client, repository, subject, entry)
    return described


_one_at_a_time = threading.Lock()
"""Threads of one process need not find out about each other."""


def _list_under_tag(client: RegistryClient, repository: str, subject: str, entry: Mapping[str, Any]) -> None:
    for attempt in range(_ROUNDS):
        try:
            index = _under_tag(client, repository, subject)
        except SourceError as error:
            raise _not_listed(client, repository, subject, error.cause or error.message) from None
        index = index or {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": []}
        listed = index["manifests"]
        if any(isinstance(known, dict) and known.get("digest") == entry["digest"] for known in listed):
            return
        _write(client, repository, subject, {**index, "manifests": [*listed, dict(entry)]})
        client.pause(attempt)
    if _is_listed(client, repository, subject, entry["digest"]):
        return
    raise _not_listed(client, repository, subject, "others write the list at the same time")


def _is_listed(client: RegistryClient, repository: str, subject: str, digest: str) -> bool:
    index = _under_tag(client, repository, subject) or {}
    return any(isinstance(known, dict) and known.get("digest") == digest for known in index.get("manifests", ()))


def _under_tag(client: RegistryClient, repository: str, subject: str) -> dict[str, Any] | None:
    """The list under the tag; None where there is no such tag.

    Raises:
        SourceError: there is something else.
    """
    tag = tag_of(subject)
    try:
        media_type, data, _ = client.get_manifest(repository, tag, accept=(INDEX_TYPE, *MANIFESTS))
    except NotFound:
        return None
    where = f"{client.host}/{repository}:{tag}"
    document = read_document(media_type, data, where)
    if media_type not in INDEXES or not isinstance(document.get("manifests"), list):
        raise SourceError(
            f"{where} is no list of referrers",
            cause=f"the tag {tag} is an image's",
            hint="give that image another tag: this one is reserved for the list",
        )
    return document


def _write(client: RegistryClient, repository: str, subject: str, index: Mapping[str, Any]) -> None:
    try:
        _put_list(client, repository, subject, index)
    except BlobUnknown:
        # Something that is listed was deleted, and this registry takes no list that names it.
        kept = [entry for entry in index["manifests"] if _is_there(client, repository, entry)]
        _put_list(client, repository, subject, {**index, "manifests": kept})


def _put_list(client: RegistryClient, repository: str, subject: str, index: Mapping[str, Any]) -> None:
    data = json.dumps(index, separators=(",", ":"), ensure_ascii=False).encode()
    if len(data) > MANIFEST_LIMIT:
        raise _not_listed(client, repository, subject, f"with it, the list has more than {MANIFEST_LIMIT} bytes")
    client.put_manifest(repository, tag_of(subject), INDEX_TYPE, data)


def _is_there(client: RegistryClient, repository: str, entry: object) -> bool:
    referrer = _referrer(entry)
    if referrer is None:
        return True
    try:
        client.get_manifest(repository, referrer.descriptor.digest, accept=MANIFESTS + INDEXES)
    except NotFound:
        return False
    return True


def _not_listed(client: RegistryClient, repository: str, subject: str, cause: str) -> DestinationError:
    return DestinationError(
        f"what refers to {client.host}/{repository}@{subject} cannot be listed there",
        cause=cause,
        hint=f"the registry knows no referrers, and keeps the list under the tag {tag_of(subject)}: see what that is, "
        "and run the command again",
    )
