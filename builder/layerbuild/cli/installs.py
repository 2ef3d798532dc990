"""What extensions would install or download at a start, as `lock` says it of newly pinned ones."""

from __future__ import annotations

from layerbuild.kinds.requests import extension
from layerbuild.lockmodel import Lock
from layerbuild.sources import Context
from layerbuild.sources.git import GitSource
from layerbuild.webui import installscript


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
            if not role.startswith(extension("")) or ":" in role or before.get(role) == pin:
                continue
            text = git.read_text(pin, installscript.NAME, limit=installscript.MAX_SIZE)
            does = installscript.words(installscript.parse(text)) if text is not None else ""
            if does:
                directory = role.removeprefix(extension(""))
                hint = "have it in the base or in layers, and start webui.py"
                found.append(f"{name}: {directory}'s install.py {does}, if launch.py runs it (try: {hint})")
    return found
