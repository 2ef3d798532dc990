"""Declarations as people write them: the shape of `layers/*.yaml` and `recipes/*.yaml`.

These classes are the one definition of the format: they check what was written, and `layerbuild
schema` prints their JSON Schema for editors. A field's description is its documentation.
"""

from __future__ import annotations

import posixpath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from layerbuild.fields import (
    AbsolutePath,
    CheckoutName,
    Commit,
    Directory,
    EnvName,
    FilePath,
    HeaderName,
    Hex64,
    IndexAddress,
    LayerName,
    LinkTarget,
    Mirror,
    Mode,
    PackageName,
    Platform,
    PythonPlatform,
    PythonVersion,
    RelativePath,
    Repository,
    Requirement,
    Scalar,
    Suffix,
    Timestamp,
)
from layerbuild.headers import fault
from layerbuild.paths import parents


class _Strict(BaseModel):
    """Unknown keys are errors; nothing is turned into a string behind the writer's back."""

    # Most projects use few kinds of layers: what validates the others is never built.
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True, validate_default=True)


_MIRRORS: Any = Field(
    default_factory=list,
    description="Other addresses of the same bytes, tried in order where 'source' is dead. They move no pin.",
)
_HEADERS: Any = Field(
    default_factory=dict,
    description="Headers for an https:// source: {Authorization: 'Bearer ${MY_TOKEN}'}. The lock holds the reference, "
    "never the value.",
)


def _check_places(source: str | None, mirrors: list[str], headers: dict[str, str]) -> None:
    """Whether `mirrors` and `headers` fit the source.

    Raises:
        ValueError: they do not.
    """
    if mirrors and (source is None or source.startswith(("file:", "git+"))):
        raise ValueError("'mirrors' belong to a source that is fetched from elsewhere, and is one file")
    if headers and (source is None or not source.startswith(("https://", "http://"))):
        raise ValueError("'headers' belong to an https:// source")
    for name, value in headers.items():
        reason = fault(name, value)
        if reason is not None:
            raise ValueError(reason)


class Fetch(_Strict):
    """One file from somewhere."""

    source: str = Field(description="Where the bytes come from: hf://, civitai://, https://, s3://, file: ...")
    sha256: Hex64 | None = Field(default=None, description="Expected sha256, 64 lower-case hex digits.")
    size: int | None = Field(default=None, ge=0, description="Expected size in bytes.")
    mirrors: list[Mirror] = _MIRRORS
    headers: dict[HeaderName, str] = _HEADERS

    @model_validator(mode="after")
    def _places_fit(self) -> Fetch:
        _check_places(self.source, self.mirrors, self.headers)
        return self


class _Layer(_Strict):
    description: str | None = Field(default=None, description="For people; not part of any digest.")
    licence: str | None = Field(default=None, description="SPDX identifier or name; for people.")
    homepage: str | None = Field(default=None, description="Page of the model or project; for people.")


Flavor = Literal["a1111", "forge", "sdnext"]

ModelType = Literal[
    "checkpoint",
    "lora",
    "vae",
    "embedding",
    "hypernetwork",
    "upscaler",
    "controlnet",
    "vae-approx",
    "vae-taesd",
    "codeformer",
    "gfpgan",
    "blip",
    "deepbooru",
]


class ModelLayer(_Layer):
    """A model file that the webui lists. Its bytes become a weights layer; a link puts it in place."""

    kind: Literal["model"]
    type: ModelType = Field(description="Decides the directory and the key in the webui's hash cache.")
    source: str = Field(description="Where the bytes come from.")
    sha256: Hex64 | None = Field(default=None, description="Expected sha256; pins the file without any download.")
    size: int | None = Field(default=None, ge=0, description="Expected size in bytes.")
    mirrors: list[Mirror] = _MIRRORS
    headers: dict[HeaderName, str] = _HEADERS
    filename: RelativePath | None = Field(
        default=None,
        description="Name below the type's directory, may hold a sub-folder. Default: the source's basename.",
    )
    directory: RelativePath | None = Field(
        default=None, description="Another directory below the models directory, e.g. DAT for a DAT upscaler."
    )
    sidecars: dict[Suffix, Fetch | str] = Field(
        default_factory=dict,
        description="Small files that go with the model, by suffix: {'.yaml': hf://...} lies beside it as <stem>.yaml.",
    )
    links: Literal["symlink", "file"] = Field(
        default="symlink",
        description="'file' puts the file itself at its path, for tools that follow no links; it is then not shared.",
    )

    @model_validator(mode="after")
    def _sidecars_leave_the_model_alone(self) -> ModelLayer:
        suffix = posixpath.splitext(self.filename or self.source)[1]
        if suffix in self.sidecars:
            raise ValueError(f"the sidecar {suffix!r} would lie where the model itself lies")
        return self

    @model_validator(mode="after")
    def _places_fit(self) -> ModelLayer:
        _check_places(self.source, self.mirrors, self.headers)
        return self


class HuggingFaceLayer(_Layer):
    """A snapshot in the Hugging Face cache, readable offline by every client version."""

    kind: Literal["huggingface"]
    source: str = Field(description="hf://ORG/NAME@REVISION, or file:DIRECTORY with 'repository' and 'revision'.")
    files: list[str] | None = Field(
        default=None, description="Files to take: names or globs, '!' excludes. Default: all of them."
    )
    absent: list[RelativePath] = Field(
        default_factory=list,
        description="Files that clients ask for and that do not exist: marked, so that no request is sent.",
    )
    repository: Repository | None = Field(default=None, description="ORG/NAME, where the source is a directory.")
    revision: Commit | None = Field(default=None, description="Commit, where the source is a directory.")
    refs: list[RelativePath] = Field(
        default_factory=lambda: ["main"], description="Names under which clients find the commit."
    )

    @model_validator(mode="after")
    def _directory_says_what_it_is(self) -> HuggingFaceLayer:
        if self.source.startswith("file:") and not (self.repository and self.revision):
            raise ValueError("a snapshot from a directory needs 'repository' (ORG/NAME) and 'revision' (40 hex digits)")
        if not self.source.startswith("file:") and (self.repository or self.revision):
            raise ValueError("'repository' and 'revision' belong to a file: source; here the source names both")
        return self


def _or_auto(schema: dict[str, Any]) -> None:
    """Says in the JSON Schema of a mapping that the text `auto` will do as well."""
    rule = {key: schema.pop(key) for key in list(schema) if key not in ("title", "description", "default")}
    schema["anyOf"] = [rule, {"type": "string", "enum": ["auto"]}]


class WebuiLayer(_Layer):
    """The webui's tree at a commit, with its checkouts below repositories/, each a layer of its own."""

    kind: Literal["webui"]
    source: str = Field(description="git+https://HOST/REPOSITORY@COMMIT")
    version: str | None = Field(default=None, description="Release, e.g. 1.10.1. Default: known from the commit.")
    flavor: Flavor = Field(default="a1111", description="Which webui this is.")
    repositories: dict[CheckoutName, str] = Field(
        default_factory=dict,
        description="Directory below repositories/ -> git source with its commit. '*': auto, or auto instead of the "
        "mapping, adds those that the commit's own launch script names.",
        json_schema_extra=_or_auto,
    )
    extensions: dict[LayerName, str] = Field(
        default_factory=dict, description="Directory below extensions/ -> git source with its commit."
    )
    mirrors: dict[str, list[str]] = Field(
        default_factory=dict,
        description="Repository -> other addresses of it, tried in order where it is gone or lacks the commit.",
    )
    submodules: bool | list[str] = Field(
        default=False,
        description="Submodules to follow: true, or their paths below the webui's directory. Others are refused.",
    )
    lfs_pointers: list[str] = Field(
        default_factory=list,
        description="Git LFS pointers that may stay pointers: paths below the webui's directory, or globs.",
    )

    @property
    def automatic(self) -> bool:
        """Whether the commit itself names checkouts."""
        return "*" in self.repositories

    @property
    def checkouts(self) -> dict[str, str]:
        """The checkouts that the declaration names: directory -> source."""
        return {directory: source for directory, source in self.repositories.items() if directory != "*"}

    @field_validator("repositories", mode="before")
    @classmethod
    def _all_of_them(cls, value: Any) -> Any:
        if value == "auto":
            return {"*": "auto"}
        if not isinstance(value, dict):
            raise ValueError("'auto' or a mapping is expected")
        return value

    @model_validator(mode="after")
    def _only_the_rest_is_automatic(self) -> WebuiLayer:
        for directory, source in self.repositories.items():
            if (directory == "*") != (source == "auto"):
                raise ValueError("in 'repositories', 'auto' belongs to '*', and '*' to nothing else")
        return self


class FileSpec(_Strict):
    """One file of a files layer: exactly one of source, template, content and link."""

    source: str | None = Field(default=None, description="Where the bytes come from.")
    sha256: Hex64 | None = Field(default=None, description="Expected sha256 of what 'source' gives.")
    size: int | None = Field(default=None, ge=0, description="Expected size in bytes of what 'source' gives.")
    mirrors: list[Mirror] = _MIRRORS
    headers: dict[HeaderName, str] = _HEADERS
    template: str | None = Field(default=None, description="A *.j2 file beside the declaration, rendered by Jinja2.")
    content: str | None = Field(default=None, description="The text itself.")
    link: LinkTarget | None = Field(default=None, description="Target of a symlink.")
    mode: Mode | None = Field(default=None, description="Octal, in quotes; default 0644.")

    @model_validator(mode="after")
    def _one_origin(self) -> FileSpec:
        given = [n for n in ("source", "template", "content", "link") if getattr(self, n) is not None]
        if len(given) != 1:
            raise ValueError(f"needs exactly one of source, template, content and link, has {given or 'none'}")
        if self.source is None and (self.sha256 or self.size is not None):
            raise ValueError("'sha256' and 'size' belong to 'source'")
        if self.link is not None and self.mode is not None:
            raise ValueError("a link has no mode")
        _check_places(self.source, self.mirrors, self.headers)
        return self


class FilesLayer(_Layer):
    """Files, downloads, links and rendered templates at absolute paths."""

    kind: Literal["files"]
    files: dict[FilePath, FileSpec | str] = Field(description="Path -> where it comes from (or just the source).")
    vars: dict[str, Scalar] = Field(default_factory=dict, description="Defaults for the templates; a recipe overrides.")

    @model_validator(mode="after")
    def _no_file_holds_another(self) -> FilesLayer:
        for path in self.files:
            for above in parents(path[1:]):
                if f"/{above}" in self.files:
                    raise ValueError(f"'/{above}' is a file here, and {path!r} needs it to be a directory")
        return self


class RequirementsFile(_Strict):
    """Requirements that stand in a file of a git tree."""

    model_config = ConfigDict(serialize_by_alias=True)

    tree: str = Field(
        alias="from",
        description="webui: the webui layer of the same image, at its commit. Or git+https://HOST/REPOSITORY@COMMIT.",
    )
    file: RelativePath = Field(default="requirements_versions.txt", description="The file's path in the tree.")
    mirrors: list[str] = Field(default_factory=list, description="Other addresses of the repository.")


class PythonLayer(_Layer):
    """Python packages from wheels, in a virtual environment. Heavy wheels have layers of their own."""

    kind: Literal["python"]
    requirements: list[Requirement] | RequirementsFile = Field(
        default_factory=list, description="As pip writes them: [numpy<2, 'gradio==3.41.2']; or {from: webui}."
    )
    packages: list[Requirement] = Field(default_factory=list, description="Further requirements.")
    constraints: list[Requirement] = Field(
        default_factory=list, description="What versions may be, of packages that something requires."
    )
    indexes: list[IndexAddress] = Field(
        default_factory=list,
        description="Addresses of indexes that are asked before PyPI. Logins for them stand in ~/.netrc.",
    )
    index_strategy: Literal["first-index", "unsafe-first-match", "unsafe-best-match"] = Field(
        default="first-index", description="Which of the indexes that have a package counts; as of uv."
    )
    exclude_newer: Timestamp | None = Field(
        default=None, description="'2026-01-31' or a time in RFC 3339: what was published later does not count."
    )
    python: PythonVersion | None = Field(
        default=None, description="The Python that runs them, in quotes: '3.10'. Default: 'python' of the recipe."
    )
    platform: PythonPlatform | None = Field(
        default=None, description="As of uv's --python-platform. Default: manylinux_2_28 of the image's platform."
    )
    prefix: Directory = Field(
        default="/opt/venv", description="Directory of the environment. Its bin is put first in PATH."
    )
    interpreter: FilePath | None = Field(
        default=None, description="The base's Python, which the environment links to. Default: /usr/bin/python3.X."
    )
    bytecode: Literal["none", "unchecked-hash"] = Field(
        default="unchecked-hash", description="Whether modules are compiled when the layer is made."
    )
    build: list[PackageName] = Field(
        default_factory=list, description="Packages that may be built from source, by name. Others are refused."
    )

    @model_validator(mode="after")
    def _asks_for_something(self) -> PythonLayer:
        if not self.requirements and not self.packages:
            raise ValueError("neither 'requirements' nor 'packages' names a package")
        return self


Layer = ModelLayer | HuggingFaceLayer | WebuiLayer | FilesLayer | PythonLayer
LAYER_KINDS: dict[
    str, type[ModelLayer] | type[HuggingFaceLayer] | type[WebuiLayer] | type[FilesLayer] | type[PythonLayer]
] = {
    "model": ModelLayer,
    "huggingface": HuggingFaceLayer,
    "webui": WebuiLayer,
    "files": FilesLayer,
    "python": PythonLayer,
}


class WebuiTarget(_Strict):
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


class OwnerSpec(_Strict):
    """Numeric owner of what the image's own layers hold, weights excepted (they are shared).

    A tar header holds seven octal digits.
    """

    uid: int = Field(default=0, ge=0, le=0o7777777, description="User id, at most 2097151.")
    gid: int = Field(default=0, ge=0, le=0o7777777, description="Group id, at most 2097151.")


class ImageConfig(_Strict):
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


class Recipe(_Strict):
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


def json_schema(what: Literal["layers", "recipe"]) -> dict[str, Any]:
    """JSON Schema (2020-12) of a layers file or a recipe, for editors.

    Where Jinja2 may give the value, markup is as good as the value itself.
    """
    if what == "recipe":
        schema = Recipe.model_json_schema()
        schema["title"] = "layerbuild recipe"
    else:
        from pydantic import RootModel  # noqa: PLC0415  # only this command needs it

        class Layers(RootModel[dict[LayerName, Annotated[Layer, Field(discriminator="kind")]]]):
            """Layer declarations by name."""

        schema = Layers.model_json_schema()
        schema["title"] = "layerbuild layers"
    schema["$defs"] = {name: _or_markup(definition) for name, definition in schema.get("$defs", {}).items()}
    if what == "recipe":
        schema["properties"] = {name: _or_markup(value) for name, value in schema["properties"].items()}
    else:
        schema["additionalProperties"] = False
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


_MARKUP = r"\{\{|\{%"


def _or_markup(node: Any) -> Any:
    """A JSON Schema that also takes markup wherever it narrows text, a number or a key."""
    if not isinstance(node, dict):
        return [_or_markup(item) for item in node] if isinstance(node, list) else node
    if "pattern" in node or "enum" in node or node.get("type") in ("integer", "number", "boolean"):
        about = {key: node[key] for key in ("title", "description", "default") if key in node}
        rule = {key: value for key, value in node.items() if key not in about}
        return {**about, "anyOf": [rule, {"type": "string", "pattern": _MARKUP}]}
    result = {
        key: {name: _or_markup(v) for name, v in value.items()} if key == "properties" else _or_markup(value)
        for key, value in node.items()
        if key != "default"
    }
    if "patternProperties" in node:
        patterns = result["patternProperties"]
        patterns[_MARKUP] = next(iter(patterns.values()))
        result["additionalProperties"] = False
    return result | ({"default": node["default"]} if "default" in node else {})
