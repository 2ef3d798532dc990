"""What each kind of declaration asks of its sources, by role. A role names one pin of the lock."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, replace

from layerbuild.model import Pin, PinRequest, PythonRequest, canonical_json, sha256_hex
from layerbuild.paths import unsafe_reason
from layerbuild.schema import (
    Fetch,
    FilesLayer,
    FileSpec,
    HuggingFaceLayer,
    Layer,
    ModelLayer,
    PythonLayer,
    RequirementsFile,
    WebuiLayer,
)

_COMMIT = re.compile(r"@([0-9a-fA-F]{40})(?:/|$)")

MODEL = "model"
SNAPSHOT = "snapshot"
WEBUI = "webui"
PYTHON = "python"
"""Of what packages are asked for with. There is no such pin: each wheel has one."""

_WHEEL = "wheel "


def wheel(name: str) -> str:
    """Role of a package's wheel."""
    return f"{_WHEEL}{name}"


PYTHON_PLATFORMS = {
    "linux/amd64": "x86_64-manylinux_2_28",
    "linux/arm64": "aarch64-manylinux_2_28",
    "linux/arm64/v8": "aarch64-manylinux_2_28",
}
"""Platform of an image -> uv's name of what its wheels are for. The C library is that of RHEL 8, or newer."""

DEFAULT_PYTHON = "3.10"
"""Where no image says it: that of most webuis."""

DEFAULT_PLATFORM = PYTHON_PLATFORMS["linux/amd64"]


def wheels(pins: Mapping[str, Pin]) -> dict[str, Pin]:
    """The wheels among a declaration's pins, by the package's name."""
    return {role.removeprefix(_WHEEL): pin for role, pin in sorted(pins.items()) if role.startswith(_WHEEL)}


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
        checkouts = {repository(d): tree_request(layer, repository(d), uri) for d, uri in layer.checkouts.items()}
        extensions = {extension(d): tree_request(layer, extension(d), uri) for d, uri in layer.extensions.items()}
        return {WEBUI: tree_request(layer, WEBUI, layer.source), **checkouts, **extensions}
    if isinstance(layer, PythonLayer):
        return {PYTHON: PinRequest(uri=f"python:{layer.python or DEFAULT_PYTHON}", python=_of_python(layer))}
    return _of_files(layer)


def _of_python(layer: PythonLayer) -> PythonRequest:
    named = layer.requirements
    tree, inline = (named, []) if isinstance(named, RequirementsFile) else (None, named)
    return PythonRequest(
        requirements=(*inline, *layer.packages),
        tree=tree.tree if tree else None,
        file=tree.file if tree else None,
        tree_mirrors=tuple(_as_source(mirror) for mirror in tree.mirrors) if tree else (),
        constraints=tuple(layer.constraints),
        indexes=tuple(layer.indexes),
        index_strategy=layer.index_strategy,
        exclude_newer=layer.exclude_newer,
        python=layer.python or DEFAULT_PYTHON,
        platform=layer.platform or DEFAULT_PLATFORM,
        build=tuple(sorted(layer.build)),
    )


def tree_request(layer: WebuiLayer, role: str, uri: str) -> PinRequest:
    """What is asked of the git tree that has `role` in a webui layer."""
    place = place_of(role)
    followed = ["*"] if layer.submodules is True else layer.submodules or []
    return PinRequest(
        uri=uri,
        mirrors=mirrors_of(layer, uri),
        submodules=_within(followed, place),
        lfs_pointers=_within(layer.lfs_pointers, place),
        repositories=role == WEBUI and layer.automatic,
    )


def submodule(role: str, path: str) -> str:
    """Role of the submodule at `path` of the tree that has `role`."""
    return f"{role}/{path}" if ":" in role else f"{role}:{path}"


def place_of(role: str) -> str:
    """Where the tree of a webui layer's role lies below the webui's directory; empty for the webui itself."""
    outer, _, path = role.partition(":")
    return "/".join(part for part in ("" if outer == WEBUI else outer, path) if part)


def _within(patterns: Iterable[str], place: str) -> tuple[str, ...]:
    """Patterns of paths below the webui, as a tree at `place` sees them."""
    if not place:
        return tuple(patterns)
    inside = (p if p == "*" else p.removeprefix(f"{place}/") for p in patterns if p == "*" or p.startswith(f"{place}/"))
    return tuple(inside)


def mirrors_of(layer: WebuiLayer, uri: str) -> tuple[str, ...]:
    """Mirrors of the repository that `uri` names, as git sources."""
    wanted = _repository_of(uri.rpartition("@")[0])
    found = (mirrors for address, mirrors in layer.mirrors.items() if _repository_of(address) == wanted)
    return tuple(dict.fromkeys(_as_source(mirror) for mirrors in found for mirror in mirrors))


def _as_source(address: str) -> str:
    return f"git+{address}" if address.startswith(("https://", "http://")) else address


def _repository_of(address: str) -> str:
    """What is the same in the ways in which people write a repository's address."""
    return _as_source(address).rstrip("/").removesuffix(".git")


def complete(asked: Mapping[str, PinRequest], pins: Collection[str]) -> bool:
    """Whether a layer's pins, by their roles, are those that were asked for, and what these lead to."""
    if PYTHON in asked:
        return bool(pins) and all(role.startswith(_WHEEL) for role in pins)
    return set(asked) <= set(pins) and all(role in asked or _follows(role, asked) for role in pins)


def contradiction(request: PinRequest, pin: Pin) -> str | None:
    """Why a pin, whatever its declaration's digest says, cannot be what was asked for; None if it can."""
    contents = [file.content for file in pin.files]
    if request.sha256 and [content.sha256 for content in contents] != [request.sha256.lower()]:
        return "another sha256"
    if request.size is not None and any(content.size not in (None, request.size) for content in contents):
        return "another size"
    commit = _COMMIT.search(request.uri)
    if commit is not None and pin.revision not in (None, commit[1].lower()):
        return "another commit"
    return None if _same_place(request.uri, pin.source) else "another source"


def _same_place(uri: str, pinned: str) -> bool:
    """Whether a source and its pin are of one repository, or are one address."""
    scheme, place = uri.partition(":")[0].lower(), pinned.rpartition("@")[0]
    if scheme.startswith("git+"):
        return _repository_of(uri.rpartition("@")[0]) == _repository_of(place)
    if scheme == "hf":
        wanted, place = uri.replace("hf://models/", "hf://"), pinned.partition("@")[0]
        return wanted == place or wanted.startswith((f"{place}@", f"{place}/"))
    return uri == pinned if scheme in ("file", "http", "https") else pinned.startswith(f"{scheme}:")


def _follows(role: str, asked: Mapping[str, PinRequest]) -> bool:
    """Whether a pin may have come of a webui's tree: as a checkout that it names, or as a submodule."""
    webui = asked.get(WEBUI)
    outer, colon, path = role.partition(":")
    if webui is None or (colon and (not webui.submodules or unsafe_reason(path))):
        return False
    name = outer.removeprefix(repository(""))
    return outer in asked or (webui.repositories and name != outer and "/" not in name and not unsafe_reason(name))


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
    if isinstance(layer, WebuiLayer):
        # Of trees that other trees name, too.
        return {role: replace(pin, mirrors=mirrors_of(layer, pin.source)) for role, pin in pins.items()}
    asked = requests(layer)
    return {
        role: replace(pin, mirrors=asked[role].mirrors, headers=asked[role].headers) if role in asked else pin
        for role, pin in pins.items()
    }


def declaration_digest(asked: Mapping[str, PinRequest]) -> str:
    """Digest of what was asked for: a declaration keeps its pins for as long as this stays the same.

    A new file name, a new mode, a mirror or a header moves no pin, so they are not part of it.
    """
    value = {
        role: [r.uri, r.sha256, r.size, list(r.files) if r.files is not None else None, list(r.absent), *_more(r)]
        for role, r in asked.items()
    }
    return sha256_hex(canonical_json(value).encode())


def _more(request: PinRequest) -> list[dict[str, object]]:
    """What few declarations have: the digest of the others does not know of it."""
    said: dict[str, object] = {
        "submodules": list(request.submodules),
        "lfs_pointers": list(request.lfs_pointers),
        "repositories": request.repositories,
    }
    if request.python is not None:
        said["python"] = {k: v for k, v in asdict(request.python).items() if k != "tree_mirrors"}
    present = {key: value for key, value in said.items() if value}
    return [present] if present else []
