"""Attaches files to an image that a registry has: as an artifact of its own, which refers to the image.

image-spec 1.1, "Guidelines for Artifact Usage". The same files, type and annotations give the same artifact.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from layerbuild.errors import SourceError, UsageError
from layerbuild.execute.blobs import Bytes
from layerbuild.model import Descriptor, Readable, sha256_hex
from layerbuild.progress import Progress
from layerbuild.registry.client import RegistryClient
from layerbuild.registry.manifests import INDEXES, MANIFEST_TYPE, MANIFESTS
from layerbuild.registry.reference import Reference
from layerbuild.registry.referrers import put_referrer
from layerbuild.wire import BLOCK

TITLE = "org.opencontainers.image.title"
"""Annotation of a file: what it is called."""

_EMPTY = "application/vnd.oci.empty.v1+json"


@dataclass(frozen=True, kw_only=True)
class _File:
    """A file, as a `model.Readable`. Whoever sends it holds it against its digest."""

    path: Path
    digest: str
    size: int

    def open(self, offset: int = 0) -> Iterator[bytes]:
        with self.path.open("rb") as stream:
            stream.seek(offset)
            while piece := stream.read(BLOCK):
                yield piece


def attach(
    client: RegistryClient,
    reference: Reference,
    files: Sequence[Path],
    *,
    artifact_type: str,
    annotations: Mapping[str, str],
    progress: Progress,
) -> tuple[Descriptor, Descriptor]:
    """An artifact of `files` that refers to `reference`, an image or an index. Returns the artifact and the subject.

    Args:
        artifact_type: of the artifact, and of its files.
        annotations: of the artifact.

    Raises:
        NotFound: there is no such image.
        UsageError: two files have the same name; a name or an annotation is no text.
        SourceError: a file cannot be read.
        DestinationError: the registry refuses.
    """
    names = [path.name for path in files]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"two files are called {twice!r}", hint="rename one of them, or attach it by itself")
    for text in (*names, *annotations, *annotations.values()):
        if text.encode(errors="replace").decode() != text:
            raise UsageError(f"{text!r} is not UTF-8, and a manifest is", hint="rename the file, or write it otherwise")
    wanted = reference.digest or reference.tag or "latest"
    repository = reference.repository
    media_type, data, digest = client.get_manifest(repository, wanted, accept=MANIFESTS + INDEXES)
    subject = Descriptor(media_type=media_type, digest=digest, size=len(data))
    blobs = [_hashed(path, progress) for path in files]
    empty = Bytes(data=b"{}", digest=f"sha256:{sha256_hex(b'{}')}")
    sent: list[Readable] = [*blobs, empty]
    for blob in sent:
        _send(client, repository, blob, progress)
    layers = [
        Descriptor(media_type=artifact_type, digest=blob.digest, size=blob.size, annotations=((TITLE, name),))
        for name, blob in zip(names, blobs, strict=True)
    ]
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": artifact_type,
        "config": Descriptor(media_type=_EMPTY, digest=empty.digest, size=empty.size).as_json(),
        "layers": [layer.as_json() for layer in layers],
        "subject": subject.as_json(),
        **({"annotations": dict(sorted(annotations.items()))} if annotations else {}),
    }
    document = json.dumps(manifest, separators=(",", ":"), ensure_ascii=False).encode()
    return put_referrer(client, repository, MANIFEST_TYPE, document), subject


def _hashed(path: Path, progress: Progress) -> _File:
    seen, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as stream, progress.task(f"read {path.name}", path.stat().st_size) as task:
            while piece := stream.read(BLOCK):
                seen.update(piece)
                size += len(piece)
                task.advance(len(piece))
    except OSError as error:
        raise SourceError(f"{path} cannot be read", cause=error.strerror, hint="check the file's name") from None
    return _File(path=path, digest=f"sha256:{seen.hexdigest()}", size=size)


def _send(client: RegistryClient, repository: str, blob: Readable, progress: Progress) -> None:
    if client.head_blob(repository, blob.digest) == blob.size:
        progress.skip(blob.digest[:19], blob.size, "present")
        return
    with progress.task(f"push {blob.digest[:19]}", blob.size) as task:
        client.upload_blob(repository, blob, advance=task.advance)
    progress.tally.add("sent", blob.size)
