"""Recipes: an image, or a family of images, as `recipes/*.yaml` has it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from layerbuild.fields import AbsolutePath, Directory, EnvName, FilePath, Platform, PythonVersion, Scalar
from layerbuild.schema.base import Flavor, Strict


class WebuiTarget(Strict):
    """Where the webui lies in the image, and who put it there."""

    root: Directory = Field(default="/stable-diffusion-webui", description="The webui's directory.")
    provided_by: Literal["base", "layer"] | None = Field(
        default=None, description="'base' where the base image already holds the webui. Default: a webui layer."
    )
    flavor: Flavor | None = Field(
        default=None, description="Which webui this is. Default: the webui layer's, or a1111."
    )
    version: str | None = Field(default=None, description="Release, e.g. 1.10.1, where no webui layer tells it.")
    data_dir: Directory | None = Field(default=None, description="--data-dir. Default: root.")
    models_dir: Directory | None = Field(default=None, description="--models-dir. Default: <data_dir>/models.")
    embeddings_dir: Directory | None = Field(
        default=None, description="--embeddings-dir. Default: <data_dir>/embeddings."
    )
    ckpt_dir: Directory | None = Field(default=None, description="--ckpt-dir: where checkpoints go instead.")
    lora_dir: Directory | None = Field(default=None, description="--lora-dir: where Loras go instead.")
    vae_dir: Directory | None = Field(default=None, description="--vae-dir: where VAEs go instead.")
    hypernetwork_dir: Directory | None = Field(
        default=None, description="--hypernetwork-dir: where hypernetworks go instead."
    )
    ckpt: FilePath | None = Field(
        default=None,
        description="--ckpt: the checkpoint of that name, or the only one of the image, lies at this path.",
    )
    cache_file: FilePath | None = Field(
        default=None, description="SD_WEBUI_CACHE_FILE: another path for cache.json (1.6 and later)."
    )
    cache_dir: Directory | None = Field(
        default=None,
        description="SD_WEBUI_CACHE_DIR: where 1.9 and later keep their database; a child of a writable mount "
        "that does not exist yet, for file systems that are read-only.",
    )
    inspect: bool = Field(
        default=True,
        description="Read the base's directories at lock time, so that layers repeat their owner and mode. "
        "false: take them to be 0755 and owned by 'owner'.",
    )


class OwnerSpec(Strict):
    """Numeric owner of what the image's own layers hold, weights excepted (they are shared).

    A tar header holds seven octal digits.
    """

    uid: int = Field(default=0, ge=0, le=0o7777777, description="User id, at most 2097151.")
    gid: int = Field(default=0, ge=0, le=0o7777777, description="Group id, at most 2097151.")


class ImageConfig(Strict):
    """The image's runtime configuration (OCI image-spec 1.1, config.md). It adds to the base's."""

    entrypoint: list[str] | None = Field(
        default=None, description="Replaces the base's, and drops the base's 'cmd', as Docker does."
    )
    cmd: list[str] | None = Field(default=None, description="Replaces the base's.")
    env: dict[EnvName, Scalar] = Field(
        default_factory=dict,
        description="Added to the base's, and to HF_HOME and HF_HUB_OFFLINE; a name here wins.",
    )
    workdir: AbsolutePath | None = Field(default=None, description="Working directory. Default: the base's.")
    user: str | None = Field(default=None, description="User, by name or number. Default: the base's.")
    labels: dict[str, str] = Field(default_factory=dict, description="Added to the base's.")
    ports: list[str] = Field(default_factory=list, description="e.g. ['3000/tcp']")
    volumes: list[AbsolutePath] = Field(default_factory=list, description="Added to the base's.")
    stop_signal: str | None = Field(
        default=None, description="Signal that asks the container to end. Default: the base's."
    )


class Recipe(Strict):
    """One family of images: a base, layers by name, configuration, and a matrix that multiplies them."""

    name: str | None = Field(default=None, description="Image name. Default: the recipe file's name.")
    description: str | None = Field(default=None, description="For people; not part of any digest.")
    matrix: dict[str, Annotated[list[Scalar], Field(min_length=1)]] = Field(
        default_factory=dict, description="Variable -> values; one image for each combination."
    )
    vars: dict[str, Scalar] = Field(default_factory=dict, description="Further variables for {{ }}.")
    base: str = Field(default="scratch", description="Base image reference, oci:DIR:NAME:TAG, or scratch.")
    platform: Platform = Field(default="linux/amd64", description="os/architecture[/variant]")
    platforms: list[Platform] = Field(
        default_factory=list,
        description="Instead of 'platform': an image for each, in this order, and one OCI index over them.",
    )
    webui: WebuiTarget | None = Field(default=None, description="Where the webui lies; needed for models.")
    hf_home: Directory = Field(default="/opt/huggingface", description="HF_HOME of the image.")
    layers: list[str] = Field(default_factory=list, description="Names from layers/ or the catalog. '' is skipped.")
    config: ImageConfig = Field(default_factory=ImageConfig, description="The image's runtime configuration.")
    annotations: dict[str, str] = Field(
        default_factory=dict, description="Annotations of the manifest, and of the index."
    )
    repository: str | None = Field(
        default=None, description="Where an image lands: PREFIX/REPOSITORY:TAG. Default: its name."
    )
    tags: list[str] = Field(default_factory=list, description="Default: 12 hex digits of its digest.")
    compression: Literal["zstd", "gzip"] = Field(default="zstd", description="Of all layers but weights.")
    pickle: Literal["refuse", "scan", "allow"] = Field(
        default="scan",
        description="Files that run code when they are loaded (.ckpt, .pt, .pth, .bin, .pkl): 'scan' takes those that "
        "call nothing but what loads tensors, 'refuse' takes none, 'allow' takes all unseen.",
    )
    stacking: Literal["software-first", "weights-first"] = Field(
        default="software-first", description="What lies lowest, and is shared by most chains of layers."
    )
    python: PythonVersion | None = Field(
        default=None,
        description="Version of the Python that the image runs, like '3.10': whose bytecode its sources get. '3.10.13' "
        "has it made by that release only.",
    )
    bytecode: Literal["none", "unchecked-hash"] | None = Field(
        default=None,
        description="Of the webui's tree, its checkouts and extensions: 'unchecked-hash' compiles them when the image "
        "is built. Default: that where 'python' is given, or a python layer says it, else none.",
    )
    owner: OwnerSpec = Field(
        default_factory=OwnerSpec, description="Numeric owner of the image's own layers, weights excepted."
    )

    @field_validator("platforms")
    @classmethod
    def _each_platform_once(cls, value: list[str]) -> list[str]:
        seen: dict[str, str] = {}
        for platform in value:
            plain = platform.replace("/arm64/v8", "/arm64")
            if plain in seen:
                same = f", which is {seen[plain]}" if seen[plain] != platform else ""
                raise ValueError(f"{platform} is listed twice{same}")
            seen[plain] = platform
        return value

    @model_validator(mode="after")
    def _platform_or_platforms(self) -> Recipe:
        if {"platform", "platforms"} <= self.model_fields_set:
            raise ValueError("'platform' and 'platforms' are both given: keep one")
        if "platforms" in self.model_fields_set and not self.platforms:
            raise ValueError("'platforms' is empty: name one, or leave it out")
        return self
