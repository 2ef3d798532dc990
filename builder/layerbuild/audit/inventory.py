"""An image that lies elsewhere, as `inventory` describes those of a project: read from its own documents.

What layerbuild has made says so in annotations and in the history; these are claims, and shown as such. Models are
found in the layers' headers. Large compressed layers are left alone, unless everything is asked for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from layerbuild.audit.blobs import Blobs
from layerbuild.audit.filesystem import Node
from layerbuild.audit.parts import BlobPart
from layerbuild.audit.runtime import read_runtime
from layerbuild.audit.view import ImageView, put_together
from layerbuild.audit.webui import sha256_of_path
from layerbuild.baseimage import BaseSource
from layerbuild.image import DIFF_ID_ANNOTATION, ENCODING_ANNOTATION, KEY_ANNOTATION
from layerbuild.inventory import BASE, ImageItem, LayerItem, ModelItem, encoding_of, told
from layerbuild.model import Descriptor
from layerbuild.progress import Progress
from layerbuild.registry.layertar import compression
from layerbuild.registry.manifests import annotations_of, layers_of, read_object
from layerbuild.webui.modeltypes import MODEL_TYPES

if TYPE_CHECKING:
    from layerbuild.registry.client import RegistryClient

_CHEAP = 32 * 1024 * 1024
"""Bytes of a compressed layer of layerbuild's that is read without being asked for: links and caches are smaller."""

_LONGEST = 200
"""Characters of a name that a stranger's document gives."""

_BASE_NAME = "org.opencontainers.image.base.name"
_BASE_DIGEST = "org.opencontainers.image.base.digest"

_TYPES = {f"models/{kind.directory}": name for name, kind in MODEL_TYPES.items() if kind.directory}
_TYPES["embeddings"] = "embedding"
_PLACE = re.compile(
    rf"/(?:.*/)?(?P<type>{'|'.join(map(re.escape, _TYPES))})/(?P<name>.+\.(?:safetensors|ckpt|pth?|bin))"
)
"""Where models lie in any webui."""


def read_image(
    source: BaseSource,
    digest: str,
    *,
    client_for: Callable[[str], RegistryClient],
    progress: Progress,
    deep: bool = False,
) -> ImageItem:
    """An image by the digest of its manifest.

    Args:
        deep: whether every layer is read, as an audit does.

    Raises:
        LayerbuildError: it cannot be read, or is hostile.
    """
    where = source.reference
    manifest = read_object(source.manifest(digest), where)
    config = read_object(source.config(source.manifest(digest)), where)
    runtime = read_runtime(config, where)
    described = layers_of(manifest, where)
    layers = _layers(described, manifest, config)
    read = [i for i, layer in enumerate(layers) if deep or _is_cheap(described[i], layer)]
    blobs = Blobs(source, client_for)
    parts = [BlobPart(blobs, described[i]) for i in read]
    view = put_together(reference=where, digest=digest, runtime=runtime, parts=parts, progress=progress)
    annotations = annotations_of(manifest)
    base = (annotations.get(_BASE_NAME, "")[:_LONGEST], annotations.get(_BASE_DIGEST, "")[:_LONGEST])
    return ImageItem(
        name=where,
        platform=runtime.platform,
        manifest=digest,
        base=base if any(base) else None,
        layers=tuple(layers),
        models=tuple(_models(view, [layers[i].title for i in read])),
        unread=sum(item.size for i, item in enumerate(described) if i not in read),
    )


def _layers(described: Sequence[Descriptor], manifest: Mapping[str, Any], config: Mapping[str, Any]) -> list[LayerItem]:
    titles = _titles(config)
    rootfs = config.get("rootfs")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    known = diff_ids if isinstance(diff_ids, list) and len(diff_ids) == len(described) else [None] * len(described)
    found = []
    for i, (descriptor, entry) in enumerate(zip(described, manifest["layers"], strict=True)):
        annotations = annotations_of(entry)
        key = annotations.get(KEY_ANNOTATION)
        title = titles[i] if key and len(titles) == len(described) else ""
        kind, _, label = title.partition(" ")
        packed = annotations.get(ENCODING_ANNOTATION) or encoding_of(descriptor.media_type)
        diff_id = known[i] if isinstance(known[i], str) else annotations.get(DIFF_ID_ANNOTATION)
        found.append(
            LayerItem(
                kind=kind or ("layer" if key else BASE),
                label=label or descriptor.digest[7:19],
                key=key,
                digest=descriptor.digest,
                size=descriptor.size,
                diff_id=diff_id,
                encoding=packed[:_LONGEST],
            )
        )
    return found


def _titles(config: Mapping[str, Any]) -> list[str]:
    """What the history calls each layer that layerbuild made; an empty text for the others."""
    history = config.get("history")
    lines = [item for item in history if isinstance(item, dict)] if isinstance(history, list) else []
    said = [str(item.get("created_by") or "")[:_LONGEST] for item in lines if not item.get("empty_layer")]
    return [text.removeprefix("layerbuild ") if text.startswith("layerbuild ") else "" for text in said]


def _is_cheap(described: Descriptor, layer: LayerItem) -> bool:
    """Whether only the headers of a layer are transferred, or the whole is small."""
    if compression(described.media_type, described.digest) == "none":
        return True
    return layer.key is not None and described.size <= _CHEAP


# --- models ------------------------------------------------------------------------------------------


def _models(view: ImageView, titles: Sequence[str]) -> Iterator[ModelItem]:
    """What the webui lists; and what lies in directories of models that it does not hash."""
    metadata = _metadata(view)
    listed = set()
    for model in view.models:
        placed = model.placed
        listed.add(placed.path)
        said = told(metadata.get(placed.keys.metadata or ""))
        item = _item(placed.type, placed.name, placed.path, model.node, model.real, titles)
        yield replace(item, architecture=view.architecture(model) or said.architecture, licence=said.licence)
    for path, node in view.files.everything():
        match = _PLACE.fullmatch(path) if path not in listed and node.type != "directory" else None
        found = view.files.resolve(path) if match else None
        if match and found and found[1].type == "file":
            kind = _TYPES[match["type"]]
            said = told(metadata.get(MODEL_TYPES[kind].keys(match["name"]).metadata or ""))
            item = _item(kind, match["name"], path, found[1], found[0], titles)
            yield replace(item, architecture=said.architecture, licence=said.licence)


def _item(kind: str, name: str, path: str, node: Node, real: str, titles: Sequence[str]) -> ModelItem:
    sha256 = node.sha256 or sha256_of_path(real)
    return ModelItem(name=name, type=kind, path=path, size=node.size, sha256=sha256, layer=titles[node.layer])


def _metadata(view: ImageView) -> dict[str, Any]:
    """What the image's hash cache says that models say of themselves, by its keys."""
    own = view.files.file(view.webui.cache_file) if view.webui is not None else None
    caches = (node for path, node in view.files.everything() if path.endswith("/cache.json") and node.kept)
    file = own or next(caches, None)
    data = view.files.read(file) if file is not None else None
    try:
        section = json.loads(data or b"{}")["safetensors-metadata"]
        return {key: entry["value"] for key, entry in section.items()}
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return {}
