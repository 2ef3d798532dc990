"""What `lock` foresees beyond the lock: what extensions would install or download at a start, as it says it of newly
pinned ones, and layers that cannot be made here."""

from __future__ import annotations

from collections.abc import Sequence

from layerbuild.compose import ComposedImage
from layerbuild.errors import InterpreterMissing
from layerbuild.execute.build import Builder
from layerbuild.kinds.requests import extension
from layerbuild.lockmodel import Lock
from layerbuild.schema import PythonLayer
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


def uncompilable(images: Sequence[ComposedImage], builder: Builder) -> list[str]:
    """Images that ask for bytecode that nobody can make here, and that was not made before."""
    found = []
    asking: dict[str, list[str]] = {}
    for image in images:
        layers = (use.layer for use in image.declaration.uses)
        packages = {one.python for one in layers if isinstance(one, PythonLayer) and one.bytecode != "none"}
        if any(layer.instance and builder.packer.known(layer) is None for layer in image.layers):
            for python in sorted({image.target.bytecode, *packages} - {None}, key=str):
                asking.setdefault(str(python), []).append(image.title)
    for python, names in asking.items():
        try:
            builder.contents.compiler.interpreter(python)
        except InterpreterMissing as error:  # noqa: PERF203  # once per version
            first, *others = dict.fromkeys(names)
            more = f" and {len(others)} more" if others else ""
            found.append(f"{first}{more}: {error.message} (try: {error.hint})")
    return found
