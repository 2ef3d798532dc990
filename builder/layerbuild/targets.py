"""Where an image wants things: its target, by its recipe and its webui layer, and what does not fit together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from layerbuild.model import Target
from layerbuild.schema import PythonLayer, Recipe, WebuiLayer, WebuiTarget
from layerbuild.webui.flavors import DEFAULT_FLAVOR, FLAVORS
from layerbuild.webui.modeltypes import checkpoint_directories, flags
from layerbuild.webui.releases import parse_version, version_of_commit
from layerbuild.yamlfile import KeyPath

Report = Callable[[KeyPath, str, "str | None"], None]
"""Is told path, message and hint of a problem."""


def check_provider(recipe: Recipe, webuis: Sequence[str], models: Sequence[str], report: Report) -> None:
    """Says where it is unclear, or said twice, who brings the webui.

    Args:
        webuis, models: names of such layers.
    """
    provided = recipe.webui.provided_by if recipe.webui else None
    where = ("webui", "provided_by")
    if len(webuis) > 1:
        report(("layers",), f"two webui layers: {webuis[0]} and {webuis[1]}", "an image holds one webui")
    if webuis and provided == "base":
        report(where, f"the base provides the webui, and {webuis[0]} does too", "remove one")
    if not webuis and provided == "layer":
        report(where, "no layer of this recipe is a webui", "add one, or say 'provided_by: base'")
    if provided == "base" and recipe.base == "scratch":
        report(where, "'base: scratch' provides no webui", "name a base image or add a webui layer")
    if models and not webuis and recipe.webui is None:
        hint = "say 'webui: {root: /stable-diffusion-webui, provided_by: base}', or add a webui layer"
        report(("webui",), f"the recipe holds models ({models[0]} ...) and does not say where the webui lies", hint)


def version_of(recipe: Recipe, layer: WebuiLayer | None, report: Report) -> tuple[int, ...] | None:
    """The release by the recipe, its webui layer, or that one's commit."""
    stated = [recipe.webui.version if recipe.webui else None]
    if layer is not None:
        stated += [layer.version, version_of_commit(layer.source.rpartition("@")[2])]
    versions = {text: parse_version(text) for text in stated if text is not None}
    for text in (text for text, version in versions.items() if version is None):
        report(("webui", "version"), f"{text!r} is no release", "write it like 1.10.1")
    if len(set(versions.values())) > 1 and None not in versions.values():
        message = f"the recipe, the webui layer and its commit name different releases: {', '.join(versions)}"
        report(("webui", "version"), message, "leave 'version' out where the commit is a known release")
    return next(iter(versions.values()), None)


def flavor_of(recipe: Recipe, layer: WebuiLayer | None, report: Report) -> str:
    """The flavor by the recipe or its webui layer."""
    stated = recipe.webui.flavor if recipe.webui else None
    found = layer.flavor if layer is not None else stated or DEFAULT_FLAVOR
    if stated is not None and stated != found:
        hint = "leave 'flavor' out where a webui layer tells it"
        report(("webui", "flavor"), f"the recipe says {stated}, the webui layer is {found}", hint)
    # The recipe's other strings may use where embeddings lie, and are read before any layer.
    if stated is None and FLAVORS[found].embeddings_below_models:
        report(
            ("webui", "flavor"), f"the webui layer is {found}", f"say 'webui: {{flavor: {found}}}' in the recipe too"
        )
    variables = recipe.webui is not None and (recipe.webui.cache_file, recipe.webui.cache_dir) != (None, None)
    if variables and not FLAVORS[found].cache_variables:
        hint = "leave 'cache_file' and 'cache_dir' out"
        report(("webui",), f"{found} keeps its hash cache in the data directory only", hint)
    return found


def bytecode_of(recipe: Recipe, packages: Sequence[PythonLayer], report: Report) -> str | None:
    """The version of Python whose bytecode the recipe asks for: its own, or that of the image's packages."""
    if recipe.bytecode == "none":
        return None
    said = {layer.python for layer in packages} if recipe.python is None else {recipe.python}
    found = said.pop() if len(said) == 1 else None
    if recipe.bytecode is not None and found is None:
        report(("bytecode",), "nobody says which Python the image runs", "say it, for instance python: '3.10'")
    return found


def target_of(recipe: Recipe) -> Target:
    """What the recipe alone says."""
    webui = recipe.webui
    root = webui.root.rstrip("/") if webui else "/stable-diffusion-webui"
    data = ((webui.data_dir if webui else None) or root).rstrip("/")
    models = ((webui.models_dir if webui else None) or f"{data}/models").rstrip("/")
    flavor = (webui.flavor if webui else None) or DEFAULT_FLAVOR
    beside = models if FLAVORS[flavor].embeddings_below_models else data
    return Target(
        root=root,
        data_dir=data,
        models_dir=models,
        embeddings_dir=((webui.embeddings_dir if webui else None) or f"{beside}/embeddings").rstrip("/"),
        type_dirs=_type_dirs(webui) if webui else (),
        checkpoint=webui.ckpt if webui else None,
        cache_file=webui.cache_file if webui else None,
        flavor=flavor,
        hf_home=recipe.hf_home.rstrip("/"),
        uid=recipe.owner.uid,
        gid=recipe.owner.gid,
    )


def _type_dirs(webui: WebuiTarget) -> tuple[tuple[str, str], ...]:
    """Types of models whose directory a flag of the webui names."""
    flags = {
        "checkpoint": webui.ckpt_dir,
        "lora": webui.lora_dir,
        "vae": webui.vae_dir,
        "hypernetwork": webui.hypernetwork_dir,
    }
    return tuple((kind, directory.rstrip("/")) for kind, directory in flags.items() if directory is not None)


def builtins_of(name: str, recipe: Recipe, target: Target) -> dict[str, Any]:
    """The values of `project.BUILTINS`."""
    return {
        "webui": {
            "root": target.root,
            "data_dir": target.data_dir,
            "models_dir": target.models_dir,
            "embeddings_dir": target.embeddings_dir,
            "ckpt_dir": checkpoint_directories(target)[0],
            "flags": flags(target),
        },
        "hf_home": target.hf_home,
        "image": {"name": name, "platform": recipe.platform},
        **platform_variables(recipe.platform),
    }


def platform_variables(platform: str) -> dict[str, str]:
    """The values of `project.PLATFORM_VARIABLES`."""
    os_name, architecture, *_ = platform.split("/")
    return {"platform": platform, "os": os_name, "architecture": architecture}
