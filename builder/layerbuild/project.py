"""Finds and loads `layers/` and `recipes/`. What they mean together is `images.py`'s affair."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from layerbuild import yamlfile
from layerbuild.errors import Problem, ProjectError, UsageError
from layerbuild.fields import MEANINGS
from layerbuild.render import has_markup, references
from layerbuild.schema import LAYER_KINDS, Layer, Recipe
from layerbuild.similar import did_you_mean
from layerbuild.yamlfile import Document, KeyPath

LOCKFILE = "lockfile.yaml"


@dataclass(frozen=True, kw_only=True)
class LayerSource:
    """A layer as written, not yet rendered. `directory` is where its templates lie."""

    name: str
    document: Document
    directory: Path

    @property
    def raw(self) -> Any:
        """The mapping under the layer's name."""
        return self.document.data[self.name]

    @cached_property
    def variables(self) -> frozenset[str]:
        """Names of the variables that its strings refer to."""
        return frozenset(reference.partition(".")[0] for reference in references(self.raw))

    @cached_property
    def has_template(self) -> bool:
        """Whether a file of it is a template, which may refer to any variable."""
        files = self.raw.get("files")
        return isinstance(files, dict) and any(isinstance(f, dict) and "template" in f for f in files.values())


@dataclass(frozen=True, kw_only=True)
class Project:
    """Everything that a project declares, loaded but not rendered."""

    root: Path
    layers: Mapping[str, LayerSource]
    recipes: tuple[Document, ...]

    @property
    def lockfile(self) -> Path:
        """Where the lock is or will be."""
        return self.root / LOCKFILE


def find_root(start: Path) -> Path:
    """The project that `start` lies in: the nearest directory upwards that holds `recipes/`.

    Raises:
        UsageError: there is none.
    """
    start = start.resolve()
    for directory in (start, *start.parents):
        if (directory / "recipes").is_dir():
            return directory
    raise UsageError(
        f"no project here: neither {start} nor a directory above it holds recipes/",
        hint="change into a project, name one with --project DIR, make one with 'layerbuild init', or see one with "
        "'layerbuild demo'",
    )


def catalog_directory() -> Path:
    """The catalog that ships with layerbuild: in the wheel beside the code, else the checkout's `layers/`."""
    package = Path(__file__).resolve().parent
    shipped = package / "catalog"
    return shipped if shipped.is_dir() else package.parents[1] / "layers"


def load_catalog() -> Mapping[str, LayerSource]:
    """The layers that ship with layerbuild.

    Raises:
        ProjectError: they are damaged.
    """
    problems: list[Problem] = []
    layers = _load_layers(catalog_directory(), "catalog", problems)
    if problems:
        raise ProjectError(problems)
    return layers


def load(root: Path) -> Project:
    """Load the project at `root`.

    Raises:
        ProjectError: every problem that can be seen before rendering, together.
    """
    problems: list[Problem] = []
    layers: dict[str, LayerSource] = {}
    own = root / "layers"
    catalog = catalog_directory()
    if not (own.is_dir() and catalog.is_dir() and own.samefile(catalog)):
        layers.update(_load_layers(catalog, "catalog", problems))
    layers.update(_load_layers(own, "layers", problems))
    recipes = tuple(_load_documents(root / "recipes", "recipes", problems, needed=True))
    for document in recipes:
        problems += check(Recipe, document.data, document, (), before_rendering=True)[1]
        problems += _check_variables(document.data, document, ())
    if problems:
        raise ProjectError(problems)
    return Project(root=root, layers=layers, recipes=recipes)


def _load_documents(
    directory: Path, shown: str, problems: list[Problem], *, needed: bool = False
) -> Iterable[Document]:
    for path in sorted(directory.glob("*.y*ml")):
        if path.suffix not in (".yaml", ".yml") or path.name.startswith("."):
            continue
        try:
            document = yamlfile.load(path, f"{shown}/{path.name}")
        except ProjectError as error:
            problems += error.problems
            continue
        if isinstance(document.data, dict):
            yield document
        elif document.data is None and needed:
            problems.append(document.problem((), "this file is empty", "write a recipe into it, or delete it"))
        elif document.data is not None:
            problems.append(document.problem((), "this file must hold a mapping, 'key: value' lines"))


def _load_layers(directory: Path, shown: str, problems: list[Problem]) -> dict[str, LayerSource]:
    layers: dict[str, LayerSource] = {}
    for document in _load_documents(directory, shown, problems):
        for name in document.data:
            if name in layers:
                first = layers[name].document
                place = f"{first.file}:{first.line((name,))}"
                problems.append(
                    document.problem((name,), f"this layer is already defined in {place}", "rename one of them")
                )
                continue
            layers[name] = LayerSource(name=name, document=document, directory=directory)
            problems += check_layer(document.data[name], document, (name,), before_rendering=True)[1]
            problems += _check_variables(document.data[name], document, (name,))
    return layers


def check_layer(
    raw: Any, document: Document, path: KeyPath, *, before_rendering: bool = False
) -> tuple[Layer | None, list[Problem]]:
    """Validate one layer declaration; see `check`."""
    if not _NAME.fullmatch(str(path[-1])):
        return None, [document.problem(path, "not a layer name", "use letters, digits, '.', '_', '+' and '-'")]
    if not isinstance(raw, dict):
        return None, [document.problem(path, "a layer is a mapping", "start with 'kind: model'")]
    kind = raw.get("kind")
    if before_rendering and has_markup(kind):
        return None, []
    if not isinstance(kind, str) or kind not in LAYER_KINDS:
        known = ", ".join(LAYER_KINDS)
        message = "'kind' is missing" if kind is None else f"there is no kind {kind!r}"
        return None, [
            document.problem((*path, "kind"), message, f"one of: {known}{did_you_mean(str(kind), LAYER_KINDS)}")
        ]
    layer, problems = check(LAYER_KINDS[kind], raw, document, path, before_rendering=before_rendering)
    return layer, problems


PLATFORM_VARIABLES = ("platform", "os", "architecture")
"""Those of `BUILTINS` that every string of a recipe may use, but its `platform` and `platforms`."""

BUILTINS = ("webui", "hf_home", "image", *PLATFORM_VARIABLES)
"""Variables that every layer may use and nobody may define."""


def _check_variables(raw: Any, document: Document, path: KeyPath) -> Iterator[Problem]:
    """What is wrong with the names and values under `vars` and `matrix`."""
    sections = {s: raw[s] for s in ("vars", "matrix") if isinstance(raw, dict) and isinstance(raw.get(s), dict)}
    for section, variables in sections.items():
        for name, value in variables.items():
            here: KeyPath = (*path, section, name)
            if name in BUILTINS:
                hint = "it says what an image is for, see 'platforms'; choose another name"
                hint = hint if name in PLATFORM_VARIABLES else "choose another name"
                yield document.problem(here, f"{name!r} is layerbuild's own variable", hint)
            elif not name.isascii() or not name.isidentifier():
                yield document.problem(here, "not a variable name", "use letters, digits and '_'")
            places = (
                [here]
                if section == "vars"
                else [(*here, i) for i in range(len(value if isinstance(value, list) else ()))]
            )
            for place in places:
                if place in document.rewritten:
                    message = f"{document.rewritten[place]} is read as a number, and written out as another text"
                    yield document.problem(place, message, "put it in quotes")
            values = [value] if section == "vars" else value
            if isinstance(values, list) and any(has_markup(item) for item in values):
                yield document.problem(here, "a variable's value is plain: {{ }} is not rendered here")
            if section == "matrix" and name in sections.get("vars", {}):
                yield document.problem(here, f"{name!r} stands under 'vars' too", "remove one of them")


ModelT = TypeVar("ModelT", bound=BaseModel)


def check(
    model: type[ModelT], data: Any, document: Document, path: KeyPath, *, before_rendering: bool = False
) -> tuple[ModelT | None, list[Problem]]:
    """`data` as `model`, or every problem with it, placed in `document` below `path`.

    With `before_rendering`, what is wrong only with a string that Jinja2 will change is left for later.
    """
    try:
        return model.model_validate(data), []
    except ValidationError as error:
        details = error.errors(include_url=False)
        places = [_existing(data, detail["loc"]) for detail in details]
        found: dict[Problem, None] = {}
        for detail, place in zip(details, places, strict=True):
            if before_rendering and _will_change(detail):
                continue
            if detail["type"] in _EXPECTED:
                others = [(d["type"], p) for d, p in zip(details, places, strict=True) if p[: len(place)] == place]
                # Of a union, the member that was meant says more than those that were not.
                if any(k not in _EXPECTED or p != place for k, p in others):
                    continue
                wanted = dict.fromkeys(_EXPECTED[k] for k, _ in others)
                found[document.problem((*path, *place), *_wrong_type(list(wanted), detail["input"]))] = None
            else:
                found[document.problem((*path, *place), *_explain(model, detail))] = None
        return None, sorted(found, key=lambda problem: problem.line or 0)


_EXPECTED = {
    "string_type": "text",
    "int_type": "a number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}
"""pydantic's names for a value of the wrong type -> what it should be."""


def _will_change(detail: Any) -> bool:
    value, kind = detail["input"], detail["type"]
    if kind == "extra_forbidden" or detail["loc"][:1] in (("vars",), ("matrix",)):
        return False
    if isinstance(value, dict):
        # Only what is said of the mapping as a whole can depend on a rendered value in it.
        return kind == "value_error" and any(has_markup(item) for item in value.values())
    return has_markup(value) or any(has_markup(part) for part in detail["loc"])


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


def _wrong_type(wanted: Sequence[str], value: Any) -> tuple[str, str | None]:
    expected = f"expected {', '.join(wanted[:-1])} or {wanted[-1]}" if len(wanted) > 1 else f"expected {wanted[0]}"
    if value is None:
        return f"{expected}, found nothing", None
    if isinstance(value, bool):
        return f"{expected}, found {str(value).lower()}", "put it in quotes" if "text" in wanted else None
    if isinstance(value, int | float):
        return f"{expected}, found the number {value}", "put it in quotes" if "text" in wanted else None
    kinds: dict[type, str] = {str: "text", list: "a list", dict: "a mapping"}
    return f"{expected}, found {kinds.get(type(value), type(value).__name__)}", None


def _explain(model: type[BaseModel], detail: Any) -> tuple[str, str | None]:
    """What and way out of one pydantic error that is no wrong type."""
    loc, kind, value = detail["loc"], detail["type"], detail["input"]
    if kind == "extra_forbidden":
        known = _fields_at(model, loc[:-1])
        return "unknown key", f"known here: {', '.join(known)}{did_you_mean(str(loc[-1]), known)}" if known else None
    if kind == "missing":
        return f"{loc[-1]!r} is missing", f"add a line '{loc[-1]}: ...'"
    if kind == "value_error":
        return str(detail["ctx"]["error"]), None
    text = detail["msg"]
    text = text[0].lower() + text[1:]
    hint = None
    if kind == "string_pattern_mismatch":
        text = f"expected {MEANINGS[detail['ctx']['pattern']]}"
    elif kind == "literal_error" and isinstance(value, str):
        hint = did_you_mean(value, re.findall(r"'([^']*)'", text)).removeprefix("; ") or None
    # An address may hold a password.
    found = isinstance(value, str | int | float) and "://" not in str(value)
    return text + (f" (found {value!r})"[:120] if found else ""), hint


def _existing(data: Any, loc: tuple[int | str, ...]) -> KeyPath:
    """The part of pydantic's `loc` that is really in the data: it also names union members."""
    place: KeyPath = ()
    for part in loc:
        if isinstance(data, list):
            inside = isinstance(part, int) and part < len(data)
        else:
            inside = isinstance(data, dict) and part in data
        if inside:
            data = data[part]
            place = (*place, part)
    return place


def _fields_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """The keys that are known at `loc` below `model`."""
    current: Any = model
    for part in loc:
        fields = current.model_fields if isinstance(current, type) and issubclass(current, BaseModel) else {}
        field = fields.get(str(part))
        candidates = _models_in(field.annotation) if field else _models_in(current)
        if not candidates:
            continue
        current = next((c for c in candidates if c.__name__ == part), candidates[0])
    if isinstance(current, type) and issubclass(current, BaseModel):
        return list(current.model_fields)
    return []


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for argument in get_args(annotation) for m in _models_in(argument)]
