"""From what a Dockerfile leaves in its last stage to a recipe and layers. Pure, but for what it is told of files."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from layerbuild.adding.declaration import Declaration, as_yaml, has_markup_inside, layer_name
from layerbuild.adding.identify import webui_flavor
from layerbuild.adding.pasted import MODEL_SUFFIXES
from layerbuild.adding.plan import SCHEMAS
from layerbuild.addresses import redact
from layerbuild.dockerfile.stage import Clone, Download, Local, Remark, Stage
from layerbuild.render import has_markup
from layerbuild.webui.modeltypes import MODEL_TYPES, type_of_place
from layerbuild.webui.releases import COMMITS, PREFIXES

_WEBUI = "https://github.com/AUTOMATIC1111/stable-diffusion-webui"
_GONE = {"https://github.com/Stability-AI/stablediffusion": ["https://github.com/w-e-w/stablediffusion"]}
"""A repository that every release names and that is gone, and the fork that the webui itself has changed to."""

_ROOT = "/stable-diffusion-webui"
_EXECUTABLES = (".sh", ".bash")


@dataclass(frozen=True, kw_only=True)
class Listing:
    """A file of the build context: its path in it, and whether it may be executed."""

    path: str
    executable: bool


@dataclass
class Translation:
    """A recipe and its layers.

    Args:
        stage: what the image holds.
        name: of the recipe.
        context: where the build context lies, below the project; empty: the project itself.
        files: the files at or below a path of the context; None where nothing is there.
        type_of: the type of a model by its source, where its place does not tell.
        catalog: webui layers of the catalog, by name: their sources.
    """

    stage: Stage
    name: str
    context: str
    files: Callable[[str], Sequence[Listing] | None]
    type_of: Callable[[str], str | None]
    catalog: Mapping[str, str]
    taken: Collection[str]
    remarks: list[Remark] = field(default_factory=list)
    layers: list[Declaration] = field(default_factory=list)
    _used: list[str] = field(default_factory=list)
    _webui: dict[str, Any] | None = None
    config: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        trees = {path: thing for path, thing in self.stage.things.items() if isinstance(thing, Clone)}
        webuis = [path for path, clone in trees.items() if webui_flavor(f"{clone.address}@HEAD")]
        root = webuis[0] if webuis else None
        self._root = root or self._guessed_root()
        if root is not None:
            self._tree(root, trees)
        self._stray(trees, root)
        self._models_and_files()
        for snapshot in self.stage.snapshots:
            values: dict[str, Any] = {"kind": "huggingface", "source": snapshot.source}
            values |= {"files": list(snapshot.files)} if snapshot.files else {}
            repository = snapshot.source.partition("://")[2].partition("@")[0]
            self._declare(layer_name(f"{posixpath.basename(repository)}.repo"), values, snapshot.line)
        self.config = self._config()

    # --- the recipe ----------------------------------------------------------------------------------------

    def layers_text(self) -> str:
        """The file in layers/."""
        head = f"# yaml-language-server: $schema=../{SCHEMAS}/layers.schema.json\n# Translated from a Dockerfile.\n\n"
        return head + "\n".join(layer.text() for layer in self.layers)

    def recipe_text(self) -> str:
        """The file in recipes/."""
        left = sorted({remark.line for remark in self.remarks if remark.verdict == "left"})
        head = f"# yaml-language-server: $schema=../{SCHEMAS}/recipe.schema.json\n# Translated from a Dockerfile"
        head += f"; lines that were not: {', '.join(map(str, left))}.\n" if left else ".\n"
        software = "# It must hold what layerbuild does not install: apt and Python packages.\n"
        parts = [
            f"{head}\n{as_yaml({'name': self.name})}\n{software}{as_yaml({'base': self.stage.image})}",
            *([as_yaml({"platform": self.stage.platform})] if self.stage.platform else []),
            *([as_yaml({"webui": self._webui})] if self._webui else []),
            as_yaml({"layers": self._used}) if self._used else "layers: []\n",
            *([as_yaml({"config": self.config})] if self.config else []),
        ]
        return "\n".join(parts)

    def _config(self) -> dict[str, Any]:
        stage = self.stage
        found: dict[str, Any] = {
            "entrypoint": stage.entrypoint,
            "cmd": stage.cmd,
            "env": stage.env,
            "workdir": stage.workdir if stage.workdir_said else None,
            "user": stage.user,
            "labels": stage.labels,
            "ports": stage.ports,
            "volumes": stage.volumes,
            "stop_signal": stage.stop_signal,
        }
        marked = [key for key, value in found.items() if value and has_markup_inside(value)]
        for key in marked:
            self._left(
                stage.lines[-1],
                "FROM",
                f"its {key} has {{{{ or {{% in it, which a recipe would render: write it by hand",
            )
        return {key: value for key, value in found.items() if value and key not in marked}

    # --- the webui -------------------------------------------------------------------------------------------

    def _guessed_root(self) -> str | None:
        """Where the base has its webui, by the directories that models lie in."""
        for path in self.stage.things:
            found = re.match(r"(/.+?)/(?:models/[^/]+|embeddings|extensions)/", path)
            if found:
                return found[1]
        return None

    def _tree(self, root: str, trees: Mapping[str, Clone]) -> None:
        """The webui itself: the catalog's, where the Dockerfile means the same."""
        clone = trees[root]
        inside = {path[len(root) + 1 :]: tree for path, tree in trees.items() if path.startswith(f"{root}/")}
        parts = {
            where: {
                name.partition("/")[2]: _tree_source(tree)
                for name, tree in inside.items()
                if re.fullmatch(rf"{where}/[^/]+", name)
            }
            for where in ("repositories", "extensions")
        }
        flavor = webui_flavor(f"{clone.address}@HEAD") or "a1111"
        known = self._of_catalog(clone) if flavor == "a1111" else None
        said = {"root": root if root != _ROOT else None, "flavor": flavor if flavor != "a1111" else None}
        self._webui = {key: value for key, value in said.items() if value} or None
        if known is not None and not parts["extensions"]:
            self._used.append(known)
            self._remark(clone.line, f"the catalog's {known}, with its checkouts")
            return
        source = self.catalog[known] if known else _tree_source(clone)
        values: dict[str, Any] = {"kind": "webui", "source": source, "flavor": None if flavor == "a1111" else flavor}
        values["repositories"] = {"*": "auto", **parts["repositories"]} if flavor != "sdnext" else parts["repositories"]
        values["extensions"] = parts["extensions"]
        values["mirrors"] = _GONE if flavor != "sdnext" else None
        self._declare("webui", {key: value for key, value in values.items() if value}, clone.line)
        for name, tree in inside.items():
            if re.fullmatch(r"extensions/[^/]+", name):
                self._remark(tree.line, f"an extension of the layer webui: {name.partition('/')[2]}")

    def _of_catalog(self, clone: Clone) -> str | None:
        """The catalog's layer for a release, by its tag or the beginning of its commit."""
        if not _is_official(clone) or clone.revision is None:
            return None
        name = f"webui-{_release(clone.revision)}"
        return name if name in self.catalog else None

    def _stray(self, trees: Mapping[str, Clone], root: str | None) -> None:
        """Clones that are neither the webui nor in it."""
        for path, clone in trees.items():
            if path == root or (root is not None and re.match(rf"{re.escape(root)}/(repositories|extensions)/", path)):
                continue
            hint = (
                "an extension needs a webui layer"
                if "/extensions/" in path
                else "only webuis and extensions are layers"
            )
            text = f"{hint}: put it into the base"
            self.remarks.append(
                Remark(line=clone.line, what=f"git clone {redact(clone.address)}", verdict="left", text=text)
            )

    # --- models and files --------------------------------------------------------------------------------------

    def _models_and_files(self) -> None:
        files: dict[str, Any] = {}
        lines: list[int] = []
        for path, thing in self._single():
            if has_markup(path) or has_markup(_source(thing, self.context)):
                self.remarks.append(
                    Remark(line=thing.line, what=path[:60], verdict="left", text="its name has {{ in it")
                )
            elif posixpath.splitext(path)[1].lower() in MODEL_SUFFIXES and self._model(path, thing):
                continue
            else:
                files[path] = self._file(thing)
                lines.append(thing.line)
                self._remark(thing.line, f"{path}: the layer {self.name}-files")
        if any(layer.values["kind"] == "model" for layer in self.layers):
            self._used.insert(1 if self._used and self._used[0].startswith("webui") else 0, "clip-l14")
            if self._used[0] == "clip-l14":
                self._webui = {"root": self._root or _ROOT, "provided_by": "base", **(self._webui or {})}
                text = "say which release its webui is, as webui.version: the hash cache depends on it"
                self._left(self.stage.lines[-1], "FROM", text)
        if files:
            self._declare(f"{self.name}-files", {"kind": "files", "files": files}, min(lines))

    def _single(self) -> Iterator[tuple[str, Download | Local]]:
        """Files by their paths; a directory of the context as the files in it."""
        for path, thing in self.stage.things.items():
            if isinstance(thing, Download):
                yield path, thing
            elif isinstance(thing, Local):
                yield from self._listed(path, thing)

    def _listed(self, path: str, local: Local) -> Iterator[tuple[str, Local]]:
        found = self.files(local.path)
        if not found:
            text = f"{local.path} is not there, or has too many files: declare a files layer, or put it into the base"
            self.remarks.append(Remark(line=local.line, what=f"COPY {local.path}"[:60], verdict="left", text=text))
            return
        for item in found:
            below = item.path.removeprefix(local.path).lstrip("/") if local.path != "." else item.path
            # Of a directory, docker takes what lies in it.
            place = posixpath.join(local.target, below) if below else path
            if not re.search(r"(^|/)cache\w*\.py$", item.path):
                run = item.executable or item.path.endswith(_EXECUTABLES)
                mode = local.mode or self.stage.modes.get(place) or ("0755" if run else None)
                yield place, replace(local, path=item.path, mode=mode)

    def _model(self, path: str, thing: Download | Local) -> bool:
        """Declares a model, if the webui would list it: where it lies tells, else `--ckpt`, else its own header."""
        source = _source(thing, self.context)
        kind = type_of_place(path)
        started = path == self.stage.checkpoint
        if kind is None:
            kind = "checkpoint" if started else self.type_of(source)
        if kind is None:
            return False
        folder = MODEL_TYPES[kind].directory or "embeddings"
        _, found, below = path.rpartition(f"/{folder}/")
        filename = below if found else posixpath.basename(path)
        values = {"kind": "model", "type": kind, "source": source, "sha256": getattr(thing, "sha256", None)}
        values["filename"] = filename if filename != _basename(source) else None
        name = self._declare(layer_name(filename), {k: v for k, v in values.items() if v is not None}, thing.line)
        if started and not found:
            self._webui = {**(self._webui or {"root": self._root or _ROOT}), "ckpt": path}
        self._remark(thing.line, f"{path}: the layer {name}, type {kind}")
        return True

    def _file(self, thing: Download | Local) -> Any:
        source = _source(thing, self.context)
        more = {"sha256": getattr(thing, "sha256", None), "mode": getattr(thing, "mode", None)}
        return {"source": source, **{key: value for key, value in more.items() if value is not None}}

    # --- declarations ---------------------------------------------------------------------------------------------

    def _declare(self, name: str, values: Mapping[str, Any], line: int) -> str:
        """Declares a layer under a name that is free, and uses it."""
        taken = {*self.taken, *(layer.name for layer in self.layers)}
        name = next(n for n in (name, *(f"{name}-{i}" for i in range(2, 10_000))) if n not in taken)
        self.layers.append(Declaration(name=name, values=values, comments=(f"line {line}",)))
        self._used.append(name)
        return name

    def _left(self, line: int, what: str, text: str) -> None:
        self.remarks.append(Remark(line=line, what=what, verdict="left", text=text))

    def _remark(self, line: int, text: str) -> None:
        self.remarks.append(Remark(line=line, what="", verdict="translated", text=text))


def _source(thing: Download | Local, context: str) -> str:
    return (
        thing.source
        if isinstance(thing, Download)
        else f"file:{posixpath.normpath(posixpath.join(context, thing.path))}"
    )


def _basename(source: str) -> str:
    return posixpath.basename(source.partition("?")[0].partition(":")[2])


def _is_official(clone: Clone) -> bool:
    """Whether its tags are those of the webui: a fork's may be others."""
    return clone.address.rstrip("/").removesuffix(".git").lower() == _WEBUI.lower()


def _tree_source(clone: Clone) -> str:
    """A clone as a source, at the commit of a release that is known by its tag or by the beginning of its commit."""
    revision = clone.revision or "HEAD"
    if _is_official(clone) and (release := _release(revision)):
        revision = COMMITS.get(release, f"v{release}")
    return f"git+{clone.address}@{revision}"


def _release(revision: str) -> str | None:
    known = {**PREFIXES, **COMMITS}
    revision = revision.lower()
    by_commit = (v for v, commit in known.items() if len(revision) >= 7 and commit.startswith(revision[:8]))
    release = revision.removeprefix("v")
    return release if release in known else next(by_commit, None)
