"""Documents that name others: what a manifest from outside says, once its shape was checked.

image-spec 1.1 (descriptor.md, manifest.md, image-index.md), and Docker's schema 2 with the same shapes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from layerbuild.errors import SourceError
from layerbuild.model import Descriptor
from layerbuild.registry.reference import is_digest

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"

MANIFESTS = (MANIFEST_TYPE, "application/vnd.docker.distribution.manifest.v2+json")
INDEXES = (INDEX_TYPE, "application/vnd.docker.distribution.manifest.list.v2+json")

MANIFEST_LIMIT = 4 * 1024 * 1024
"""Bytes of the largest manifest that registries agree to take (distribution-spec 1.1)."""

_MOST_LAYERS = 1024


def nonsense(where: str, cause: str) -> SourceError:
    """The error for an image, named by `where`, whose documents cannot be used."""
    return SourceError(f"the image {where} makes no sense", cause=cause, hint="use another image, or push it again")


def read_object(data: bytes, where: str) -> dict[str, Any]:
    """A JSON object out of bytes from outside.

    Raises:
        SourceError: they are none.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise nonsense(where, "a document of it is not a JSON object")
    return value


def read_document(media_type: str, data: bytes, where: str) -> dict[str, Any]:
    """A manifest or an index, whose media type is one of `MANIFESTS` or `INDEXES`.

    Raises:
        SourceError: it is neither, or could be taken for both.
    """
    document = read_object(data, where)
    if document.get("schemaVersion") == 1 or "distribution.manifest.v1+" in media_type:
        raise SourceError(
            f"the image {where} is in Docker's old schema 1",
            cause="that format does not name its layers' contents",
            hint="push it again with a Docker of this decade, or copy it with `skopeo copy --format v2s2`",
        )
    # CVE-2021-41190: bytes that are a manifest to one reader and an index to another
    said = document.get("mediaType", media_type)
    ambiguous = said != media_type or ("manifests" in document and "layers" in document)
    if ambiguous or media_type not in MANIFESTS + INDEXES or document.get("schemaVersion") != 2:
        raise nonsense(where, f"it is served as {media_type[:100]!r} and calls itself {str(said)[:100]!r}")
    return document


def read_descriptor(value: object, where: str) -> Descriptor:
    """A descriptor out of a document from outside, without its annotations.

    Raises:
        SourceError: it is none.
    """
    if isinstance(value, dict):
        media_type, digest, size = value.get("mediaType"), value.get("digest"), value.get("size")
        if isinstance(media_type, str) and isinstance(digest, str) and is_digest(digest):  # noqa: SIM102
            if isinstance(size, int) and not isinstance(size, bool) and size >= 0:
                return Descriptor(media_type=media_type, digest=digest, size=size)
    raise nonsense(where, "a descriptor in it has no usable media type, digest (sha256) and size")


def annotations_of(value: object) -> dict[str, str]:
    """The annotations of a descriptor or manifest from outside, as far as they are texts."""
    found = value.get("annotations") if isinstance(value, dict) else None
    items = found.items() if isinstance(found, dict) else ()
    return {key: text for key, text in items if isinstance(key, str) and isinstance(text, str)}


def config_of(manifest: Mapping[str, Any], where: str) -> Descriptor:
    """The config that an image manifest names.

    Raises:
        SourceError: the manifest makes no sense.
    """
    return read_descriptor(manifest.get("config"), where)


def manifests_of(index: Mapping[str, Any], where: str) -> list[Descriptor]:
    """What an index names, in its order.

    Raises:
        SourceError: the index makes no sense.
    """
    listed = index.get("manifests")
    if not isinstance(listed, list):
        raise nonsense(where, "its index has no list of manifests")
    return [read_descriptor(item, where) for item in listed]


def layers_of(manifest: Mapping[str, Any], where: str) -> list[Descriptor]:
    """The layers that an image manifest names, the lowest first.

    Raises:
        SourceError: the manifest makes no sense.
    """
    listed = manifest.get("layers")
    if not isinstance(listed, list) or len(listed) > _MOST_LAYERS:
        raise nonsense(where, "its manifest has no usable list of layers")
    return [read_descriptor(item, where) for item in listed]
