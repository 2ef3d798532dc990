"""Receipts and a base become a config and a manifest. Pure: the same inputs give the same bytes.

OCI image-spec 1.1, config.md and manifest.md. No clock, no tool version, no host: `created` is the
constant of all entries.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from layerbuild.annotations import OWN
from layerbuild.compress import MEDIA_TYPES
from layerbuild.errors import LayerbuildError
from layerbuild.model import Blob, Descriptor
from layerbuild.schema import ImageConfig, Recipe

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
CREATED = "1980-01-02T00:00:00Z"

KEY_ANNOTATION = f"{OWN}key"
DIFF_ID_ANNOTATION = f"{OWN}diff-id"
ENCODING_ANNOTATION = f"{OWN}encoding"
"""What packed a compressed layer (`model.Blob.encoding`). Like its siblings a claim, to who reads it."""

_DOCKER_LAYERS = {
    "application/vnd.docker.image.rootfs.diff.tar.gzip": MEDIA_TYPES["gzip"],
    "application/vnd.docker.image.rootfs.diff.tar": MEDIA_TYPES["none"],
}
"""The same bytes under the names that an OCI manifest uses for them."""


@dataclass(frozen=True, kw_only=True)
class BuiltLayer:
    """A layer that was made, here or elsewhere, once.

    Attributes:
        key: of its instance.
        title: for the history: `kind label`.
        diff_id: digest of its tar.
        size: bytes of its tar.
        algorithm: `none`, `zstd` or `gzip`.
        blob: as a registry stores it.
    """

    key: str
    title: str
    diff_id: str
    size: int
    algorithm: str
    blob: Blob

    @property
    def descriptor(self) -> Descriptor:
        """As the manifest names it, with the annotations by which another build may recognise it."""
        packed = () if self.algorithm == "none" else ((ENCODING_ANNOTATION, self.blob.encoding),)
        return Descriptor(
            media_type=MEDIA_TYPES[self.algorithm],
            digest=self.blob.digest,
            size=self.blob.size,
            annotations=((DIFF_ID_ANNOTATION, self.diff_id), *packed, (KEY_ANNOTATION, self.key)),
        )


@dataclass(frozen=True, kw_only=True)
class BaseImage:
    """A base's parsed manifest and config, and what to call it."""

    reference: str
    digest: str
    manifest: Mapping[str, Any]
    config: Mapping[str, Any]

    @property
    def layers(self) -> tuple[Descriptor, ...]:
        """The base's layers under OCI media types.

        Raises:
            LayerbuildError: a layer is of a kind that cannot be passed on.
        """
        return tuple(_base_layer(self.reference, layer) for layer in self.manifest.get("layers") or ())


def _base_layer(reference: str, layer: Mapping[str, Any]) -> Descriptor:
    media_type = str(layer.get("mediaType", ""))
    media_type = _DOCKER_LAYERS.get(media_type, media_type)
    if media_type not in MEDIA_TYPES.values():
        raise LayerbuildError(
            f"the base {reference} has a layer of type {media_type[:100]!r}",
            cause="it cannot be part of an OCI image that others pull",
            hint="rebuild the base with ordinary layers",
        )
    return Descriptor(media_type=media_type, digest=str(layer["digest"]), size=int(layer["size"]))


_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""What runtimes take where an image does not say."""


def config_json(
    recipe: Recipe,
    env: Mapping[str, str],
    base: BaseImage | None,
    layers: Sequence[BuiltLayer],
    programs: Sequence[str] = (),
) -> bytes:
    """The image's config.

    Args:
        env: variables that the layers themselves ask for; the recipe's own win.
        programs: directories that come first in PATH, unless the recipe says what that is.
    """
    below: Mapping[str, Any] = base.config if base else {}
    rootfs: Mapping[str, Any] = below.get("rootfs") or {}
    base_diff_ids = list(rootfs.get("diff_ids") or ())
    config = {
        "created": CREATED,
        **_platform(recipe.platform),
        "config": _runtime(recipe.config, env, programs, below.get("config") or {}),
        "rootfs": {"type": "layers", "diff_ids": base_diff_ids + [layer.diff_id for layer in layers]},
        "history": _history(below, len(base_diff_ids), layers),
    }
    return _json(config)


def _runtime(
    config: ImageConfig, env: Mapping[str, str], programs: Sequence[str], below: Mapping[str, Any]
) -> dict[str, Any]:
    runtime = dict(below)
    merged = dict(entry.partition("=")[::2] for entry in below.get("Env") or ())
    if programs:
        merged["PATH"] = ":".join([*programs, merged.get("PATH") or _PATH])
    merged.update(env)
    merged.update({name: _text(value) for name, value in config.env.items()})
    if merged:
        runtime["Env"] = [f"{name}={value}" for name, value in merged.items()]
    if config.entrypoint is not None:
        runtime["Entrypoint"] = config.entrypoint
        # As Docker does: the base's Cmd were arguments of another program.
        runtime.pop("Cmd", None)
    if config.cmd is not None:
        runtime["Cmd"] = config.cmd
    simple = {"WorkingDir": config.workdir, "User": config.user, "StopSignal": config.stop_signal}
    runtime.update({key: value for key, value in simple.items() if value is not None})
    sets = {"ExposedPorts": config.ports, "Volumes": config.volumes}
    for key, values in sets.items():
        if values:
            runtime[key] = {**(runtime.get(key) or {}), **{value: {} for value in values}}
    if config.labels:
        runtime["Labels"] = {**(runtime.get("Labels") or {}), **config.labels}
    return runtime


def _text(value: str | int | float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _history(below: Mapping[str, Any], base_layers: int, layers: Sequence[BuiltLayer]) -> list[dict[str, Any]]:
    history = list(below.get("history") or ())
    if sum(1 for item in history if not item.get("empty_layer")) != base_layers:
        history = [{"created": CREATED, "created_by": "base"}] * base_layers
    return history + [{"created": CREATED, "created_by": f"layerbuild {layer.title}"} for layer in layers]


def manifest_json(recipe: Recipe, base: BaseImage | None, layers: Sequence[BuiltLayer], config: Descriptor) -> bytes:
    """The image's manifest."""
    annotations = dict(recipe.annotations)
    if base is not None:
        annotations.setdefault("org.opencontainers.image.base.digest", base.digest)
        if not base.reference.startswith("oci:"):
            annotations.setdefault("org.opencontainers.image.base.name", base.reference)
    below = base.layers if base else ()
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config.as_json(),
        "layers": [d.as_json() for d in below] + [layer.descriptor.as_json() for layer in layers],
        **({"annotations": dict(sorted(annotations.items()))} if annotations else {}),
    }
    return _json(manifest)


def index_json(annotations: Mapping[str, str], manifests: Sequence[tuple[str, Descriptor]]) -> bytes:
    """An index (OCI image-spec 1.1, image-index.md).

    Args:
        manifests: platform and descriptor of each image's manifest, in their order.
    """
    index = {
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [{**described.as_json(), "platform": _platform(platform)} for platform, described in manifests],
        **({"annotations": dict(sorted(annotations.items()))} if annotations else {}),
    }
    return _json(index)


def _platform(platform: str) -> dict[str, str]:
    os_name, architecture, *variant = platform.split("/")
    return {"architecture": architecture, "os": os_name, **({"variant": variant[0]} if variant else {})}


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
