"""What each kind of declaration asks of its sources, by role. A role names one pin of the lock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from layerbuild.model import Pin, PinRequest, canonical_json, sha256_hex
from layerbuild.schema import Fetch, FilesLayer, FileSpec, HuggingFaceLayer, Layer, ModelLayer, WebuiLayer

MODEL = "model"
SNAPSHOT = "snapshot"
WEBUI = "webui"


def sidecar(suffix: str) -> str:
    """Role of a model's sidecar."""
    return f"sidecar {suffix}"


def repository(directory: str) -> str:
    """Role of one of the webui's checkouts."""
    return f"repositories/{directory}"


def extension(directory: str) -> str:
    """Role of one of the webui's extensions."""
    return f"extensions/{directory}"


def requests(layer: Layer) -> dict[str, PinRequest]:
    """Every pin that `layer` needs. A files layer without sources needs none."""
    if isinstance(layer, ModelLayer):
        return {MODEL: _fetch(layer), **{sidecar(s): _fetch(f) for s, f in layer.sidecars.items()}}
    if isinstance(layer, HuggingFaceLayer):
        wanted = tuple(layer.files) if layer.files is not None else None
        # A directory has no server that could prove a name absent: there the declaration is believed.
        absent = () if layer.source.startswith("file:") else tuple(layer.absent)
        return {SNAPSHOT: PinRequest(uri=layer.source, files=wanted, absent=absent)}
    if isinstance(layer, WebuiLayer):
        checkouts = {repository(d): PinRequest(uri=uri) for d, uri in layer.repositories.items()}
        extensions = {extension(d): PinRequest(uri=uri) for d, uri in layer.extensions.items()}
        return {WEBUI: PinRequest(uri=layer.source), **checkouts, **extensions}
    return _of_files(layer)


def _of_files(layer: FilesLayer) -> dict[str, PinRequest]:
    found = {}
    for path, spec in layer.files.items():
        if isinstance(spec, str):
            found[path] = PinRequest(uri=spec)
        elif isinstance(spec, FileSpec) and spec.source is not None:
            found[path] = _fetch(spec)
    return found


def _fetch(fetch: Fetch | FileSpec | ModelLayer | str) -> PinRequest:
    if isinstance(fetch, str):
        return PinRequest(uri=fetch)
    return PinRequest(
        uri=fetch.source or "",
        sha256=fetch.sha256,
        size=fetch.size,
        mirrors=tuple(fetch.mirrors),
        headers=tuple(sorted(fetch.headers.items())),
    )


def with_mirrors(layer: Layer, pins: Mapping[str, Pin]) -> dict[str, Pin]:
    """Pins with the mirrors and headers that the declaration names today. These move no pin."""
    asked = requests(layer)
    return {
        role: replace(pin, mirrors=asked[role].mirrors, headers=asked[role].headers) if role in asked else pin
        for role, pin in pins.items()
    }


def declaration_digest(asked: dict[str, PinRequest]) -> str:
    """Digest of what was asked for: a declaration keeps its pins for as long as this stays the same.

    A new file name, a new mode, a mirror or a header moves no pin, so they are not part of it.
    """
    value = {
        role: [r.uri, r.sha256, r.size, list(r.files) if r.files is not None else None, list(r.absent)]
        for role, r in asked.items()
    }
    return sha256_hex(canonical_json(value).encode())
