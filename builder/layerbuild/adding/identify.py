"""Finds out what a source is: asks the Hub, Civitai or git, and reads a model's header by range.

Nothing is downloaded but headers; digests are taken from those who publish them.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args
from urllib.parse import unquote, urlsplit

from layerbuild.adding.declaration import Declaration, layer_name
from layerbuild.adding.pasted import MODEL_SUFFIXES, Pasted
from layerbuild.errors import SourceError, UsageError
from layerbuild.execute.contents import read_exactly
from layerbuild.model import Content, Pin, PinnedFile, PinRequest
from layerbuild.paths import safe_relative
from layerbuild.render import has_markup
from layerbuild.schema import ModelType
from layerbuild.sources import Context, checked, huggingface, source_for
from layerbuild.sources.base import require_online, shown, words
from layerbuild.sources.civitai import choose
from layerbuild.sources.civitai import parse as parse_civitai
from layerbuild.sources.civitaiapi import DEFAULT_ENDPOINT as CIVITAI
from layerbuild.sources.civitaiapi import Api
from layerbuild.sources.hub import DEFAULT_ENDPOINT as HUB
from layerbuild.sources.hub import Hub, Repository
from layerbuild.sources.hublisting import Revision
from layerbuild.webui.architecture import architecture
from layerbuild.webui.modeltypes import is_safetensors, type_of_place
from layerbuild.webui.safetensors import PREFIX, header_length
from layerbuild.webui.tensors import tensors_of
from layerbuild.webui.tensortypes import type_of_tensors

TYPES: tuple[str, ...] = get_args(ModelType)
SNAPSHOT = "huggingface"
"""What `--type` says of a whole repository of the Hub."""

_FIRST_READ = 256 * 1024
"""Bytes of a model that are asked for first: the headers of most Loras and of SD 1.5 end within them."""

_CIVITAI_TYPES = {
    **{"checkpoint": "checkpoint", "lora": "lora", "locon": "lora", "dora": "lora", "textualinversion": "embedding"},
    **{"vae": "vae", "hypernetwork": "hypernetwork", "upscaler": "upscaler", "controlnet": "controlnet"},
}
_PARTS = (
    "model.safetensors",
    "pytorch_model.bin",
    "diffusion_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
)
"""Files that libraries load by their repository, and nobody as a model of the webui."""

_OTHER_FORMATS = ("*.bin", "*.ckpt", "*.h5", "*.msgpack", "*.onnx", "*.ot", "*.pt", "*.pth", "*.gguf")


@dataclass(frozen=True, kw_only=True)
class Extension:
    """A git tree that goes below the webui's extensions/, or is a webui itself (`flavor`)."""

    directory: str
    source: str
    flavor: str | None = None


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What the command line says in any case."""

    name: str | None = None
    type: str | None = None
    filename: str | None = None


@dataclass(frozen=True, kw_only=True)
class Looked:
    """What a model file says of itself, None where it does not tell."""

    type: str | None
    architecture: str | None


class Identifier:
    """Asks the sources of one command."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def identify(self, pasted: Pasted, wishes: Wishes) -> Declaration | Extension:
        """The declaration of what was pasted.

        Raises:
            UsageError: nobody can tell what it is; the hint says what `--type` to give.
            SourceError: it cannot be had, or holds a secret, or is dangerous.
        """
        if pasted.form == "git":
            return self._tree(pasted.source, wishes)
        if pasted.form == "civitai-model":
            newest = Api(self._context).newest(int(pasted.source))
            return self._civitai(f"civitai://{newest}", wishes)
        scheme = pasted.source.partition(":")[0]
        if scheme == "hf":
            return self._hub(pasted, wishes)
        if scheme == "civitai":
            return self._civitai(pasted.source, wishes)
        return self._plain(pasted.source, wishes)

    def look(self, source: str) -> Looked:
        """What a file is by its header, then by the directories it lies in."""
        header = self._header(Pin(source=source, files=(_file(_basename(source), None),)))
        found = (type_of_tensors(header) if header else None) or type_of_place(_path(source))
        return Looked(type=found, architecture=architecture(header) if header else None)

    def _plain(self, source: str, wishes: Wishes) -> Declaration:
        """A file of this machine, of a web server, or of an object store, of which nobody says more than its bytes."""
        source = checked(source, self._context)
        name = safe_relative(wishes.filename or _basename(source), origin=shown(source))
        pin = Pin(source=source, files=(_file(_basename(source), None),))
        if source.startswith("file:"):
            # What is not there is told now; `lock` hashes it.
            read_exactly(source_for(source, self._context).open(pin, pin.files[0], length=1), 1)
        header, kind = self._looked_at(pin, name, wishes, type_of_place(_path(source)))
        comments = [f"added from {shown(source)}", *_about(header)]
        if not source.startswith("file:"):
            comments.append("nobody publishes its sha256: layerbuild lock fetches it once, and records what came")
        values: dict[str, Any] = {"kind": "model", "type": kind, "source": source}
        if wishes.filename or posixpath.basename(name) != _basename(source):
            values["filename"] = name
        return Declaration(name=wishes.name or layer_name(name), values=values, comments=tuple(comments))

    def _civitai(self, source: str, wishes: Wishes) -> Declaration:
        address = parse_civitai(source)
        pin = source_for(source, self._context).resolve(PinRequest(uri=source))
        api = Api(self._context)
        version = api.version(address.version) if address.version else api.by_hash(address.digest or "")
        file = choose(version, parse_civitai(pin.source).query)
        told = _CIVITAI_TYPES.get(version.type.lower())
        told = "vae" if file.traits.get("type", "").lower() == "vae" else told
        name = safe_relative(wishes.filename or file.name, origin=version.uri)
        header, kind = self._looked_at(pin, name, wishes, told)
        page = f"{CIVITAI}/models/{version.model}?modelVersionId={version.id}" if version.model else None
        base = f"for {version.base}" if version.base and version.type.lower() != "checkpoint" else version.base
        content = pin.files[0].content
        return Declaration(
            name=wishes.name or layer_name(file.name),
            values=_present(
                kind="model",
                type=kind,
                # Nobody who adds it could give it another title.
                description=None if has_markup(version.title) else version.title or None,
                homepage=page,
                source=pin.source,
                sha256=content.sha256,
                size=content.size,
                filename=name,
            ),
            comments=(f"added from {page or version.uri}", *([base] if base else []), *_about(header), *_licence(None)),
        )

    def _hub(self, pasted: Pasted, wishes: Wishes) -> Declaration:
        address = huggingface.parse(pasted.source)
        require_online(self._context, pasted.source)
        hub = self._context.memo.get(Hub, lambda: Hub(self._context))
        revision = hub.revision(address.repository, address.revision)
        path = address.path
        if path is None and wishes.type != SNAPSHOT:
            path = _single(revision, pasted, address.repository)
        if path is None or wishes.type == SNAPSHOT:
            return _snapshot(revision, address, pasted.below, wishes)
        source = f"hf://{address.repository.path}@{revision.commit}/{path}"
        pin = source_for(source, self._context).resolve(PinRequest(uri=source))
        content = pin.files[0].content
        name = safe_relative(wishes.filename or posixpath.basename(path), origin=source)
        header, kind = self._looked_at(pin, name, wishes, type_of_place(path))
        page = f"{HUB}/{address.repository.path}"
        as_of = "" if address.revision == revision.commit else f", as of {address.revision}"
        values = _present(
            kind="model",
            type=kind,
            licence=revision.licence,
            homepage=page,
            source=source,
            sha256=content.sha256,
            size=content.size if content.sha256 else None,
            filename=name if wishes.filename else None,
        )
        comments = (f"added from {page}{as_of}", *_about(header), *_licence(revision.licence))
        return Declaration(name=wishes.name or layer_name(name), values=values, comments=comments)

    def _tree(self, source: str, wishes: Wishes) -> Extension:
        pin = source_for(source, self._context).resolve(PinRequest(uri=source))
        directory = wishes.name or posixpath.basename(source.rpartition("@")[0].rstrip("/")).removesuffix(".git")
        return Extension(directory=directory, source=pin.source, flavor=webui_flavor(source))

    def _looked_at(self, pin: Pin, name: str, wishes: Wishes, told: str | None) -> tuple[Mapping[str, Any] | None, str]:
        """The header, where the file has one, and the type: what the user says, what the header says, what others
        say."""
        header = self._header(pin) if is_safetensors(pin.files[0].path) else None
        found = wishes.type or (type_of_tensors(header) if header else None) or told
        if found is not None:
            return header, found
        if posixpath.splitext(name)[1].lower() not in MODEL_SUFFIXES:
            cause = f"{name} has no extension of a model file"
        elif header is not None:
            cause = "its header names tensors of no type that is known"
        else:
            cause = "only a .safetensors file says what it holds, and nothing else tells"
        raise UsageError(
            f"cannot tell what {shown(pin.source)} is", cause=cause, hint=f"give --type, one of {', '.join(TYPES)}"
        )

    def _header(self, pin: Pin) -> Mapping[str, Any] | None:
        """A safetensors header, read by range; None where it cannot be had, or is none."""
        source, file = source_for(pin.source, self._context), pin.files[0]
        if not is_safetensors(file.path):
            return None
        try:
            start = read_exactly(source.open(pin, file, length=_FIRST_READ), _FIRST_READ)
            length = header_length(start)
            if length is None:
                return None
            header = start[PREFIX : PREFIX + length]
            if len(header) < length:
                left = length - len(header)
                header += read_exactly(source.open(pin, file, offset=len(start), length=left), left)
        except SourceError as error:
            self._context.progress.note(f"its header cannot be read: {error.message}")
            return None
        return tensors_of(header)


def webui_flavor(source: str) -> str | None:
    """Which webui a repository is by its name, None for anything else."""
    name = posixpath.basename(source.rpartition("@")[0].rstrip("/")).removesuffix(".git").lower()
    known = {
        **{"stable-diffusion-webui": "a1111", "stable-diffusion-webui-forge": "forge"},
        **{"automatic": "sdnext", "sdnext": "sdnext"},
    }
    return known.get(name)


def _single(revision: Revision, pasted: Pasted, repository: Repository) -> str | None:
    """The one model file of a repository that a webui would load; None where the repository is for libraries.

    Raises:
        UsageError: there are several.
    """
    below = f"{pasted.below}/" if pasted.below else ""
    top = [name for name in revision.files if name.startswith(below) and "/" not in name[len(below) :]]
    models = [
        n for n in top if posixpath.splitext(n)[1].lower() in MODEL_SUFFIXES and posixpath.basename(n) not in _PARTS
    ]
    models = [name for name in models if is_safetensors(name)] or models
    if len(models) > 1:
        listed = ", ".join(f"hf://{repository.path}/{name}" for name in sorted(models)[:8])
        raise UsageError(
            f"{shown(pasted.source)} has {len(models)} model files",
            cause="one layer is one of them",
            hint=f"add one: {words(listed, limit=900)}; or all as a snapshot: --type {SNAPSHOT}",
        )
    return models[0] if models else None


def _snapshot(revision: Revision, address: huggingface.Address, below: str, wishes: Wishes) -> Declaration:
    page = f"{HUB}/{address.repository.path}"
    if address.path is not None:
        files = [address.path]
    else:
        safe = any(is_safetensors(name) for name in revision.files)
        left_out = [p for p in _OTHER_FORMATS if safe and any(n.endswith(p[1:]) for n in revision.files)]
        files = [*([f"{below}/*"] if below else []), *(f"!{pattern}" for pattern in left_out)]
    total = sum(content.size or 0 for content in revision.files.values())
    comments = [f"added from {page}: a snapshot in the Hugging Face cache; all its files have {total} bytes"]
    if any(pattern.startswith("!") for pattern in files):
        comments.append("the same weights in other formats than safetensors are left out")
    values = _present(
        kind="huggingface",
        licence=revision.licence,
        homepage=page,
        source=f"hf://{address.repository.path}@{revision.commit}",
        files=files or None,
    )
    name = wishes.name or layer_name(address.repository.name + ".repo")
    return Declaration(name=name, values=values, comments=(*comments, *_licence(revision.licence)))


def _present(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _about(header: Mapping[str, Any] | None) -> Sequence[str]:
    """What a header says of its model, for a comment."""
    found = architecture(header) if header else None
    return [f"its header says: {found}"] if found else []


def _licence(known: str | None) -> Sequence[str]:
    return [] if known else ["its licence is not told: see its page"]


def _file(name: str, size: int | None) -> PinnedFile:
    return PinnedFile(path=name, content=Content(size=size))


def _path(source: str) -> str:
    """The path of a source, for what its directories tell."""
    return unquote(urlsplit(source).path) if source.startswith(("http://", "https://")) else source.partition(":")[2]


def _basename(source: str) -> str:
    return posixpath.basename(_path(source).partition("?")[0].rstrip("/"))
