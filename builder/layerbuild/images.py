"""What a project means: recipes multiplied by their matrix, layers rendered for each image.

One `ImageDeclaration` for every image, checked; nothing is fetched and no lock is read.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from layerbuild.annotations import fault
from layerbuild.declared import ImageDeclaration, IndexDeclaration, LayerUse
from layerbuild.errors import Problem, ProjectError
from layerbuild.model import Target
from layerbuild.pinkeys import pin_key
from layerbuild.project import LayerSource, Project, check, check_layer
from layerbuild.pythonuse import PythonUses
from layerbuild.render import has_markup, render_data, render_file, strings
from layerbuild.schema import FilesLayer, FileSpec, ModelLayer, PythonLayer, Recipe, WebuiLayer
from layerbuild.similar import did_you_mean
from layerbuild.targets import (
    Report,
    builtins_of,
    bytecode_of,
    check_provider,
    flavor_of,
    platform_variables,
    target_of,
    version_of,
)
from layerbuild.webui.modeltypes import MODEL_TYPES, is_hidden
from layerbuild.yamlfile import Document, KeyPath

__all__ = ["ImageDeclaration", "IndexDeclaration", "LayerUse", "expand"]

_IMAGE_NAME = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
"""A path component of a repository name (OCI distribution-spec 1.1, "Pulling manifests")."""

_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")


def expand(project: Project) -> tuple[ImageDeclaration, ...]:
    """Every image of the project, in the order of recipe files, matrix values and platforms.

    Raises:
        ProjectError: everything that is wrong, together.
    """
    expander = _Expander(project)
    groups = [group for document in project.recipes for group in expander.recipe(document)]
    expander.refuse_twins([group[0] for group in groups])
    expander.refuse_shared_tags([group[0] for group in groups])
    if expander.problems:
        raise ProjectError(list(dict.fromkeys(expander.problems)))
    return tuple(image for group in groups for image in group)


_VARIABLES = frozenset({"matrix", "vars"})
"""Keys of a recipe that no image has: a matrix of a thousand values is not copied into a thousand images."""

_PLATFORM = frozenset({"platform", "platforms"})
"""Keys of a recipe that know its own variables only; from them follow those of `project.PLATFORM_VARIABLES`."""

_FIRST = frozenset({"name", "base", "webui", "hf_home", "owner"})
"""Keys of a recipe that know no more than these; from them follow the others of `project.BUILTINS`."""

_ONE_FOR_ALL = ("name", "repository", "tags")
"""Keys of a recipe by which its platforms are found together."""


class _Expander:
    def __init__(self, project: Project) -> None:
        self.project = project
        self.problems: list[Problem] = []
        self._cache: dict[tuple[str, str], LayerUse | None] = {}
        self._python = PythonUses()

    def recipe(self, document: Document) -> Iterator[tuple[ImageDeclaration, ...]]:
        """The images of each choice of the matrix, one for each platform."""
        raw: dict[str, Any] = document.data
        matrix = raw.get("matrix") or {}
        markup = frozenset(k for k, v in raw.items() if any(map(has_markup, strings(v))))
        for values in itertools.product(*matrix.values()):
            variables = {**(raw.get("vars") or {}), **dict(zip(matrix, values, strict=True))}
            platforms = self._platforms(document, raw, variables)
            images = [self._image(document, raw, markup, variables, platform) for platform in platforms]
            whole = tuple(image for image in images if image is not None)
            if whole and len(whole) == len(images):
                yield self._together(whole, platforms)

    def _reporter(self, document: Document) -> Report:
        def report(path: KeyPath, message: str, hint: str | None) -> None:
            self.problems.append(document.problem(path, message, hint))

        return report

    def _platforms(self, document: Document, raw: dict[str, Any], variables: dict[str, Any]) -> Sequence[str]:
        """The platforms of a recipe; none if something is wrong with them."""
        given = {key: raw[key] for key in _PLATFORM & raw.keys()}
        before = len(self.problems)
        rendered = render_data(given, variables, self._reporter(document))
        recipe, found = check(Recipe, rendered, document, ()) if len(self.problems) == before else (None, [])
        self.problems += found
        return (recipe.platforms or [recipe.platform]) if recipe is not None else ()

    def _together(self, images: tuple[ImageDeclaration, ...], platforms: Sequence[str]) -> tuple[ImageDeclaration, ...]:
        """The images of one recipe, as those of one index if there are several."""
        first, *others = images
        if not others:
            return images
        report = self._reporter(first.document)
        for key in _ONE_FOR_ALL:
            said = [image.name if key == "name" else getattr(image.recipe, key) for image in images]
            if any(value != said[0] for value in said):
                hint = "leave platform, os and architecture out of it: one index stands for all platforms"
                report((key,), f"{key!r} is not the same on every platform", hint)
        annotations = {
            key: text
            for key, text in first.recipe.annotations.items()
            if all(image.recipe.annotations.get(key) == text for image in others)
        }
        index = IndexDeclaration(name=first.name, platforms=tuple(platforms), annotations=annotations)
        return tuple(replace(image, name=name, index=index) for image, name in zip(images, index.images, strict=True))

    def _image(
        self,
        document: Document,
        raw: dict[str, Any],
        markup: frozenset[str],
        variables: dict[str, Any],
        platform: str,
    ) -> ImageDeclaration | None:
        before = len(self.problems)
        fallback = Path(document.file).stem
        report = self._reporter(document)
        variables = {**variables, **platform_variables(platform)}

        def render(keys: Iterable[str], context: Mapping[str, Any]) -> dict[str, Any]:
            return {k: render_data(v, context, report, (k,)) if k in markup else v for k, v in raw.items() if k in keys}

        # Where things lie comes first: every other string may use it.
        rendered = {**render(_FIRST, variables), "platform": platform}
        place, found = check(Recipe, rendered, document, ()) if len(self.problems) == before else (None, [])
        self.problems += found
        settled = place or Recipe()
        name, target = settled.name or fallback, target_of(settled)
        context = {**variables, **builtins_of(name, settled, target)}
        rendered |= render(raw.keys() - _PLATFORM - _FIRST - _VARIABLES, context)
        recipe, found = check(Recipe, rendered, document, ()) if len(self.problems) == before else (None, [])
        self.problems += found
        if recipe is None:
            return None
        self._check_texts(name, recipe, report)
        uses = self._python.settled(self._uses(recipe, document, context), recipe, self.problems)
        target = self._finish_target(recipe, target, uses, report)
        if len(self.problems) > before:
            return None
        return ImageDeclaration(name=name, recipe=recipe, document=document, uses=tuple(uses), target=target)

    def _check_texts(self, name: str, recipe: Recipe, report: Report) -> None:
        hint = "lower-case letters, digits, and single '.', '_' or '-' between"
        if not _IMAGE_NAME.fullmatch(name):
            report(("name",), f"{name!r} is no image name", hint)
        if recipe.repository is not None and not _IMAGE_NAME.fullmatch(recipe.repository):
            report(("repository",), f"{recipe.repository!r} is no repository name", hint)
        for i, tag in enumerate(recipe.tags):
            if not _TAG.fullmatch(tag):
                report(("tags", i), f"{tag!r} is no tag", "letters, digits, '_', '.' and '-', at most 128")
        for key, value in recipe.annotations.items():
            wrong = fault(key, value)
            if wrong is not None:
                report(("annotations", key), *wrong)

    def _uses(self, recipe: Recipe, document: Document, context: Mapping[str, Any]) -> list[LayerUse]:
        uses = []
        seen: set[str] = set()
        for i, name in enumerate(recipe.layers):
            if not name:
                continue
            if name in seen:
                message, hint = f"the layer {name!r} is listed twice", "remove one of them"
                self.problems.append(document.problem(("layers", i), message, hint))
                continue
            seen.add(name)
            source = self.project.layers.get(name)
            if source is None:
                hint = f"define it in layers/*.yaml{did_you_mean(name, self.project.layers)}"
                self.problems.append(document.problem(("layers", i), f"no layer is called {name!r}", hint))
                continue
            use = self._use(source, context)
            if use is not None:
                uses.append(use)
        return uses

    def _use(self, source: LayerSource, context: Mapping[str, Any]) -> LayerUse | None:
        relevant = sorted(context if source.has_template else source.variables & context.keys())
        identity = (source.name, repr([(name, context[name]) for name in relevant]))
        if identity not in self._cache:
            self._cache[identity] = self._render_layer(source, context)
        return self._cache[identity]

    def _render_layer(self, source: LayerSource, context: Mapping[str, Any]) -> LayerUse | None:
        document, path = source.document, (source.name,)
        before = len(self.problems)

        def report(where: KeyPath, message: str, hint: str | None) -> None:
            self.problems.append(document.problem((*path, *where), message, hint))

        scope = {**(source.raw.get("vars") or {}), **context}
        rendered = render_data(source.raw, scope, report)
        layer, found = check_layer(rendered, document, path) if len(self.problems) == before else (None, [])
        self.problems += found
        if isinstance(layer, FilesLayer):
            layer = self._with_templates(layer, source, scope)
        if isinstance(layer, ModelLayer):
            if layer.directory is not None and MODEL_TYPES[layer.type].hashed and not is_hidden(layer.directory):
                hint = "for a sub-folder write 'filename: FOLDER/NAME'"
                report(("directory",), f"the webui looks for a {layer.type} in its own directory only", hint)
            for key, name in (("filename", layer.filename), ("directory", layer.directory)):
                if name is not None and is_hidden(name):
                    report((key,), f"the webui lists nothing below {name!r}: a part begins with a dot", "rename it")
        if layer is None or len(self.problems) > before:
            return None
        key = pin_key(source.name, source.raw, context)
        return LayerUse(name=source.name, pin_key=key, layer=layer, document=document, path=path)

    def _with_templates(self, layer: FilesLayer, source: LayerSource, scope: Mapping[str, Any]) -> FilesLayer:
        files: dict[str, FileSpec | str] = {}
        for place, spec in layer.files.items():
            files[place] = spec
            if isinstance(spec, FileSpec) and spec.template is not None:
                # Where the path itself was rendered, the nearest known line is that of `files`.
                path = (source.name, "files", place, "template")
                text = render_file(source.directory, spec.template, scope, source.document, path)
                if isinstance(text, Problem):
                    self.problems.append(text)
                else:
                    files[place] = spec.model_copy(update={"template": None, "content": text})
        return layer.model_copy(update={"files": files})

    def _finish_target(self, recipe: Recipe, target: Target, uses: list[LayerUse], report: Report) -> Target:
        """The target with the webui's release and flavor; says what does not fit together."""
        webuis = {use.name: use.layer for use in uses if isinstance(use.layer, WebuiLayer)}
        models = [use.name for use in uses if isinstance(use.layer, ModelLayer)]
        check_provider(recipe, list(webuis), models, report)
        layer = next(iter(webuis.values()), None)
        packages = [use.layer for use in uses if isinstance(use.layer, PythonLayer)]
        return replace(
            target,
            version=version_of(recipe, layer, report),
            flavor=flavor_of(recipe, layer, report),
            bytecode=bytecode_of(recipe, packages, report),
        )

    def refuse_twins(self, images: Sequence[ImageDeclaration]) -> None:
        """Two images of one name would overwrite each other."""
        seen: dict[str, ImageDeclaration] = {}
        for image in images:
            other = seen.setdefault(image.title, image)
            if other is not image:
                hint = "let 'name' use every variable of the matrix, e.g. name: 'a1111-{{ checkpoint }}'"
                message = f"two images are called {image.title!r}" + (
                    f" (the other is in {other.document.file})" if other.document is not image.document else ""
                )
                self.problems.append(image.document.problem(("name",), message, hint))

    def refuse_shared_tags(self, images: Sequence[ImageDeclaration]) -> None:
        """Two images under one tag of one repository would overwrite each other there. Without tags they cannot:
        an image is tagged with its own digest then."""
        seen: dict[tuple[str, str], ImageDeclaration] = {}
        for image in images:
            for i, tag in enumerate(image.recipe.tags):
                other = seen.setdefault((image.repository, tag), image)
                if other.title != image.title:
                    hint = "let 'tags' or 'repository' use every variable of the matrix, or leave 'tags' out"
                    message = f"images {other.title} and {image.title} would both be {image.repository}:{tag}"
                    self.problems.append(image.document.problem(("tags", i), message, hint))
