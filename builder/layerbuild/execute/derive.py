"""What a pinned webui tree leads to: the checkouts that its launch script names, and submodules."""

from __future__ import annotations

from collections.abc import Collection

from layerbuild.errors import NotFound, SourceError
from layerbuild.kinds import requests
from layerbuild.model import Pin, PinRequest
from layerbuild.schema import Layer, WebuiLayer
from layerbuild.sources import Context
from layerbuild.sources.base import shown
from layerbuild.sources.git import GitSource
from layerbuild.webui import launchscript

MOST = 128
"""Trees of one layer: as many layers as an image may have."""


def derived(context: Context, layer: WebuiLayer, role: str, request: PinRequest, pin: Pin) -> dict[str, PinRequest]:
    """Further pins by role that the tree with `role` asks for.

    Raises:
        SourceError: it does not say plainly what they are.
    """
    git = GitSource(context)
    found: dict[str, PinRequest] = {}
    if request.repositories:
        for directory, source in _checkouts(git, pin, layer.checkouts).items():
            wanted = requests.repository(directory)
            found[wanted] = requests.tree_request(layer, wanted, source)
    if request.submodules:
        for submodule in git.submodules(pin, request.submodules):
            wanted = requests.submodule(role, submodule.path)
            found[wanted] = requests.tree_request(layer, wanted, submodule.source)
    return found


def _checkouts(git: GitSource, pin: Pin, known: Collection[str]) -> dict[str, str]:
    what = shown(pin.source)
    for name in launchscript.NAMES:
        text = git.read_text(pin, name, limit=launchscript.MAX_SIZE)
        found = launchscript.checkouts(text, name, what=what, known=known) if text is not None else None
        if found is not None:
            return found
    raise SourceError(
        f"{what} does not name its checkouts",
        cause=f"no git_clone(...) of another repository stands in {' or '.join(launchscript.NAMES)}",
        hint="name them under 'repositories' instead of 'auto', or leave 'repositories' out where there are none",
    )


def unfound(layer: Layer, roles: Collection[str]) -> SourceError | None:
    """What is wrong where the declaration names a submodule that none of its trees has; None if nothing is."""
    if not isinstance(layer, WebuiLayer) or isinstance(layer.submodules, bool):
        return None
    places = {requests.place_of(role) for role in roles if ":" in role}
    missing = [path for path in layer.submodules if not set("*?[") & set(path) and path not in places]
    if not missing:
        return None
    return NotFound(
        f"no submodule lies at {', '.join(missing[:10])}",
        cause=f"those that are followed lie at {', '.join(sorted(places)[:10])}" if places else None,
        hint="write paths below the webui's directory, as in extensions/NAME/PATH",
    )


def too_many(pin: Pin) -> SourceError:
    """The error for a tree that leads to more trees than an image has room for."""
    return SourceError(
        f"{shown(pin.source)} leads to more than {MOST} trees",
        cause="submodules of submodules are followed, and each is a layer",
        hint="name under 'submodules' those that are needed",
    )
