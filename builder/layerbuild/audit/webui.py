"""The webui in an image: where it is, which one, where it looks for models, and which it would list.

Listing follows the webui's `modules/util.py` (`walk_files`), `modelloader.py`, `sd_vae.py`,
`hypernetworks/hypernetwork.py` and `textual_inversion/textual_inversion.py`.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from layerbuild.audit.filesystem import Filesystem, Node
from layerbuild.audit.runtime import Command, Runtime
from layerbuild.model import Content, Target
from layerbuild.schema import Flavor
from layerbuild.webui.changelog import CHANGELOG, ENOUGH, first_release
from layerbuild.webui.flavors import FLAVORS
from layerbuild.webui.hashcache import PlacedModel
from layerbuild.webui.modeltypes import name_of_checkpoint
from layerbuild.webui.releases import Version, parse_version

NAMES: Mapping[Flavor, str] = {"a1111": "A1111", "forge": "Forge", "sdnext": "SD.Next"}

_PARTS = ("modules/launch_utils.py", "modules/launch.py", "modules/shared.py")
_DIGEST = re.compile(r"[0-9a-f]{64}")

_WEIGHTS = (".safetensors", ".ckpt", ".pt")
_EXTENSIONS = {
    "checkpoint": (".ckpt", ".safetensors"),
    "lora": _WEIGHTS,
    "vae": _WEIGHTS,
    "embedding": (".bin", ".pt", ".safetensors"),
    "hypernetwork": (".pt",),
}
_NO_CHECKPOINT = (".vae.ckpt", ".vae.safetensors", ".vae.pt")


@dataclass(frozen=True, kw_only=True)
class Webui:
    """A webui, and where it looks.

    Attributes:
        version: its release, None where nothing tells it: then the newest rules hold.
        directories: model type -> absolute directories; the first is the type's own.
        checkpoint: file that `--ckpt` names.
        cache_file: the `cache.json` that it reads.
        cache_dir: the directory that hides it (1.9+), None for a release or flavour without one.
    """

    flavor: Flavor
    version: Version | None
    root: str
    data_dir: str
    models_dir: str
    directories: Mapping[str, tuple[str, ...]]
    checkpoint: str | None
    cache_file: str
    cache_dir: str | None

    def since(self, *version: int) -> bool:
        """Whether it is of that release or newer."""
        return self.version is None or self.version >= version

    @cached_property
    def target(self) -> Target:
        """Itself as the rules of the hash cache take it."""
        kinds = ("checkpoint", "lora", "vae", "hypernetwork")
        return Target(
            root=self.root,
            data_dir=self.data_dir,
            models_dir=self.models_dir,
            embeddings_dir=self.directories["embedding"][0],
            type_dirs=tuple((kind, self.directories[kind][-1]) for kind in kinds),
            checkpoint=self.checkpoint,
            cache_file=self.cache_file,
            flavor=self.flavor,
            version=self.version,
        )

    @property
    def title(self) -> str:
        """For people: `A1111 1.10.1 in /stable-diffusion-webui`."""
        version = ".".join(map(str, self.version)) if self.version else "of an unknown release"
        return f"{NAMES[self.flavor]} {version} in {self.root}"


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model as the webui lists it.

    Attributes:
        placed: type, name, path and content; the content's sha256 where its path or a lock tells it.
        real: the file behind all links.
    """

    placed: PlacedModel
    real: str
    node: Node


def find_webui(files: Filesystem, runtime: Runtime, command: Command, known: Version | None = None) -> Webui | None:
    """The image's webui: of several, the one that its command names, else the one with the shortest path.

    Args:
        known: its release, where its changelog does not tell it.
    """
    roots = [
        posixpath.dirname(path)
        for path, node in files.everything()
        if path.endswith("/webui.py") and node.type == "file" and _is_root(files, posixpath.dirname(path))
    ]
    if not roots:
        return None
    words = [runtime.workdir, *command.words]

    def rank(root: str) -> tuple[bool, int, str]:
        named = any(word == root or word.startswith(f"{root}/") for word in words)
        return not named, len(root), root

    return _describe(files, command, min(roots, key=rank), known)


def _is_root(files: Filesystem, path: str) -> bool:
    return any(files.file(f"{path}/{part}") for part in _PARTS)


def _describe(files: Filesystem, command: Command, root: str, known: Version | None) -> Webui:
    flavor: Flavor = "a1111"
    if files.is_directory(f"{root}/modules_forge"):
        flavor = "forge"
    elif files.file(f"{root}/installer.py"):
        flavor = "sdnext"
    version = _version(files, root) or known if flavor != "sdnext" else None

    def directory(*flags: str, default: str) -> str:
        named = next((value for flag in flags if (value := command.flags.get(flag))), default)
        return posixpath.normpath(posixpath.join(root, named))

    data = directory("--data-dir", default=root)
    models = directory("--models-dir", "--model-ref", default=f"{data}/models")
    cache_file = command.env.get("SD_WEBUI_CACHE_FILE") if version is None or version >= (1, 6) else None
    own = f"{data}/{FLAVORS[flavor].cache}"
    has_directory = flavor != "sdnext" and (version is None or version >= (1, 9))
    cache_dir = command.env.get("SD_WEBUI_CACHE_DIR") or f"{data}/cache"
    checkpoint = command.flags.get("--ckpt")
    return Webui(
        flavor=flavor,
        version=version,
        root=root,
        data_dir=data,
        models_dir=models,
        directories={
            "checkpoint": _several(f"{models}/Stable-diffusion", command.flags.get("--ckpt-dir"), root),
            "lora": (directory("--lora-dir", default=f"{models}/Lora"),),
            "vae": _several(f"{models}/VAE", command.flags.get("--vae-dir"), root),
            "embedding": (directory("--embeddings-dir", default=f"{data}/embeddings"),),
            "hypernetwork": (directory("--hypernetwork-dir", default=f"{models}/hypernetworks"),),
        },
        checkpoint=posixpath.normpath(posixpath.join(root, checkpoint)) if checkpoint else None,
        cache_file=posixpath.join(root, cache_file or own),
        cache_dir=posixpath.join(root, cache_dir) if has_directory else None,
    )


def _several(own: str, named: str | None, root: str) -> tuple[str, ...]:
    other = posixpath.normpath(posixpath.join(root, named)) if named else own
    return (own,) if other == own else (own, other)


def _version(files: Filesystem, root: str) -> Version | None:
    """By the first heading of its changelog."""
    node = files.file(f"{root}/{CHANGELOG}")
    text = files.read(node, length=min(node.size, ENOUGH)) if node is not None else None
    release = first_release((text or b"").decode("utf-8", errors="replace"))
    return parse_version(release) if release else None


def list_models(files: Filesystem, webui: Webui) -> list[Model]:
    """Every model that the webui hashes at some time, as it lists them itself."""
    found: dict[tuple[str, str], Model] = {}
    for kind, directories in webui.directories.items():
        for directory in directories:
            for path in _listed(files, webui, kind, directory):
                found.setdefault((kind, path), _model(files, webui, kind, path))
    for path in _vaes_beside_checkpoints(files, webui):
        found.setdefault(("vae", path), _model(files, webui, "vae", path))
    if webui.checkpoint and files.file(webui.checkpoint):
        path = webui.checkpoint
        found.setdefault(("checkpoint", path), _model(files, webui, "checkpoint", path))
    return [found[key] for key in sorted(found)]


def _listed(files: Filesystem, webui: Webui, kind: str, directory: str) -> Iterator[str]:
    for path in _walk(files, webui, kind, directory):
        node = files.file(path)
        if node is None or (kind == "checkpoint" and path.lower().endswith(_NO_CHECKPOINT)):
            continue
        # an embedding of no bytes is passed over
        if kind != "embedding" or node.size:
            yield path


def _vaes_beside_checkpoints(files: Filesystem, webui: Webui) -> Iterator[str]:
    for directory in webui.directories["checkpoint"]:
        for path in _walk(files, webui, "vae", directory):
            if path.endswith(_NO_CHECKPOINT) and files.file(path):
                yield path


def _walk(files: Filesystem, webui: Webui, kind: str, directory: str) -> Iterator[str]:
    # until 1.7 an extension in upper case was another one
    folded = webui.since(1, 8)
    for where, names in files.walk(directory):
        # as the webui: by the whole path of the directory
        if "/." in where:
            continue
        for name in names:
            extension = posixpath.splitext(name)[1]
            if (extension.lower() if folded else extension) in _EXTENSIONS[kind]:
                yield f"{where}/{name}"


def _model(files: Filesystem, webui: Webui, kind: str, path: str) -> Model:
    resolved = files.resolve(path)
    assert resolved is not None, path
    real, node = resolved
    content = Content(size=node.size, sha256=node.sha256 or sha256_of_path(real), git_blob="")
    placed = PlacedModel(type=kind, name=_name(webui, kind, path), path=path, content=content, layer=path)
    return Model(placed=placed, real=real, node=node)


def _name(webui: Webui, kind: str, path: str) -> str:
    """A model's name below its directory; the one that a flag names comes first, as in the webui."""
    if kind == "checkpoint":
        return name_of_checkpoint(path, webui.target)
    for directory in reversed(webui.directories[kind]):
        if path.startswith(f"{directory}/"):
            return path.removeprefix(f"{directory}/")
    return posixpath.basename(path)


def sha256_of_path(path: str) -> str | None:
    """The sha256 that a content-named path tells: of a weights layer, or of a blob in a Hugging Face cache."""
    name = posixpath.basename(path)
    return name if _DIGEST.fullmatch(name) else None
