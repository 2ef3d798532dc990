"""What `layerbuild init` writes: a small project for what a directory holds already. Pure, but for `survey`."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from layerbuild.adding.declaration import Declaration, as_yaml, layer_name
from layerbuild.adding.plan import SCHEMAS
from layerbuild.render import has_markup
from layerbuild.schema import json_schema
from layerbuild.sources.base import words
from layerbuild.webui.architecture import family
from layerbuild.webui.needs import NEEDS

DEFAULT_BASE = "docker.io/pytorch/pytorch:2.1.2-cuda12.1-cudnn8-runtime"
"""Python 3.10 and torch, as webui 1.7 to 1.10 want them."""

_WEBUI = "webui-1.10.1"
_DEFAULT_CHECKPOINT = "sd15"
_MODELS = (".safetensors", ".ckpt")
_DEEPEST = 5
_MOST = 200
_SKIPPED = frozenset(("node_modules", "venv", "__pycache__", "site-packages", "repositories", "out"))


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model file that is there: its path below the project, and what it says of itself."""

    path: str
    type: str | None
    architecture: str | None


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What a directory holds.

    Attributes:
        models: paths of model files below it, in order; at most 200.
        unlisted: how many more there are.
        dockerfiles: their paths below it.
        git: whether it lies in a git repository.
    """

    models: tuple[str, ...]
    dockerfiles: tuple[str, ...]
    git: bool
    unlisted: int = 0


def recipe_name(directory: Path) -> str:
    """A name for the recipe of a directory: its own, dots and all."""
    return layer_name(f"{directory.resolve().name or 'worker'}.d")


def survey(root: Path) -> Survey:
    """What lies in `root`; hidden directories, and links to others, aside."""
    models, dockerfiles = [], []
    for path in _files(root):
        name = Path(path).name
        if Path(path).suffix.lower() in _MODELS:
            models.append(path)
        elif re.fullmatch(r"(?:.+\.)?(?:Dockerfile|Containerfile)(?:\..+)?", name, re.IGNORECASE):
            dockerfiles.append(path)
    git = any((directory / ".git").exists() for directory in (root, *root.parents))
    return Survey(
        models=tuple(sorted(models)[:_MOST]),
        dockerfiles=tuple(sorted(dockerfiles)),
        git=git,
        unlisted=max(0, len(models) - _MOST),
    )


def _files(root: Path) -> Iterator[str]:
    for directory, below, names in os.walk(root):
        inside = Path(directory).relative_to(root)
        deep = len(inside.parts) >= _DEEPEST
        below[:] = [] if deep else sorted(n for n in below if not n.startswith(".") and n not in _SKIPPED)
        for name in names:
            path = (inside / name).as_posix()
            if path.isprintable() and not has_markup(path) and (root / path).is_file():
                yield path


def schemas() -> Mapping[str, str]:
    """Files by which editors check and complete declarations, by their paths below a project."""
    kinds: tuple[Literal["layers", "recipe"], ...] = ("layers", "recipe")
    return {f"{SCHEMAS}/{kind}.schema.json": json.dumps(json_schema(kind), indent=1) + "\n" for kind in kinds}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A project to be.

    Attributes:
        name: of its recipe's image.
        base: the base image.
        models: what lies there already.
        taken: names of layers that mean something else: those of the catalog.
        git: whether a .gitignore is of use.
        compiles: whether this machine has a Python that compiles for the base's.
    """

    name: str
    base: str
    models: Sequence[Model]
    taken: Collection[str]
    git: bool
    compiles: bool

    def texts(self) -> Mapping[str, str]:
        """Files of the project by their paths, the schemas aside."""
        declared = list(self._declared())
        found = {
            "layers/models.yaml": _HEADER.format(schema="layers") + _LAYERS + self._layers(declared),
            f"recipes/{self.name}.yaml": _HEADER.format(schema="recipe") + self._recipe(declared),
        }
        return {**found, ".gitignore": _IGNORED} if self.git else found

    def _declared(self) -> Iterator[tuple[Declaration, Model]]:
        taken = set(self.taken)
        for model in self.models:
            if model.type is not None:
                name = _free(layer_name(model.path), taken)
                taken.add(name)
                values = {"kind": "model", "type": model.type, "source": f"file:{model.path}"}
                said = (f"its header says: {model.architecture}",) if model.architecture else ()
                yield Declaration(name=name, values=values, comments=said), model

    def _layers(self, declared: Sequence[tuple[Declaration, Model]]) -> str:
        unknown = [shlex.quote(model.path) for model in self.models if model.type is None]
        parts = [declaration.text() for declaration, _ in declared] or [_EXAMPLE]
        if unknown:
            lines = [
                f"#   layerbuild add {words(path, limit=4096)} --type checkpoint   (or lora, vae ...)\n"
                for path in unknown
            ]
            parts.append("# Nobody can tell what these are without loading them:\n" + "".join(lines))
        return "\n" + "\n".join(parts)

    def _recipe(self, declared: Sequence[tuple[Declaration, Model]]) -> str:
        checkpoints = [d.name for d, model in declared if model.type == "checkpoint"]
        others = [d.name for d, model in declared if model.type != "checkpoint"]
        families = dict.fromkeys(family(model.architecture) for _, model in declared) if checkpoints else {"sd1": None}
        needed: dict[str, None] = {"clip-l14": None}
        for found in families:
            needs = NEEDS.get(found or "")
            needed |= dict.fromkeys(layer for _, layer in (*needs.repositories, *needs.files)) if needs else {}
        several = len(checkpoints) > 1
        named = [*checkpoints[:1]] or [_DEFAULT_CHECKPOINT]
        layers = [_WEBUI, *needed, *(["{{ checkpoint }}"] if several else named), *others, "runpod-worker"]
        matrix = f"{_MATRIX}{as_yaml({'matrix': {'checkpoint': checkpoints}})}\n" if several else ""
        name = f"{self.name}-{{{{ checkpoint }}}}" if several else self.name
        return _RECIPE.format(
            matrix=matrix,
            name=as_yaml({"name": name}),
            base=as_yaml({"base": self.base}),
            python=_COMPILED if self.compiles else _UNCOMPILED,
            layers=as_yaml({"layers": layers}),
        )


def _free(name: str, taken: Collection[str]) -> str:
    return next(n for n in (name, *(f"{name}-{i}" for i in range(2, _MOST * 10))) if n not in taken)


_HEADER = f"# yaml-language-server: $schema=../{SCHEMAS}/{{schema}}.schema.json\n"

_LAYERS = """\
# What images can be made of: a name, and where it comes from. Recipes use the names.
# `layerbuild add` writes here whatever you paste: the page of a model, a download link, a path.
# The catalog that comes with layerbuild has more: sd15, sdxl-base, vae-ft-mse-840000, clip-l14 ...
"""

_EXAMPLE = """\
# my-lora:
#   kind: model
#   type: lora                              # decides the directory, and the key in the hash cache
#   source: file:models/my-lora.safetensors # or hf://ORG/NAME/FILE, civitai://VERSION, https://..., s3://...
"""

_MATRIX = "# One image for each value; all of them share the other layers.\n"

_RECIPE = """\
# An image, or several. Change it, then: layerbuild lock, layerbuild plan, layerbuild push DEST
{matrix}
{name}
# What lies below everything. The webui itself comes from the layer `webui-...`; its Python packages
# (requirements_versions.txt) and `runpod` do not: before the image runs, name a base of your own that
# has them. If your base holds the webui too, remove the layer `webui-...`, and say instead:
#   webui: {{root: /stable-diffusion-webui, provided_by: base, version: "1.10.1"}}
{base}
{python}
# From layers/*.yaml and the catalog.
{layers}
config:
  # Of the layer runpod-worker: it starts the webui's API, and a handler that feeds it jobs.
  cmd: [/opt/worker/start.sh]
"""

PYTHON = "3.10"
"""Of the default base."""

_COMPILED = f"""\
# That base's Python: the webui's sources are compiled for it once, and not at each start.
python: "{PYTHON}"
"""

_UNCOMPILED = f"""\
# That base's Python: the webui's sources are compiled for it once, and not at each start, if the machine
# that builds has one, too. This one has none: `uv python install {PYTHON}`, or your distribution, brings it.
# python: "{PYTHON}"
"""

_IGNORED = """\
# Model files are pinned by lockfile.yaml, which belongs into git; the files themselves do not.
*.safetensors
*.ckpt
*.pt
*.pth

# What `layerbuild push oci:out` writes.
/out/
"""
