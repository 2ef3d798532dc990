"""Writes images by hand: into a directory in the OCI layout, out of layers that are ready."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONFIG = "application/vnd.oci.image.config.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
TAR = "application/vnd.oci.image.layer.v1.tar"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer's file. Digests are 64 hex digits; `diff_id` is that of the tar, `digest` that of the file."""

    path: Path
    digest: str
    diff_id: str
    media_type: str = TAR

    @classmethod
    def plain(cls, tar: Path) -> Layer:
        """An uncompressed one."""
        digest = sha256(tar)
        return cls(path=tar, digest=digest, diff_id=digest)

    @classmethod
    def packed(cls, path: Path, algorithm: str, diff_id: str) -> Layer:
        """One that `algorithm` (zstd, gzip) has compressed."""
        return cls(path=path, digest=sha256(path), diff_id=diff_id, media_type=f"{TAR}+{algorithm}")


def sha256(path: Path) -> str:
    """A file's digest, as 64 hex digits."""
    with path.open("rb", buffering=0) as file:
        digest, buffer = hashlib.sha256(), bytearray(1024 * 1024)
        while count := file.readinto(buffer):
            digest.update(memoryview(buffer)[:count])
    return digest.hexdigest()


def write(layout: Path, tag: str, layers: Sequence[Layer]) -> None:
    """Add an image (OCI image-spec 1.1, image-layout.md). The layers' files are linked, not copied."""
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    for layer in layers:
        if not (blobs / layer.digest).exists():
            (blobs / layer.digest).hardlink_to(layer.path)
    config = {
        "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer.diff_id}" for layer in layers]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": _store(blobs, CONFIG, config),
        "layers": [_descriptor(layer.media_type, layer.digest, layer.path.stat().st_size) for layer in layers],
    }
    index = layout / "index.json"
    known = json.loads(index.read_text())["manifests"] if index.exists() else []
    known.append({**_store(blobs, MANIFEST, manifest), "annotations": {"org.opencontainers.image.ref.name": tag}})
    index.write_text(json.dumps({"schemaVersion": 2, "manifests": known}))


def _store(blobs: Path, media_type: str, value: dict[str, Any]) -> dict[str, Any]:
    data = json.dumps(value).encode()
    digest = hashlib.sha256(data).hexdigest()
    (blobs / digest).write_bytes(data)
    return _descriptor(media_type, digest, len(data))


def _descriptor(media_type: str, digest: str, size: int) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": size}
