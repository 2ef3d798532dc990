"""Layers: a mapping of names to declarations, as `layers/*.yaml` has it."""

from __future__ import annotations

import posixpath
from typing import Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from layerbuild.fields import (
    CheckoutName,
    Commit,
    Directory,
    FilePath,
    HeaderName,
    Hex64,
    IndexAddress,
    LayerName,
    LinkTarget,
    Mirror,
    Mode,
    PackageName,
    PythonPlatform,
    PythonVersion,
    RelativePath,
    Repository,
    Requirement,
    Scalar,
    Suffix,
    Timestamp,
)
from layerbuild.paths import parents
from layerbuild.schema.base import HEADERS, MIRRORS, AnyLayer, Fetch, Flavor, Strict, check_places

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


class ModelLayer(AnyLayer):
    """A model file that the webui lists. Its bytes become a weights layer; a link puts it in place."""

    kind: Literal["model"]
    type: ModelType = Field(description="Decides the directory and the key in the webui's hash cache.")
    source: str = Field(description="Where the bytes come from.")
    sha256: Hex64 | None = Field(default=None, description="Expected sha256; pins the file without any download.")
    size: int | None = Field(default=None, ge=0, description="Expected size in bytes.")
    mirrors: list[Mirror] = MIRRORS
    headers: dict[HeaderName, str] = HEADERS
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
        check_places(self.source, self.mirrors, self.headers)
        return self


class HuggingFaceLayer(AnyLayer):
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


class WebuiLayer(AnyLayer):
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


class FileSpec(Strict):
    """One file of a files layer: exactly one of source, template, content and link."""

    source: str | None = Field(default=None, description="Where the bytes come from.")
    sha256: Hex64 | None = Field(default=None, description="Expected sha256 of what 'source' gives.")
    size: int | None = Field(default=None, ge=0, description="Expected size in bytes of what 'source' gives.")
    mirrors: list[Mirror] = MIRRORS
    headers: dict[HeaderName, str] = HEADERS
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
        check_places(self.source, self.mirrors, self.headers)
        return self


class FilesLayer(AnyLayer):
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


class RequirementsFile(Strict):
    """Requirements that stand in a file of a git tree."""

    model_config = ConfigDict(serialize_by_alias=True)

    tree: str = Field(
        alias="from",
        description="webui: the webui layer of the same image, at its commit. Or git+https://HOST/REPOSITORY@COMMIT.",
    )
    file: RelativePath = Field(default="requirements_versions.txt", description="The file's path in the tree.")
    mirrors: list[str] = Field(default_factory=list, description="Other addresses of the repository.")


class PythonLayer(AnyLayer):
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
