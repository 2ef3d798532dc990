"""Python layers as an image uses them: what their declarations leave to the image is filled in. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from layerbuild.declared import LayerUse
from layerbuild.errors import Problem
from layerbuild.kinds.requests import DEFAULT_PLATFORM, PYTHON_PLATFORMS, mirrors_of
from layerbuild.schema import PythonLayer, Recipe, RequirementsFile, WebuiLayer

WEBUI = "webui"
_COMMIT = 40


class PythonUses:
    """Fills python layers in. Images in which a layer means the same share the result."""

    def __init__(self) -> None:
        self._made: dict[tuple[int, str, str | None, str | None], tuple[LayerUse, LayerUse]] = {}

    def settled(self, uses: Iterable[LayerUse], recipe: Recipe, problems: list[Problem]) -> list[LayerUse]:
        """`uses` of one image of `recipe`. Problems are added to `problems`."""
        uses = list(uses)
        webui = next((use for use in uses if isinstance(use.layer, WebuiLayer)), None)
        return [
            self._settled(use, use.layer, recipe, webui, problems) if isinstance(use.layer, PythonLayer) else use
            for use in uses
        ]

    def _settled(
        self, use: LayerUse, layer: PythonLayer, recipe: Recipe, webui: LayerUse | None, problems: list[Problem]
    ) -> LayerUse:
        named = layer.requirements
        follows = isinstance(named, RequirementsFile) and named.tree == WEBUI
        identity = (id(use), recipe.platform, recipe.python, webui.pin_key if webui and follows else None)
        # The use itself is kept too: its identity stands for it.
        found = self._made.get(identity)
        if found is None:
            found = self._made[identity] = (use, _filled(use, layer, recipe, webui if follows else None, problems))
        elif follows and webui is None:
            problems.append(_no_webui(use))
        return found[1]


def _filled(
    use: LayerUse, layer: PythonLayer, recipe: Recipe, webui: LayerUse | None, problems: list[Problem]
) -> LayerUse:
    platform = recipe.platform
    changes: dict[str, object] = {}
    variables = {}
    if layer.python is None:
        if recipe.python is None:
            hint = "write 'python: \"3.10\"' into the recipe, or into the layer"
            problems.append(use.document.problem(use.path, "nobody says which Python runs the packages", hint))
            return use
        changes["python"] = variables["python"] = recipe.python
    elif recipe.python is not None and _minor(recipe.python) != _minor(layer.python):
        message = f"the packages are for Python {layer.python}, and the recipe says {recipe.python}"
        problems.append(use.document.problem((*use.path, "python"), message, "leave it out here"))
    if layer.platform is None:
        wanted = PYTHON_PLATFORMS.get(platform)
        if wanted is None:
            hint = "say 'platform', as uv's --python-platform names it"
            problems.append(use.document.problem(use.path, f"no wheels are known to be for {platform}", hint))
        changes["platform"] = wanted
        if wanted != DEFAULT_PLATFORM:
            variables["platform"] = platform
    named = layer.requirements
    if isinstance(named, RequirementsFile) and named.tree == WEBUI:
        if webui is None or not isinstance(webui.layer, WebuiLayer):
            problems.append(_no_webui(use))
            return use
        source = webui.layer.source
        revision = source.rpartition("@")[2]
        if len(revision) != _COMMIT or not set(revision.lower()) <= set("0123456789abcdef"):
            hint = f"write the commit instead of {revision[:80]!r}"
            message = f"requirements are taken from {webui.name}, which is at a branch or a tag"
            problems.append(webui.document.problem((*webui.path, "source"), message, hint))
        mirrors = [*named.mirrors, *mirrors_of(webui.layer, source)]
        changes["requirements"] = named.model_copy(update={"tree": source, "mirrors": mirrors})
        variables[WEBUI] = webui.pin_key
    if not changes:
        return use
    return replace(use, pin_key=_with(use.pin_key, variables), layer=layer.model_copy(update=changes))


def _minor(version: str) -> list[str]:
    return version.split(".")[:2]


def _no_webui(use: LayerUse) -> Problem:
    hint = "add one to the recipe, or write 'from: git+https://HOST/REPOSITORY@COMMIT'"
    return use.document.problem((*use.path, "requirements"), "the image has no webui layer to take them from", hint)


def _with(pin_key: str, variables: dict[str, str]) -> str:
    """A pin key that also says what these are."""
    if not variables:
        return pin_key
    name, _, rest = pin_key.partition("[")
    said = [*([rest.removesuffix("]")] if rest else []), *(f"{n}={variables[n]}" for n in sorted(variables))]
    return f"{name}[{','.join(said)}]"
