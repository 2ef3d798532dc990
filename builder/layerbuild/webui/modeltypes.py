"""Where the webui looks for each type of model, and under which key its hash cache remembers it.

Read from the webui's `modules/sd_models.py`, `sd_vae.py`, `hashes.py`, `textual_inversion/`,
`hypernetworks/` and `extensions-builtin/Lora/network.py`, releases 1.4 to 1.10.1.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from layerbuild.model import Target
from layerbuild.webui.flavors import FLAVORS

Section = Literal["hashes", "hashes-addnet"]


@dataclass(frozen=True, kw_only=True)
class CacheKeys:
    """What the webui remembers of one file.

    Attributes:
        section, key: where its hash stands; None where the webui never hashes it.
        metadata: key in `safetensors-metadata`, None where nothing is stored.
        unique: whether two models under one key are refused. Every VAE has the same key, and that
            is the webui's own choice: several VAEs have no entry then.
    """

    section: Section | None = None
    key: str | None = None
    metadata: str | None = None
    unique: bool = True


NONE = CacheKeys()


@dataclass(frozen=True, kw_only=True)
class ModelType:
    """A type of model: its directory below `anchor`, and its keys by name below that directory."""

    anchor: Literal["models", "embeddings"] = "models"
    directory: str
    keys: Callable[[str], CacheKeys] = lambda _: NONE

    @property
    def hashed(self) -> bool:
        """Whether the webui hashes such files: their keys are names below the type's own directory."""
        return self.keys("x") != NONE


def is_safetensors(name: str) -> bool:
    """By the extension, as the webui decides."""
    return posixpath.splitext(name)[1].lower() == ".safetensors"


def is_hidden(name: str) -> bool:
    """Whether the webui lists no file of that name: a component of its path begins with a dot."""
    return any(part.startswith(".") for part in name.split("/"))


def _stem(name: str) -> str:
    return posixpath.splitext(posixpath.basename(name))[0]


def _checkpoint(name: str) -> CacheKeys:
    key = f"checkpoint/{name}"
    return CacheKeys(section="hashes", key=key, metadata=key if is_safetensors(name) else None)


def _lora(name: str) -> CacheKeys:
    key = f"lora/{_stem(name)}"
    if is_safetensors(name):
        return CacheKeys(section="hashes-addnet", key=key, metadata=key)
    return CacheKeys(section="hashes", key=key)


def _vae(_: str) -> CacheKeys:
    return CacheKeys(section="hashes", key="vae", unique=False)


def _embedding(name: str) -> CacheKeys:
    return CacheKeys(section="hashes", key=f"textual_inversion/{_stem(name)}")


def _hypernetwork(name: str) -> CacheKeys:
    return CacheKeys(section="hashes", key=f"hypernet/{_stem(name)}")


MODEL_TYPES = {
    "checkpoint": ModelType(directory="Stable-diffusion", keys=_checkpoint),
    "lora": ModelType(directory="Lora", keys=_lora),
    "vae": ModelType(directory="VAE", keys=_vae),
    "embedding": ModelType(anchor="embeddings", directory="", keys=_embedding),
    "hypernetwork": ModelType(directory="hypernetworks", keys=_hypernetwork),
    "upscaler": ModelType(directory="ESRGAN"),
    "controlnet": ModelType(directory="ControlNet"),
    "vae-approx": ModelType(directory="VAE-approx"),
    "vae-taesd": ModelType(directory="VAE-taesd"),
    "codeformer": ModelType(directory="Codeformer"),
    "gfpgan": ModelType(directory="GFPGAN"),
    "blip": ModelType(directory="BLIP"),
    "deepbooru": ModelType(directory="torch_deepdanbooru"),
}


_DIRECTORIES = {
    **{model_type.directory.lower(): name for name, model_type in MODEL_TYPES.items() if model_type.directory},
    **{"embeddings": "embedding", "lycoris": "lora", "realesrgan": "upscaler", "swinir": "upscaler", "dat": "upscaler"},
    **{"checkpoints": "checkpoint", "loras": "lora", "controlnets": "controlnet"},
}
"""Names of directories, in lower case, and what lies in them: the webui's own, and some that people use."""


def type_of_place(path: str) -> str | None:
    """The type of a model by the directories that its path goes through, the innermost first; None where they do
    not tell."""
    for part in reversed(path.lower().split("/")[:-1]):
        if part in _DIRECTORIES:
            return _DIRECTORIES[part]
    return None


def checkpoint_directories(target: Target) -> tuple[str, ...]:
    """Where the webui lists checkpoints: the directory of `--ckpt-dir`, and its own."""
    return (*(d for kind, d in target.type_dirs if kind == "checkpoint"), f"{target.models_dir}/Stable-diffusion")


def name_of_checkpoint(path: str, target: Target) -> str:
    """What the webui calls a checkpoint at an absolute path: the part below its directories, else the
    file's name.

    As `modules/sd_models.py:CheckpointInfo` has it: by the beginning of the path as text, and without
    the directory wherever that occurs in it.
    """
    for directory in checkpoint_directories(target):
        if path.startswith(directory):
            return path.replace(directory, "").removeprefix("/")
    return posixpath.basename(path)


def short_names(path: str, target: Target) -> list[str]:
    """What SD.Next may call a checkpoint: with and without extension where it lists checkpoints, else by
    its path, relative to SD.Next itself if it lies there (`modules/sd_checkpoint.py:CheckpointInfo`)."""
    for directory in checkpoint_directories(target):
        if path.startswith(f"{directory}/"):
            name = path[len(directory) + 1 :]
            return [name, posixpath.splitext(name)[0]]
    name = path.removeprefix(f"{target.root}/")
    return [posixpath.basename(path), posixpath.splitext(name)[0]]


_FLAGS = {
    "checkpoint": "--ckpt-dir",
    "lora": "--lora-dir",
    "vae": "--vae-dir",
    "hypernetwork": "--hypernetwork-dir",
}


def flags(target: Target) -> list[str]:
    """Words for the webui's command line that make it look where `target` puts things."""
    below = target.models_dir if FLAVORS[target.flavor].embeddings_below_models else target.data_dir
    directories = [
        ("--data-dir", target.data_dir, target.root),
        ("--models-dir", target.models_dir, f"{target.data_dir}/models"),
        ("--embeddings-dir", target.embeddings_dir, f"{below}/embeddings"),
    ]
    words = [word for flag, path, default in directories if path != default for word in (flag, path)]
    words += [word for kind, path in target.type_dirs for word in (_FLAGS[kind], path)]
    return [*words, *(("--ckpt", target.checkpoint) if target.checkpoint else ())]


def place(type_name: str, name: str, target: Target, directory: str | None = None) -> str:
    """Absolute path of a model called `name` (may hold a sub-folder) in the image."""
    model_type = MODEL_TYPES[type_name]
    for kind, flagged in target.type_dirs:
        if kind == type_name and directory is None:
            return posixpath.join(flagged, name)
    base = target.embeddings_dir if model_type.anchor == "embeddings" else target.models_dir
    folder = directory if directory is not None else model_type.directory
    return posixpath.join(base, folder, name) if folder else posixpath.join(base, name)
