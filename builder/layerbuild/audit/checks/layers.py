"""Layers as registries and nodes see them: compression, sizes, numbers, and bytes that are there twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import groupby

from layerbuild.audit.costs import DOWNLOAD_RATE, INFLATE_RATE, ZSTD_RATE
from layerbuild.audit.filesystem import Node
from layerbuild.audit.findings import Cost, Finding, printable
from layerbuild.audit.scan import Sample
from layerbuild.audit.view import ImageView
from layerbuild.audit.webui import sha256_of_path
from layerbuild.model import LARGE

MOST_LAYERS = 127
"""Docker's and containerd's limit."""

_GB = 10**9
_MIB = 1024**2
_LIMITS = (
    ("GHCR and Docker Hub", 10 * _GB),
    ("Harbor (reported)", 32 * 1024 * _MIB),
    ("Amazon ECR", 52_000 * _MIB),
)
"""Bytes of one layer that well-known registries take."""

_WEIGHTS = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".onnx", ".gguf")
_LARGE_WEIGHTS = 64 * _MIB
_MOST_PATHS = 20


def check(view: ImageView) -> Iterator[Finding]:
    """Everything about layers."""
    count = len(view.layers)
    if count > MOST_LAYERS:
        yield Finding(
            id="too-many-layers",
            severity="error",
            what=f"the image has {count} layers: Docker and containerd stop at {MOST_LAYERS}",
            hint="put small layers together",
        )
    yield from _limits(view)
    yield from _compressed_weights(view)
    if any(layer.compression == "zstd" for layer in view.layers):
        yield Finding(
            id="zstd-layers",
            severity="info",
            what="it has zstd layers, which Docker before 23, containerd before 1.5 and podman before 3 cannot pull",
            hint="nothing, unless nodes are that old; then build with 'compression: gzip'",
        )
    yield from _hidden(view)
    yield from _duplicates(view)


def _limits(view: ImageView) -> Iterator[Finding]:
    for number, layer in enumerate(view.layers, 1):
        refusing = [name for name, limit in _LIMITS if layer.size > limit]
        if refusing:
            yield Finding(
                id="layer-too-large",
                severity="warning",
                what=f"layer {number} has {layer.size / _GB:.1f} GB, more than {', '.join(refusing)} take",
                hint="one file in each layer; a single larger file has to be split or mounted",
            )


def _compressed_weights(view: ImageView) -> Iterator[Finding]:
    found: dict[int, list[tuple[str, int]]] = defaultdict(list)
    for path, node in view.files.everything():
        packed = view.layers[node.layer].compression != "none"
        large = node.type == "file" and node.size >= _LARGE_WEIGHTS
        if packed and large and (path.lower().endswith(_WEIGHTS) or sha256_of_path(path)):
            found[node.layer].append((path, node.size))
    for layer, files in sorted(found.items()):
        size = sum(amount for _, amount in files)
        kind = view.layers[layer].compression
        yield Finding(
            id="weights-compressed",
            severity="warning",
            paths=(*(path for path, _ in files[:_MOST_PATHS]),),
            what=f"layer {layer + 1} holds models in {kind}: they hardly get smaller, and one core unpacks them",
            cost=Cost(when="pull", seconds=size / (INFLATE_RATE if kind == "gzip" else ZSTD_RATE)),
            hint="store weights in uncompressed layers, one file each (layerbuild does)",
        )


def _hidden(view: ImageView) -> Iterator[Finding]:
    by_layers = sorted(view.files.hidden, key=lambda h: (h.layer, h.by, h.path))
    for (layer, by), group in groupby(by_layers, key=lambda h: (h.layer, h.by)):
        files = list(group)
        size = sum(file.size for file in files)
        if size >= _MIB:
            yield Finding(
                id="bytes-hidden",
                severity="warning",
                paths=(*(file.path for file in files[:_MOST_PATHS]),),
                what=f"layer {by + 1} replaces or removes {size / _MIB:.0f} MiB of layer {layer + 1}, still pulled",
                cost=Cost(when="pull", seconds=size / DOWNLOAD_RATE, downloaded=size),
                hint="do not put them into the lower layer: chmod, chown and rm in a later one copy or hide",
            )


def _duplicates(view: ImageView) -> Iterator[Finding]:
    """Large files that are there twice under different names. A link is not a second file."""
    by_size: dict[int, dict[int, tuple[str, Node]]] = defaultdict(dict)
    for path, node in view.files.everything():
        if node.type == "file" and node.size >= LARGE:
            by_size[node.size].setdefault(id(node), (path, node))
    for size, files in sorted(by_size.items(), reverse=True):
        if len(files) < 2:
            continue
        groups: dict[str, list[str]] = defaultdict(list)
        for path, identity in _identities(view, list(files.values())):
            groups[identity].append(path)
        for paths in groups.values():
            if len(paths) > 1:
                yield _duplicate(paths, size)


def _duplicate(paths: list[str], size: int) -> Finding:
    extra = size * (len(paths) - 1)
    return Finding(
        id="bytes-duplicated",
        severity="warning",
        paths=(*sorted(paths)[:_MOST_PATHS],),
        what=f"the same {size / _MIB:.0f} MiB are in the image {len(paths)} times (by size and content)",
        cost=Cost(when="pull", seconds=extra / DOWNLOAD_RATE, downloaded=extra),
        hint=f"keep one copy, and link to it from the others: {printable(paths[0])}",
    )


def _identities(view: ImageView, files: list[tuple[str, Node]]) -> Iterator[tuple[str, str]]:
    """Files of one size with what copies have in common: their sha256 if all are known, else a sample."""
    known = [node.sha256 or sha256_of_path(path) for path, node in files]
    for (path, node), sha256 in zip(files, known, strict=True):
        identity = sha256 if all(known) else _sample(view, node)
        if identity is not None:
            yield path, identity


def _sample(view: ImageView, node: Node) -> str | None:
    if node.sample is None:
        sample = Sample(node.size)
        parts = [view.files.read(node, offset=start, length=length) for start, length in sample.places]
        if None in parts:
            return None
        sample.put([part for part in parts if part is not None])
        node.sample = sample.digest()
    return node.sample.hex()
