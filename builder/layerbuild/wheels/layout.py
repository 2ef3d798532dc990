"""Where the files of a wheel go ("Installing a wheel", PyPA), byte for byte as uv would leave them. Pure.

What uv leaves and this does not: `REQUESTED`, which says what a person asked for and not what a wheel is, and
`direct_url.json` and `uv_cache.json`, which tell of the machine that installed. Compiled files that a wheel brings
for sources of its own are left out: they carry times that no layer keeps.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass

from layerbuild.model import sha256_hex
from layerbuild.wheels import record, scripts
from layerbuild.wheels.inspection import Wheel
from layerbuild.wheels.names import normalized

_INSTALLER = b"layerbuild"


@dataclass(frozen=True, kw_only=True)
class Installed:
    """A file of an installation.

    Attributes:
        path: below the prefix.
        member: its path in the wheel, None where it is made.
        data: its bytes, where it is made.
        importable: whether Python may import it, and so compile it.
    """

    path: str
    sha256: str
    size: int
    executable: bool
    member: str | None = None
    data: bytes | None = None
    importable: bool = False


def site_packages(python: str) -> str:
    """Of Python `3.X`, below a prefix (`sysconfig`'s scheme `venv`)."""
    return f"lib/python{python}/site-packages"


def interpreter(prefix: str) -> str:
    """What runs scripts of an environment."""
    return f"{prefix}/bin/python"


def installed(wheel: Wheel, *, prefix: str, python: str) -> list[Installed]:
    """Every file of an installed wheel, its RECORD included.

    Args:
        prefix: absolute path of the environment.
        python: its version, `3.X`.
    """
    site = site_packages(python)
    found: dict[str, Installed] = {}
    for file in _from_members(wheel, prefix, python, site):
        found[file.path] = file
    for name, reference in _entry_points(wheel, python).items():
        data = scripts.script(reference, interpreter(prefix))
        found[f"bin/{name}"] = _made(f"bin/{name}", data, executable=True)
    info = f"{site}/{wheel.stem}.dist-info"
    found[f"{info}/INSTALLER"] = _made(f"{info}/INSTALLER", _INSTALLER)
    files = {posixpath.relpath(f.path, site): (f.sha256, f.size) for f in found.values()}
    rows = record.text(files, posixpath.relpath(f"{info}/RECORD", site))
    return [*found.values(), _made(f"{info}/RECORD", rows)]


def _from_members(wheel: Wheel, prefix: str, python: str, site: str) -> Iterator[Installed]:
    data = f"{wheel.stem}.data/"
    roots = {
        "purelib": site,
        "platlib": site,
        "scripts": "bin",
        "data": ".",
        "headers": f"include/site/python{python}/{wheel.name}",
    }
    for member, file in wheel.files.items():
        category, _, rest = (
            member.removeprefix(data).partition("/") if member.startswith(data) else ("purelib", "", member)
        )
        if _is_void(member, wheel):
            continue
        path = posixpath.normpath(f"{roots[category]}/{rest}")
        if member in wheel.scripts:
            yield _made(path, scripts.rewritten(wheel.scripts[member], interpreter(prefix)), executable=True)
            continue
        yield Installed(
            path=path,
            sha256=file.sha256,
            size=file.size,
            executable=file.executable or category == "scripts",
            member=member,
            importable=path.endswith(".py") and path.startswith(f"{site}/"),
        )


def _is_void(member: str, wheel: Wheel) -> bool:
    """Whether it is a compiled file whose source is in the wheel too."""
    directory, name = posixpath.split(member)
    if not name.endswith(".pyc") or posixpath.basename(directory) != "__pycache__":
        return False
    return posixpath.join(posixpath.dirname(directory), f"{name.partition('.')[0]}.py") in wheel.files


def _entry_points(wheel: Wheel, python: str) -> dict[str, str]:
    """Its scripts by name. pip's are called after the Python that they belong to, as it asks of installers."""
    points = dict(wheel.entry_points)
    if normalized(wheel.name) == "pip" and "pip" in points:
        points = {name: reference for name, reference in points.items() if not name.startswith("pip3.")}
        points[f"pip{python}"] = points["pip"]
    return points


def _made(path: str, data: bytes, *, executable: bool = False) -> Installed:
    return Installed(path=path, sha256=sha256_hex(data), size=len(data), executable=executable, data=data)
