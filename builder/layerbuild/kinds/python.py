"""Python packages: wheels laid out in a virtual environment, below a prefix of their own.

The environment is one as `python -m venv` makes it (PEP 405): `pyvenv.cfg` and links in `bin` to the base's
interpreter, so that `importlib.metadata`, `pip check` and scripts find in it what they find in any other. Its
heavy wheels have layers of their own; all others share one, which also holds the environment itself.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from layerbuild import pyc
from layerbuild.errors import SourceError
from layerbuild.kinds import bytecode, requests
from layerbuild.kinds.base import Json, Knowledge, base_directories, instance, owner, strip, with_parents
from layerbuild.model import LARGE, Content, Entry, Instance, Pin, Target
from layerbuild.schema import PythonLayer
from layerbuild.wheels.layout import Installed, installed

KIND = "python"
REVISION = 1


def minor(layer: PythonLayer) -> str:
    """Version of the Python that the packages are for, `3.X`."""
    return ".".join((layer.python or "").split(".")[:2])


def instances(layer: PythonLayer, pins: Mapping[str, Pin], target: Target, label: str) -> list[Instance]:
    """Its layers: the environment with its light wheels, and one for each heavy wheel."""
    found = {name: pin.files[0].content for name, pin in requests.wheels(pins).items()}
    heavy = {name: content for name, content in found.items() if (content.size or 0) >= LARGE}
    light = sorted({content.sha256 or "" for name, content in found.items() if name not in heavy})
    own = {"interpreter": layer.interpreter or f"/usr/bin/python{minor(layer)}"}
    return [
        _instance(layer, light, target, label, environment=own),
        *(_instance(layer, [content.sha256 or ""], target, f"{label}/{name}") for name, content in heavy.items()),
    ]


def _instance(
    layer: PythonLayer, found: Sequence[str], target: Target, label: str, environment: Mapping[str, str] | None = None
) -> Instance:
    prefix = strip(layer.prefix)
    inputs = {
        "prefix": prefix,
        "python": minor(layer),
        "wheels": list(found),
        **({"bytecode": pyc.setting(layer.python or "")} if layer.bytecode != "none" else {}),
        "directories": base_directories([f"{prefix}/x"], target),
        **({"environment": dict(environment)} if environment is not None else {}),
        **owner(target),
    }
    return instance(KIND, REVISION, inputs, label)


def describe(inputs: Json, knowledge: Knowledge) -> list[Entry]:
    """Every file of every wheel; of the environment's own layer, the environment too.

    Raises:
        SourceError: two wheels write one path.
    """
    ids = {"uid": inputs["uid"], "gid": inputs["gid"]}
    prefix, python = inputs["prefix"], inputs["python"]
    entries = {entry.path: entry for entry in _environment(inputs)}
    owners: dict[str, str] = {}
    for sha256 in inputs["wheels"]:
        wheel = knowledge.wheel(sha256)
        files = installed(wheel, prefix=f"/{prefix}", python=python)
        made = [_entry(file, prefix, ids) for file in files]
        if "bytecode" in inputs:
            modules = [entry for file, entry in zip(files, made, strict=True) if file.importable]
            made += bytecode.compiled(modules, inputs["bytecode"], knowledge)[len(modules) :]
        for entry in made:
            other = entries.setdefault(entry.path, entry)
            if other is not entry and not same(other, entry):
                raise clash(entry.path, owners.get(entry.path), wheel.name)
            owners.setdefault(entry.path, wheel.name)
    return with_parents(entries.values(), inputs, **ids)


def same(one: Entry, other: Entry) -> bool:
    """Whether two packages that write one path write the same there: namespaces' empty `__init__.py` do."""
    return (one.data, one.content, one.mode) == (other.data, other.content, other.mode)


def clash(path: str, one: str | None, other: str) -> SourceError:
    """The error for two packages that write one path."""
    return SourceError(
        f"/{path} is a file of both {one or 'the environment'} and {other}, and differs",
        cause="an installer would keep whichever it came to last",
        hint="leave one of the two packages out, or take other versions",
    )


def _entry(file: Installed, prefix: str, ids: Json) -> Entry:
    content = None if file.data is not None else Content(size=file.size, sha256=file.sha256)
    return Entry(
        path=f"{prefix}/{file.path}",
        type="file",
        mode=0o755 if file.executable else 0o644,
        content=content,
        data=file.data,
        uid=ids["uid"],
        gid=ids["gid"],
    )


def _environment(inputs: Json) -> Iterator[Entry]:
    """What `python -m venv --without-pip` makes, its activation scripts left out (PEP 405)."""
    if "environment" not in inputs:
        return
    ids = {"uid": inputs["uid"], "gid": inputs["gid"]}
    prefix, python, base = inputs["prefix"], inputs["python"], inputs["environment"]["interpreter"]
    lines = {
        "home": posixpath.dirname(base),
        "include-system-site-packages": "false",
        "version": python,
        "executable": base,
    }
    text = "".join(f"{key} = {value}\n" for key, value in lines.items())
    yield Entry(path=f"{prefix}/pyvenv.cfg", type="file", mode=0o644, data=text.encode(), **ids)
    # Where platform packages belong to Pythons of some distributions.
    yield Entry(path=f"{prefix}/lib64", type="symlink", mode=0o777, target="lib", **ids)
    for name, goal in {"python": base, "python3": "python", f"python{python}": "python"}.items():
        yield Entry(path=f"{prefix}/bin/{name}", type="symlink", mode=0o777, target=goal, **ids)


def clash_between(
    layers: Iterable[Instance], knowledge: Knowledge, is_known: Callable[[str], bool]
) -> SourceError | None:
    """The error for two wheels of some layers of one image that write one path; None where all is well.

    Args:
        is_known: whether a wheel, by its sha256, was looked into. Those that were not are passed over.
    """
    seen: dict[str, tuple[Entry, str]] = {}
    for layer in layers:
        inputs = json.loads(layer.inputs)
        for sha256 in filter(is_known, inputs["wheels"]):
            wheel = knowledge.wheel(sha256)
            for file in installed(wheel, prefix=f"/{inputs['prefix']}", python=inputs["python"]):
                entry = _entry(file, inputs["prefix"], inputs)
                other, name = seen.setdefault(entry.path, (entry, wheel.name))
                if other is not entry and not same(other, entry):
                    return clash(entry.path, name, wheel.name)
    return None


def wheels(layer: Instance) -> list[str]:
    """sha256 of every wheel of a layer."""
    found: list[str] = json.loads(layer.inputs)["wheels"]
    return found
