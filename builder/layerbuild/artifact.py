"""Files in OCI artifacts and images: where a manifest has them, and their bytes.

A layer is a file, or a tar of files. What it is called stands in its annotations: `org.cncf.model.filepath`
(CNCF ModelPack) or `org.opencontainers.image.title` (ORAS). Model kits (KitOps) name nothing, so their tars
are looked through; layers of images make one file system together. A file that is a blob of its own has the
blob's digest; of one in a tar, the place is remembered, so that nobody looks for it again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from layerbuild.artifactimage import locate
from layerbuild.artifacttar import MOST_ENTRIES, Blob, Tar
from layerbuild.backends import RegistryBackend
from layerbuild.errors import NotFound, SourceError
from layerbuild.model import Content, Descriptor, Member, sha256_hex
from layerbuild.registry.layertar import Header
from layerbuild.registry.manifests import (
    INDEXES,
    MANIFESTS,
    annotations_of,
    layers_of,
    nonsense,
    read_descriptor,
    read_document,
)
from layerbuild.registry.reference import Reference, parse_reference

if TYPE_CHECKING:
    from layerbuild.registry.client import RegistryClient

PLATFORM = ("linux", "amd64")
"""Which image of an index is meant; a file is rarely another one elsewhere."""

_FILEPATHS = ("org.cncf.model.filepath", "org.cnai.model.filepath")
_TITLE = "org.opencontainers.image.title"
_UNPACK = "io.deis.oras.content.unpack"
_DOCKER_NAMES = {
    "application/vnd.docker.ai.gguf.v3": "model.gguf",
    "application/vnd.docker.ai.mmproj": "model.mmproj",
    "application/vnd.docker.ai.license": "LICENSE",
}
"""What Docker's model runner calls the only layer of its type."""

_IMAGE_LAYERS = ("application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs.")
_MODELS_FIRST = "application/vnd.kitops.modelkit.model"

Take = Callable[[Iterator[bytes]], Content]
"""Takes a file's bytes, and says what they are."""

_SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer of an artifact. `name` is what it is called, if anything."""

    descriptor: Descriptor
    name: str | None
    unpack: bool

    @property
    def is_tar(self) -> bool:
        """Whether its media type says that it is a tar, plain or compressed."""
        kind = self.descriptor.media_type
        return kind.removesuffix("+gzip").removesuffix("+zstd").removesuffix(".gzip").endswith((".tar", ".diff.tar"))

    @property
    def is_image(self) -> bool:
        """Whether it is a layer of an image, and no file or directory that ORAS calls by its own name."""
        return self.name is None and self.descriptor.media_type.startswith(_IMAGE_LAYERS)

    def is_file(self, path: str) -> bool:
        """Whether the blob itself is the file at `path`. ORAS calls a file a tar, too."""
        plain = not self.is_tar or (self.descriptor.media_type.startswith(_IMAGE_LAYERS) and not self.unpack)
        return self.name == path and plain

    def may_hold(self, path: str) -> bool:
        """Whether `path` may be in this tar."""
        return self.is_tar and not self.is_image and (self.name is None or f"{path}/".startswith(f"{self.name}/"))


def open_artifact(reference: str, *, client_for: Callable[[str], RegistryClient]) -> Artifact:
    """What `reference` names in a registry. Nothing is read yet.

    Args:
        reference: `HOST/REPOSITORY:TAG` or `HOST/REPOSITORY@sha256:HEX`.
        client_for: gives the client of a registry.

    Raises:
        UsageError: it is no such name.
    """
    parsed = parse_reference(reference)
    return Artifact(client_for(parsed.host), parsed)


class Artifact:
    """See `sources.base.Artifact`. Safe to share between threads."""

    def __init__(self, registry: RegistryClient, reference: Reference) -> None:
        self._blob = partial(Blob, registry, reference.repository)
        self._where = str(reference)
        self._backend = RegistryBackend(lambda: registry, reference)
        self._lock = threading.RLock()
        self._entries: dict[str, list[Header]] = {}
        self._taken: dict[tuple[str, int], Content] = {}

    @property
    def digest(self) -> str:
        """See `sources.base.Artifact.digest`."""
        return f"sha256:{sha256_hex(self._manifest[0])}"

    @cached_property
    def _manifest(self) -> tuple[bytes, Mapping[str, Any]]:
        """Bytes and document of the manifest; of an index, of the one that is meant."""
        media_type, data = self._backend.top()
        document = read_document(media_type, data, self._where)
        if media_type in INDEXES:
            media_type, data = self._backend.document(self._meant(document))
            document = read_document(media_type, data, self._where)
        if media_type not in MANIFESTS:
            raise nonsense(self._where, "it is an index of indexes")
        return data, document

    def _meant(self, index: Mapping[str, Any]) -> str:
        """The only manifest of an index that is no attestation, or that for `PLATFORM`."""
        offered = []
        for entry in index.get("manifests") or []:
            platform = entry.get("platform") if isinstance(entry, dict) else None
            name = (platform.get("os"), platform.get("architecture")) if isinstance(platform, dict) else (None, None)
            if name[0] != "unknown":
                offered.append((name, read_descriptor(entry, self._where).digest))
        meant = [digest for name, digest in offered if name == PLATFORM or len(offered) == 1]
        if not meant:
            listed = ", ".join(f"{name[0]}/{name[1]} {digest}" for name, digest in offered[:_SHOWN])
            raise SourceError(
                f"{self._where} is an index, and has nothing for {'/'.join(PLATFORM)}",
                cause=f"it has {listed[:500] or 'nothing'}",
                hint="name one of them by its digest: oci://HOST/REPOSITORY@sha256:HEX/PATH",
            )
        return meant[0]

    @cached_property
    def _layers(self) -> tuple[Layer, ...]:
        document = self._manifest[1]
        described = layers_of(document, self._where)
        found = []
        for item, descriptor in zip(document["layers"], described, strict=True):
            notes = annotations_of(item)
            named = [notes[key] for key in (*_FILEPATHS, _TITLE) if key in notes]
            name = named[0] if named else _DOCKER_NAMES.get(descriptor.media_type)
            unpack = notes.get(_UNPACK) == "true"
            found.append(Layer(descriptor=descriptor, name=name.strip("/") if name else None, unpack=unpack))
        return tuple(found)

    # --- finding ---------------------------------------------------------------------------------

    def find(self, path: str, *, take: Take | None, advance: Callable[[int], None]) -> Member:
        """See `sources.base.Artifact.find`."""
        with self._lock:
            own = {layer.descriptor.digest: layer.descriptor for layer in self._layers if layer.is_file(path)}
            if len(own) > 1:
                raise nonsense(self._where, f"{len(own)} layers of it are called {path}")
            for digest, descriptor in own.items():
                content = Content(size=descriptor.size, sha256=digest.removeprefix("sha256:"))
                return Member(content=content)
            layer, header = self._in_archives(path, take, advance) or self._in_image(path, take, advance)
            place = (layer.descriptor.digest, header.offset)
            if take is not None and place not in self._taken:
                self._taken[place] = self._tar(layer, advance).taken(header, take)
            content = self._taken[place] if take is not None else Content(size=header.size)
            return Member(content=content, blob=place[0], offset=place[1])

    def _tar(self, layer: Layer, advance: Callable[[int], None] = lambda amount: None) -> Tar:
        return Tar(blob=self._blob(layer.descriptor, advance), media_type=layer.descriptor.media_type)

    def _in_archives(self, path: str, take: Take | None, advance: Callable[[int], None]) -> tuple[Layer, Header] | None:
        """The tar that has the file at `path`, and its header, where files are packed by themselves."""
        tars = [layer for layer in self._layers if layer.may_hold(path)]
        # What is called like it comes first, then models: the rest is read for nothing.
        tars.sort(key=lambda t: (t.name is None, not t.descriptor.media_type.startswith(_MODELS_FIRST)))
        for layer in tars:
            found = None
            tar = self._tar(layer, advance)
            for header, body in tar.entries():
                if found is None and header.path == path:
                    found = header
                    if header.type != "file" or header.hardlink:
                        raise SourceError(
                            f"{self._where}: {path} is a {header.type} there, and no file of its own",
                            hint="name a file that is one; a link's own target can be named as well",
                        )
                    if take is None or not tar.packed:
                        break
                    # What is taken on the way is held against the layer's digest, when all of it was read.
                    self._taken[layer.descriptor.digest, header.offset] = take(body())
            if found is not None:
                return layer, found
        return None

    def _in_image(self, path: str, take: Take | None, advance: Callable[[int], None]) -> tuple[Layer, Header]:
        """The layer that has the file at `path`, and its header, where layers make one file system."""
        images = [layer for layer in reversed(self._layers) if layer.is_image]
        if not images:
            names = sorted({layer.name for layer in self._layers if layer.name})
            hint = (
                f"it has {', '.join(names[:_SHOWN])}" if names else "check the path: it is that in the artifact's tars"
            )
            raise NotFound(f"{self._where} has no file {path or 'without a path'}", hint=hint[:600])
        found = locate([partial(self._entries_of, layer, take, advance) for layer in images], path, where=self._where)
        return images[found.layer], found.header

    def _entries_of(
        self, layer: Layer, take: Take | None, advance: Callable[[int], None], path: str
    ) -> Sequence[Header]:
        """All entries of an image's layer, read once."""
        digest = layer.descriptor.digest
        if digest not in self._entries:
            tar, entries = self._tar(layer, advance), []
            for header, body in tar.entries():
                entries.append(header)
                if take is not None and tar.packed and header.path == path and header.type == "file":
                    self._taken[digest, header.offset] = take(body())
            if sum(map(len, self._entries.values())) + len(entries) > MOST_ENTRIES:
                raise nonsense(self._where, f"its layers have more than {MOST_ENTRIES} paths")
            self._entries[digest] = entries
        return self._entries[digest]

    # --- reading ---------------------------------------------------------------------------------

    def read(self, member: Member, *, offset: int, length: int | None) -> Iterator[bytes]:
        """See `sources.base.Artifact.read`."""
        size, sha256 = member.content.size, member.content.sha256
        if member.blob is None and size is not None and sha256 is not None:
            described = Descriptor(media_type="", digest=f"sha256:{sha256}", size=size)
            return self._blob(described).part(offset, length)
        layer = next((layer for layer in self._layers if layer.descriptor.digest == member.blob), None)
        if layer is None or size is None or not layer.is_tar:
            raise SourceError(
                f"{self._where} has no layer {member.blob} with that file",
                cause="the lock was edited by hand, or is of another layerbuild",
                hint="pin it anew: layerbuild lock --update NAME",
            )
        end = size if length is None else min(size, offset + length)
        return self._tar(layer).part(member.offset + offset, end - offset)
