"""What extensions would install or download at a start, as `lock` says it of newly pinned ones."""

from __future__ import annotations

from collections.abc import Sequence

from layerbuild.http import redact
from layerbuild.kinds.requests import extension
from layerbuild.lockmodel import Lock
from layerbuild.sources import Context
from layerbuild.sources.git import GitSource
from layerbuild.webui import installscript
from layerbuild.webui.installscript import UNKNOWN, InstallScript

_SHOWN = 8
_SHOWN_LENGTH = 120


def installs(context: Context, old: Lock, new: Lock) -> list[str]:
    """What the install scripts of extensions would fetch at a start, for pins that `old` has not.

    Only these are sure to be on this machine: a lock that has nothing to do asks nobody.

    Raises:
        SourceError: a tree that was pinned just now cannot be read.
    """
    found = []
    git = GitSource(context)
    for name, layer in new.layers.items():
        before = old.layers[name].pins if name in old.layers else {}
        for role, pin in layer.pins.items():
            if not role.startswith(extension("")) or before.get(role) == pin:
                continue
            text = git.read_text(pin, installscript.NAME, limit=installscript.MAX_SIZE)
            does = _does(installscript.parse(text)) if text is not None else ""
            if does:
                directory = role.removeprefix(extension(""))
                hint = "have it in the base or in layers, and start webui.py"
                found.append(f"{name}: {directory}'s install.py {does}, if launch.py runs it (try: {hint})")
    return found


def _does(script: InstallScript) -> str:
    """What `script` would do, in words; empty where it is idle. Addresses are shown without their secrets."""
    if script.unreadable:
        return "cannot be read, and may fetch anything"
    packages = [word for word in script.packages if word.strip(UNKNOWN)]
    if len(packages) < len(script.packages) and not script.requirements:
        packages.append("what only a run can name")
    parts = (
        ("installs", [*packages, *script.requirements]),
        ("downloads", [redact(address) for address in script.addresses]),
    )
    return " and ".join(f"{verb} {_some(names)}" for verb, names in parts if names)


def _some(names: Sequence[str]) -> str:
    shown = [name if len(name) <= _SHOWN_LENGTH else f"{name[:_SHOWN_LENGTH]}..." for name in names[:_SHOWN]]
    return ", ".join(shown) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
