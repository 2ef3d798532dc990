"""An image as the checks see it: its config, its file system, its webui and models. Nothing is run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from layerbuild.audit.blobs import Blobs
from layerbuild.audit.filesystem import Filesystem, Node
from layerbuild.audit.interest import Interest, is_secret_path
from layerbuild.audit.limits import Limits
from layerbuild.audit.parts import BlobPart, Layer, Part
from layerbuild.audit.runtime import Command, Runtime, read_command, read_runtime
from layerbuild.audit.webui import Model, Webui, find_webui, list_models
from layerbuild.baseimage import BaseSource
from layerbuild.progress import Progress
from layerbuild.registry.manifests import layers_of, read_object
from layerbuild.webui.architecture import Architecture, family_of_beginning
from layerbuild.webui.modeltypes import is_safetensors
from layerbuild.webui.releases import Version
from layerbuild.webui.safetensors import PREFIX, header_length

if TYPE_CHECKING:
    from layerbuild.registry.client import RegistryClient

_PARALLEL = 4
_FIRST_OF_HEADER = 16 * 1024
_LARGEST_HEADER = 1024 * 1024
_MOST_HEADERS = 8 * 1024 * 1024
"""Bytes of model headers that are read beyond the first 16 KiB of each, in one image."""


class ImageView:
    """One image. Everything but `files.read` and `architecture` is in memory."""

    def __init__(
        self,
        *,
        reference: str,
        digest: str,
        runtime: Runtime,
        layers: Sequence[Layer],
        files: Filesystem,
        version: Version | None = None,
    ) -> None:
        self.reference = reference
        self.digest = digest
        self.runtime = runtime
        self.layers = tuple(layers)
        self.files = files
        self.command: Command = read_command(runtime, files)
        self.webui: Webui | None = find_webui(files, runtime, self.command, version)
        self.models: tuple[Model, ...] = tuple(list_models(files, self.webui)) if self.webui else ()
        self._architectures: dict[int, Architecture | None] = {}
        self._headers_left = _MOST_HEADERS

    def of_type(self, kind: str) -> list[Model]:
        """The models of one type."""
        return [model for model in self.models if model.placed.type == kind]

    def architecture(self, model: Model) -> Architecture | None:
        """Which kind of checkpoint a safetensors file is; None where that cannot be told cheaply."""
        node = model.node
        if id(node) not in self._architectures:
            self._architectures[id(node)] = self._architecture(node) if is_safetensors(model.placed.path) else None
        return self._architectures[id(node)]

    def _architecture(self, node: Node) -> Architecture | None:
        start = self.files.read(node, length=_FIRST_OF_HEADER) or node.kept or b""
        length = header_length(start)
        if length is None:
            return None
        found = family_of_beginning(start[: PREFIX + length])
        rest = min(length, _LARGEST_HEADER) + PREFIX - len(start)
        if found is None and 0 < rest <= self._headers_left:
            self._headers_left -= rest
            more = self.files.read(node, offset=len(start), length=rest)
            found = family_of_beginning(start + (more or b""))
        return found


def open_image(
    source: BaseSource,
    digest: str,
    *,
    client_for: Callable[[str], RegistryClient],
    progress: Progress,
    limits: Limits | None = None,
) -> tuple[ImageView, Blobs]:
    """Read an image's documents and the headers of its layers.

    Args:
        digest: of its manifest.
        client_for: gives the client of a registry.

    Returns:
        The image, and what counts the bytes that were read of its layers.

    Raises:
        LayerbuildError: it cannot be read, or is hostile.
    """
    where = source.reference
    manifest = source.manifest(digest)
    runtime = read_runtime(read_object(source.config(manifest), where), where)
    blobs = Blobs(source, client_for)
    parts = [
        BlobPart(blobs, descriptor)
        for descriptor in layers_of(read_object(manifest, source.reference), source.reference)
    ]
    view = put_together(
        reference=source.reference, digest=digest, runtime=runtime, parts=parts, progress=progress, limits=limits
    )
    return view, blobs


def put_together(
    *,
    reference: str,
    digest: str,
    runtime: Runtime,
    parts: Sequence[Part],
    progress: Progress,
    limits: Limits | None = None,
    version: Version | None = None,
) -> ImageView:
    """The view of an image that is made of `parts`, the lowest first.

    Args:
        version: the webui's release, where its own changelog does not tell it.

    Raises:
        LayerbuildError: a part cannot be read, or is hostile.
    """
    limits = limits or Limits()

    def read_body(node: Node, offset: int, length: int) -> bytes | None:
        return parts[node.layer].read(node, offset, length)

    files = Filesystem(read_body=read_body, limits=limits, telling=is_secret_path)
    words = [word for text in runtime.argv for word in text.split()]
    interest = Interest(words, cache=runtime.env.get("SD_WEBUI_CACHE_FILE", ""))
    with progress.task(f"read the layers of {reference}", sum(part.layer.size for part in parts)) as task:

        def nodes(index: int) -> list[Node]:
            found = parts[index].nodes(index, interest, limits)
            task.advance(parts[index].layer.size)
            return found

        pool = ThreadPoolExecutor(_PARALLEL)
        try:
            for index, found in enumerate(pool.map(nodes, range(len(parts)))):
                files.apply(index, found)
        finally:
            pool.shutdown(cancel_futures=True)
    return ImageView(
        reference=reference,
        digest=digest,
        runtime=runtime,
        layers=[part.layer for part in parts],
        files=files,
        version=version,
    )
