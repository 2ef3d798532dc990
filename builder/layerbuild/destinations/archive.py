"""A tar of images as a destination: an OCI image layout, and docker's `manifest.json` over the same blobs.

So `docker load`, `podman load` and skopeo's `docker-archive:` and `oci-archive:` read it, as they do what
`docker save` writes (image-spec 1.1, image-layout.md; Docker image specification 1.2). `manifest.json` knows
no indexes: of one, it holds the first image. The file appears under its name when it is whole, in place of
an older one. The same images always give the same bytes.
"""

from __future__ import annotations

import contextlib
import glob
import json
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from io import FileIO
from pathlib import Path
from typing import Any

from layerbuild.destinations.base import Room
from layerbuild.destinations.files import counted, explained, fill, free_at, sweep, unfinished, write
from layerbuild.destinations.layoutdir import EMPTY_INDEX, PART, REF_NAME, VERSION
from layerbuild.errors import BlobUnknown, DestinationDown, DestinationError, DigestFirst
from layerbuild.model import Descriptor, Entry, Readable, sha256_hex
from layerbuild.registry.manifests import INDEX_TYPE, config_of, layers_of, manifests_of, read_object
from layerbuild.registry.reference import DOCKER_HUB, check_repository, check_tag, looks_like_host
from layerbuild.registry.sending import Proof, telling
from layerbuild.tarstream import BLOCK, headers

_CONTAINERD_NAME = "io.containerd.image.name"
"""Annotation by which containerd names an image of an archive; that in Docker, too."""


class ArchiveDestination:
    """Images in one tar, made anew inside `whole`. See `base.Destination`.

    Args:
        name: as the user wrote it.
        path: the file.

    Raises:
        DestinationError: `path` is something else than a tar.
    """

    host: str | None = None
    ordered = True

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self._path = path
        self._lock = threading.Lock()
        self._tar: _Tar | None = None
        self._sizes: dict[str, int] = {}
        self._documents: dict[str, bytes] = {}
        self._tags: dict[tuple[str, str], Descriptor] = {}
        with self._explained():
            _check_replaceable(path)

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """See `Destination.whole`. Without an image no file appears."""
        with contextlib.ExitStack() as stack:
            with self._explained():
                self._path.parent.mkdir(parents=True, exist_ok=True)
                prefix = f"{PART}{self._path.name[:100]}-"
                sweep(self._path.parent.glob(f"{glob.escape(prefix)}*"))
                stream, keep = stack.enter_context(unfinished(self._path.parent, prefix))
                self._tar = _Tar(stream)
                self._tar.add_document("oci-layout", {"imageLayoutVersion": VERSION})
                self._tar.add_directory("blobs")
                self._tar.add_directory("blobs/sha256")
            yield
            if self._tags:
                with self._explained():
                    self._tar.add_document("index.json", self._index())
                    self._tar.add_document("manifest.json", self._docker_manifest())
                    self._tar.end()
                    keep(self._path)

    def room(self) -> Room:
        """See `Destination.room`. The new archive lies beside the old one until it is whole."""
        return Room(free=free_at(self._path), unread={"zstd": "Docker before 23"})

    def check_push(self, repository: str, *, soon: bool) -> None:
        """See `Destination.check_push`: a file says at once whether it can be written."""

    def full_name(self, repository: str) -> str:
        """See `Destination.full_name`: an archive has no prefix."""
        return repository

    def has(self, repository: str, digest: str, size: int | None = None) -> bool:
        """See `Destination.has`. What an older archive has does not count: it is replaced."""
        found = self._sizes.get(digest)
        return found is not None and size in (None, found)

    def mount(self, repository: str, digest: str, candidates: Sequence[str]) -> bool:
        """See `Destination.mount`: nothing to do where blobs are shared."""
        return self.has(repository, digest)

    def put(self, repository: str, blob: Readable, *, advance: Callable[[int], None]) -> None:
        """See `Destination.put`."""
        check_repository(repository, where=f"{self.name}:{repository}")
        with counted(advance) as sent:
            self._add(blob.digest, blob.size, telling(Proof(blob).rest(), sent))

    def put_unnamed(
        self,
        repository: str,
        size: int,
        open: Callable[[], Iterator[bytes]],
        *,
        title: str,
        advance: Callable[[int], None],
    ) -> str:
        """See `Destination.put_unnamed`: never. Else the order would be that in which layers happen to be made."""
        raise DigestFirst(
            f"the archive {self._path} takes a blob only by its digest",
            cause="the order of its blobs follows from their digests",
        )

    def manifest(self, repository: str, reference: str) -> bytes | None:
        """See `Destination.manifest`."""
        found = self._tags.get((repository, reference))
        return self._documents.get(found.digest if found else reference)

    def put_manifest(self, repository: str, tag: str | None, media_type: str, data: bytes) -> None:
        """See `Destination.put_manifest`."""
        name = check_repository(repository, where=f"{self.name}:{repository}")
        digest = f"sha256:{sha256_hex(data)}"
        self._check_complete(media_type, data, f"{name}:{tag or digest}")
        self._documents[digest] = data
        self._add(digest, len(data), (piece for piece in [data]))
        if tag is not None:
            tag = check_tag(tag, where=f"{name}:{tag}")
            self._tags[name, tag] = Descriptor(media_type=media_type, digest=digest, size=len(data))

    def _check_complete(self, media_type: str, data: bytes, where: str) -> None:
        document = read_object(data, where)
        if media_type == INDEX_TYPE:
            named = manifests_of(document, where)
        else:
            named = [config_of(document, where), *layers_of(document, where)]
        for described in named:
            if not self.has(where, described.digest, described.size):
                raise BlobUnknown(f"{where} names {described.digest}, which is not in {self._path}")

    def _add(self, digest: str, size: int, pieces: Generator[bytes, None, None]) -> None:
        with self._lock, self._explained(), contextlib.closing(pieces):
            assert self._tar is not None, "what is put in an archive is put inside whole()"
            if digest not in self._sizes:
                self._tar.add(_blob_path(digest), size, pieces)
                self._sizes[digest] = size

    def _explained(self) -> contextlib.AbstractContextManager[None]:
        # A file that cannot be written takes no other blob, either.
        return explained(f"the archive {self._path}", error=DestinationDown)

    def _index(self) -> dict[str, Any]:
        entries = []
        for (repository, tag), described in sorted(self._tags.items()):
            names = {_CONTAINERD_NAME: f"{_hub_name(repository)}:{tag}", REF_NAME: f"{repository}:{tag}"}
            entries.append({**described.as_json(), "annotations": names})
        return {**EMPTY_INDEX, "manifests": entries}

    def _docker_manifest(self) -> list[dict[str, Any]]:
        """What docker knows of: one image for each name, of an index the first."""
        tags: dict[str, list[str]] = {}
        for (repository, tag), described in sorted(self._tags.items()):
            digest = described.digest
            if described.media_type == INDEX_TYPE:
                digest = manifests_of(read_object(self._documents[digest], repository), repository)[0].digest
            tags.setdefault(digest, []).append(f"{repository}:{tag}")
        found = []
        for digest, names in tags.items():
            manifest = read_object(self._documents[digest], names[0])
            layers = [_blob_path(layer.digest) for layer in layers_of(manifest, names[0])]
            config = _blob_path(config_of(manifest, names[0]).digest)
            found.append({"Config": config, "RepoTags": names, "Layers": layers})
        return found


class _Tar:
    """A tar that grows at its end. What could not be added whole is cut off again."""

    def __init__(self, stream: FileIO) -> None:
        self._stream = stream

    def add(self, path: str, size: int, pieces: Generator[bytes, None, None]) -> None:
        """A file with the bytes of `pieces`, `size` of them."""
        start = self._stream.tell()
        try:
            write(self._stream, headers(Entry(path=path, type="file", mode=0o644), size))
            fill(self._stream, pieces)
            write(self._stream, bytes(-size % BLOCK))
        except BaseException:
            self._stream.seek(start)
            self._stream.truncate()
            raise

    def add_document(self, path: str, value: Any) -> None:
        """A file with `value` as JSON."""
        data = json.dumps(value, indent=2).encode() + b"\n"
        self.add(path, len(data), (piece for piece in [data]))

    def add_directory(self, path: str) -> None:
        """A directory."""
        write(self._stream, headers(Entry(path=path, type="directory", mode=0o755), 0))

    def end(self) -> None:
        """What says that nothing follows."""
        write(self._stream, bytes(2 * BLOCK))


def _blob_path(digest: str) -> str:
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def _hub_name(repository: str) -> str:
    """A name as Docker reads it, written out."""
    first, slash, _ = repository.partition("/")
    if slash and looks_like_host(first):
        return repository
    return f"{DOCKER_HUB}/{repository}" if slash else f"{DOCKER_HUB}/library/{repository}"


def _check_replaceable(path: Path) -> None:
    """Raises:
    DestinationError: `path` is there, and neither an empty file nor a tar.
    """
    if not path.exists():
        return
    if not path.is_file():
        raise DestinationError(f"{path} is not a file", hint="name a new file, or an archive: it is replaced")
    with path.open("rb") as stream:
        start = stream.read(BLOCK)
    if start and start[257:262] != b"ustar":
        raise DestinationError(
            f"{path} is not an archive of images",
            cause="it is no tar, and pushing would replace it",
            hint="name a new file: this one is left as it is",
        )
