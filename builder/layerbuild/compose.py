"""Declarations and a lock become layers in their order. Pure: no file is opened, nothing is fetched.

What an image's layers are follows from the lock alone. Only the hash cache may have to wait: its
entries need facts that nobody knows before each model was seen once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from layerbuild.buckets import Buckets
from layerbuild.errors import Problem, ProjectError
from layerbuild.formats import first_pickle
from layerbuild.imagelayers import LayerMaker
from layerbuild.images import ImageDeclaration
from layerbuild.kinds import huggingface, outer_paths, requests
from layerbuild.layering import RANKS, ComposedLayer, Contributions
from layerbuild.lockmodel import Lock, LockedBase
from layerbuild.model import Target
from layerbuild.paths import parents
from layerbuild.schema import PythonLayer, WebuiLayer
from layerbuild.webui.hashcache import FactName, PlacedModel, cache_path
from layerbuild.webui.releases import parse_version, version_of_commit

MAX_LAYERS = 127
"""Docker's and containerd's limit on the layers of an image."""


@dataclass(frozen=True, kw_only=True)
class ComposedImage:
    """An image as its lock makes it.

    Attributes:
        layers: in order, without the base's.
        target: with the release and the base's directories that the lock knows.
        models: every model at its place.
        pending: facts that must be learnt before the hash cache can be made, by sha256.
        buckets: how the smaller model files share layers, where there are more than slots for them.
    """

    declaration: ImageDeclaration
    base: LockedBase | None
    layers: tuple[ComposedLayer, ...]
    target: Target
    models: tuple[PlacedModel, ...]
    pending: Mapping[str, frozenset[FactName]]
    buckets: Buckets | None = None

    @property
    def name(self) -> str:
        """The image's name."""
        return self.declaration.name

    @property
    def title(self) -> str:
        """What its recipe calls it, whatever the platform."""
        return self.declaration.title

    @property
    def repository(self) -> str:
        """Where it lands at a destination."""
        return self.declaration.repository


def compose(images: Sequence[ImageDeclaration], lock: Lock) -> tuple[ComposedImage, ...]:
    """Every image of `images`. `lock.layers` must hold every pin key that they use.

    `images` must be the whole project: the order of layers depends on who shares them.

    Raises:
        ProjectError: two models of an image would be taken for one another, or it has too many layers.
        SourceError: a source cannot serve the way in which a declaration uses it.
    """
    contributions = Contributions(lock)
    problems: list[Problem] = []
    drafts = [_compose_one(image, lock, contributions, problems) for image in images]
    if problems:
        raise ProjectError(list(dict.fromkeys(problems)))
    by_recipe: dict[int, Counter[str]] = {}
    for draft in drafts:
        counter = by_recipe.setdefault(id(draft.declaration.document), Counter())
        counter.update({layer.instance.key for layer in draft.layers if layer.instance})
    return tuple(_ordered(d, by_recipe[id(d.declaration.document)], lock) for d in drafts)


def _compose_one(
    image: ImageDeclaration, lock: Lock, contributions: Contributions, problems: list[Problem]
) -> ComposedImage:
    locked = lock.images.get(image.name)
    base = locked.base if locked else None
    known = tuple(d for d in base.directories.values() if d is not None) if base else ()
    target = replace(image.target, directories=known, version=image.target.version or _locked_version(image, lock))
    maker = LayerMaker(image, target, lock, contributions)
    for use in image.uses:
        maker.add(use)
    buckets = maker.share_layers(locked.buckets if locked else None)
    maker.derived()
    maker.check_paths()
    problems += maker.confused()
    if image.recipe.pickle == "refuse" and (found := first_pickle(image, lock)) is not None:
        message = f"{found[1]} is loaded by pickle, which image {image.name} refuses"
        problems.append(found[0].document.problem(found[0].path, message, "use a safetensors file, or 'pickle: scan'"))
    count = len(maker.layers)
    if count > MAX_LAYERS:
        message = f"image {image.name} has {count} layers without its base's, runtimes stop at {MAX_LAYERS}"
        problems.append(image.document.problem(("layers",), message, "split the recipe into several images"))
    return ComposedImage(
        declaration=image,
        base=base,
        layers=tuple(maker.layers),
        target=target,
        models=tuple(maker.models),
        pending=maker.pending,
        buckets=buckets,
    )


def _locked_version(image: ImageDeclaration, lock: Lock) -> tuple[int, ...] | None:
    """The webui's release by its pinned commit or changelog, where no declaration says it."""
    for use in image.uses:
        if isinstance(use.layer, WebuiLayer):
            pin = lock.layers[use.pin_key].pins[requests.WEBUI]
            text = version_of_commit(pin.revision or "") or pin.version
            return parse_version(text) if text else None
    return None


def _ordered(image: ComposedImage, shared: Mapping[str, int], lock: Lock) -> ComposedImage:
    """Layers by rank; within one, those that more of the recipe's images have come first. Weights keep
    the order in the lock, new ones come last: an appended layer moves nothing below it."""
    weights_first = image.declaration.recipe.stacking == "weights-first"
    locked = lock.images.get(image.name)
    position = {line: i for i, line in enumerate(locked.layers)} if locked else {}

    def sort_key(layer: ComposedLayer) -> tuple[int, int, int]:
        rank = -1 if weights_first and layer.rank == RANKS["weights"] else layer.rank
        before = position.get(layer.line, len(position)) if layer.rank == RANKS["weights"] else 0
        common = -shared.get(layer.instance.key, 0) if layer.instance else 0
        return rank, before, common

    return replace(image, layers=tuple(sorted(image.layers, key=sort_key)))


def parents_in_base(image: ComposedImage) -> list[str]:
    """Paths whose attributes in the base matter, because layers of the image pass through them.

    Empty for `base: scratch`, for directories that layerbuild's own layers own, and where the recipe
    says that the base need not be inspected.
    """
    recipe = image.declaration.recipe
    if recipe.base == "scratch" or (recipe.webui is not None and not recipe.webui.inspect):
        return []
    target = image.declaration.target
    provided = recipe.webui is not None and recipe.webui.provided_by == "base"
    owned = ["opt"] if provided else ["opt", target.root.strip("/")]
    paths = [path for layer in image.layers if layer.instance for path in outer_paths(layer.instance)]
    if image.pending:
        paths.append(cache_path(target).strip("/"))
    above = {parent for path in paths for parent in parents(path)}
    return sorted(d for d in above if not any(d == o or d.startswith(f"{o}/") for o in owned))


def _environments(image: ComposedImage) -> list[str]:
    """Directories of the image's Python environments, in the order in which the recipe names them."""
    layers = (use.layer for use in image.declaration.uses)
    return [layer.prefix.rstrip("/") for layer in layers if isinstance(layer, PythonLayer)]


def programs(image: ComposedImage) -> list[str]:
    """Directories of programs that the image's layers bring, and that come first in PATH."""
    return [f"{prefix}/bin" for prefix in _environments(image)]


def environment(image: ComposedImage) -> dict[str, str]:
    """Variables that the image's layers ask for: clients find the snapshots, and ask no network."""
    variables = {}
    if any(layer.kind == huggingface.KIND for layer in image.layers):
        variables = {"HF_HOME": image.declaration.target.hf_home, "HF_HUB_OFFLINE": "1"}
    environments = _environments(image)
    if environments:
        variables["VIRTUAL_ENV"] = environments[0]
    webui = image.declaration.recipe.webui
    if webui is not None and webui.cache_file is not None:
        variables["SD_WEBUI_CACHE_FILE"] = webui.cache_file
    if webui is not None and webui.cache_dir is not None:
        variables["SD_WEBUI_CACHE_DIR"] = webui.cache_dir.rstrip("/")
    return variables
