"""Which files of a project an addition changes, and how: decided before anything is written.

What is there already is said, and never replaced.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from layerbuild import yamlfile
from layerbuild.adding import files, insertion
from layerbuild.adding.declaration import Declaration, as_yaml
from layerbuild.adding.identify import Extension
from layerbuild.errors import SourceError, UsageError
from layerbuild.project import LayerSource, Project, check_layer
from layerbuild.sources import huggingface
from layerbuild.yamlfile import Document

SCHEMAS = ".layerbuild"
"""Directory of a project where its editors find the schemas."""

_FILES = {"model": "models.yaml", "huggingface": "huggingface.yaml", "webui": "webui.yaml"}
_WEBUI = "webui-1.10.1"
"""The catalog's webui that an extension is given where no recipe names another one."""


@dataclass(frozen=True, kw_only=True)
class Added:
    """What became of one source.

    Attributes:
        name: of the layer; of an extension, `LAYER: DIRECTORY`.
        file: where it stands, relative to the project, or where it already stood.
        new: whether it was not there before.
    """

    name: str
    file: str
    new: bool
    about: str


@dataclass
class Edits:
    """Texts of files as they will be. Nothing is written before `write`."""

    project: Project
    texts: dict[Path, str] = field(default_factory=dict)
    names: dict[str, Declaration] = field(default_factory=dict)
    _new: set[Path] = field(default_factory=set)

    def add(self, declaration: Declaration) -> Added:
        """Declares a layer, unless the same source is declared already.

        Raises:
            UsageError: there is another layer of that name, or it would be no declaration.
        """
        source = declaration.source
        twin = next((d for d in self.names.values() if same_source(d.source, source)), None)
        if twin is not None:
            return Added(name=twin.name, file="", new=False, about="given twice")
        for layer in self.project.layers.values():
            if _declares(layer, declaration):
                return Added(name=layer.name, file=_place(layer), new=False, about="declared already")
        self._refuse_taken(declaration.name)
        _refuse_wrong(declaration.name, declaration.values)
        file = f"layers/{_FILES[declaration.values['kind']]}"
        file = self._insert(file, declaration.name, declaration)
        self.names[declaration.name] = declaration
        return Added(name=declaration.name, file=file, new=True, about=_about(declaration))

    def extend(self, extension: Extension, recipe: str | None) -> Added:
        """Adds an extension to the webui layer that `recipe` uses, else to the project's only one, else to a copy of
        the catalog's; or declares a webui.

        Raises:
            UsageError: several layers could be meant, another extension has that directory, or it is no name of one.
        """
        if extension.flavor is not None:
            return self.add(_webui(extension))
        webui = self._webui_of(recipe)
        extensions = webui.raw.get("extensions") or {}
        before = extensions.get(extension.directory)
        title = f"{webui.name}: {extension.directory}"
        twin = next((d for d, s in extensions.items() if same_source(str(s), extension.source)), None)
        if twin is not None:
            return Added(name=f"{webui.name}: {twin}", file=_place(webui), new=False, about="declared already")
        if before is not None:
            hint = "give --name another directory, or change the declaration"
            raise UsageError(f"{_place(webui)} already has an extension {extension.directory}", hint=hint)
        _refuse_wrong(webui.name, {**webui.raw, "extensions": {**extensions, extension.directory: extension.source}})
        if webui.document.file.startswith("catalog/"):
            file = self._copy(webui, extension)
        else:
            file = webui.document.file
            path = self.project.root / file
            entries = {extension.directory: extension.source}
            changed = insertion.with_entries(self._text(path, file), [webui.name, "extensions"], entries)
            if changed is None:
                hint = f"add it by hand, under {webui.name}: {as_yaml({'extensions': entries})!r}"
                raise UsageError(f"there is no place for an extension in {file}", hint=hint)
            self.texts[path] = changed
        return Added(name=title, file=file, new=True, about=f"extension at {extension.source.rpartition('@')[2][:12]}")

    def use(self, name: str, recipe: str) -> bool:
        """Adds a layer to a recipe's `layers`; whether it was not there yet.

        Raises:
            UsageError: there is no such recipe, or no place for it there.
        """
        document = self.recipe(recipe)
        path = self.project.root / document.file
        text = self._text(path, document.file)
        if name in _names(yamlfile.parse(text, document.file).data.get("layers")):
            return False
        changed = insertion.with_item(text, "layers", name)
        if changed is None:
            raise UsageError(f"there is no place for a layer in {document.file}", hint=f"write it by hand: - {name}")
        self.texts[path] = changed
        return True

    def recipe(self, name: str) -> Document:
        """A recipe by its file or its name.

        Raises:
            UsageError: there is none.
        """
        for document in self.project.recipes:
            if name in (document.file, Path(document.file).name, Path(document.file).stem, document.data.get("name")):
                return document
        known = ", ".join(Path(document.file).stem for document in self.project.recipes)
        raise UsageError(f"there is no recipe {name!r}", hint=f"one of: {known}" if known else "write one first")

    def write(self) -> None:
        """Writes what has changed, each file as a whole.

        Raises:
            LayerbuildError: one cannot be written.
        """
        for path, text in self.texts.items():
            files.write(path, text, new=path in self._new)

    def _refuse_taken(self, name: str) -> None:
        taken = self.project.layers.get(name)
        where = _place(taken) if taken else "this command" if name in self.names else None
        if where is not None:
            raise UsageError(
                f"there is already a layer {name!r}, from another source, in {where}",
                hint="choose another name with --name; to replace it, edit or remove that declaration",
            )

    def _insert(self, file: str, name: str, declaration: Declaration) -> str:
        """Puts a declaration at the end of a file, else into one of its own. Gives the file."""
        block, entries = declaration.text(), {name: dict(declaration.values)}
        for shown in (file, f"layers/{name}.yaml"):
            path = self.project.root / shown
            there = path in self.texts or path.exists()
            text = self._text(path, shown) if there else _header(self.project.root)
            changed = insertion.with_entries(text, [], entries, block)
            if changed is not None:
                self.texts[path] = changed
                if not there:
                    self._new.add(path)
                return shown
        raise UsageError(f"there is no place for a declaration in {file}", hint=f"write it by hand:\n{block}")

    def _text(self, path: Path, shown: str) -> str:
        return self.texts[path] if path in self.texts else files.read(path, shown)

    def _webui_of(self, recipe: str | None) -> LayerSource:
        webuis = {name: layer for name, layer in self.project.layers.items() if layer.raw.get("kind") == "webui"}
        own = {name: layer for name, layer in webuis.items() if not layer.document.file.startswith("catalog/")}
        documents = [self.recipe(recipe)] if recipe is not None else list(self.project.recipes)
        used = {n: webuis[n] for document in documents for n in _layers(document) if n in webuis}
        found = used if recipe is not None or len(own) != 1 else own
        if len(found) > 1:
            raise UsageError(
                f"the extension could go to several webuis: {', '.join(sorted(found))}",
                hint="say which recipe it is for, with --to RECIPE",
            )
        if found:
            return next(iter(found.values()))
        if recipe is not None or _WEBUI not in webuis:
            what = f"the recipe {recipe}" if recipe is not None else "the project"
            hint = "add one first: layerbuild add https://github.com/AUTOMATIC1111/stable-diffusion-webui"
            raise UsageError(f"{what} has no webui layer that could have an extension", hint=hint)
        return webuis[_WEBUI]

    def _copy(self, webui: LayerSource, extension: Extension) -> str:
        """A layer of the catalog as one of the project's own, with an extension."""
        values = {**webui.raw, "extensions": {extension.directory: extension.source}}
        comments = ("the catalog's, with extensions: this one takes its place",)
        return self._insert(
            "layers/webui.yaml", webui.name, Declaration(name=webui.name, values=values, comments=comments)
        )


def same_source(one: str, other: str) -> bool:
    """Whether two sources mean the same file or tree, whatever the revision."""
    return _plain(one) == _plain(other)


def _plain(source: str) -> str:
    if source.startswith("hf://"):
        try:
            address = huggingface.parse(source)
        except SourceError:
            return source
        return f"hf://{address.repository.path}//{address.path or ''}"
    if source.startswith("git+"):
        return source.rpartition("@")[0].removesuffix(".git").lower()
    return re.sub(r"^file:(\./)+", "file:", source)


def _declares(layer: LayerSource, declaration: Declaration) -> bool:
    raw, values = layer.raw, declaration.values
    if not isinstance(raw, dict) or raw.get("kind") != values["kind"]:
        return False
    if raw.get("kind") == "webui" and layer.document.file.startswith("catalog/"):
        return bool(raw.get("source") == values["source"])
    same_bytes = values.get("sha256") is not None and raw.get("sha256") == values.get("sha256")
    return same_bytes or same_source(str(raw.get("source")), str(values["source"]))


def _refuse_wrong(name: str, values: Mapping[str, Any]) -> None:
    """Refuses what `lock` would refuse: a name or a type that was asked for may be none."""
    document = yamlfile.parse(as_yaml({name: dict(values)}), "layers")
    for problem in check_layer(document.data[name], document, (name,), before_rendering=True)[1]:
        hint = problem.hint or "say it in another way: --name, --type, --filename"
        raise UsageError(f"{name!r} cannot be declared: {problem.message}", hint=hint)


def _webui(extension: Extension) -> Declaration:
    values: dict[str, Any] = {"kind": "webui", "source": extension.source}
    if extension.flavor != "a1111":
        values["flavor"] = extension.flavor
    if extension.flavor != "sdnext":
        values["repositories"] = "auto"
        # That repository is gone; its commits are in this fork, to which the webui itself has changed.
        values["mirrors"] = {
            "https://github.com/Stability-AI/stablediffusion": ["https://github.com/w-e-w/stablediffusion"]
        }
    comments = ("repositories: auto takes the checkouts from the commit's own launch script",)
    return Declaration(name=extension.directory.lower(), values=values, comments=comments)


def _header(root: Path) -> str:
    schema = root / SCHEMAS / "layers.schema.json"
    return f"# yaml-language-server: $schema=../{SCHEMAS}/{schema.name}\n" if schema.is_file() else ""


def _layers(document: Document) -> Sequence[str]:
    return list(_names(document.data.get("layers")))


def _names(value: Any) -> Iterator[str]:
    yield from (item for item in value if isinstance(item, str)) if isinstance(value, list) else ()


def _place(layer: LayerSource) -> str:
    return f"{layer.document.file}:{layer.document.line((layer.name,))}"


def _about(declaration: Declaration) -> str:
    values = declaration.values
    return str(values.get("type") or values["kind"])
