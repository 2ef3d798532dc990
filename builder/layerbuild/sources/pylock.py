"""Packages that requirements lead to, as uv chooses them: one pin for each wheel.

uv's answer is a `pylock.toml` (PEP 751). Of each package the one file is taken that an installer would take.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from layerbuild.errors import SourceError
from layerbuild.model import Pin, PinRequest, PythonRequest
from layerbuild.sources import uv
from layerbuild.sources.base import Context, require_online, shown
from layerbuild.sources.git import GitSource
from layerbuild.sources.web import WebSource
from layerbuild.wheels.names import normalized
from layerbuild.wheels.tags import best

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_MAX_FILE = 1024 * 1024
"""Bytes of a file of requirements."""

_COMMENT = re.compile(r"(?:^|\s)#.*$")


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A package that was chosen.

    Attributes:
        name: normalized.
        file: what is pinned: a wheel, or what one must be built from.
        is_wheel: which of the two.
    """

    name: str
    version: str | None
    file: PinRequest
    is_wheel: bool


def choose(context: Context, request: PythonRequest, *, what: str) -> list[Chosen]:
    """The packages that `request` leads to, by name.

    Raises:
        UsageError: uv is not installed.
        SourceError: there is no such choice, or it cannot be had.
    """
    require_online(context, f"the packages of {what}")
    requirements = [*_of_tree(context, request), *request.requirements]
    with tempfile.TemporaryDirectory(prefix="layerbuild-") as name:
        directory = Path(name)
        (directory / "requirements.in").write_text("".join(f"{line}\n" for line in requirements))
        (directory / "constraints.txt").write_text("".join(f"{line}\n" for line in request.constraints))
        said = uv.run(
            context.environ,
            *("pip", "compile", "requirements.in", *_options(request)),
            directory=directory,
            what=f"the packages of {what} cannot be chosen",
        )
    return _parsed(said, request, what)


def _options(request: PythonRequest) -> Iterator[str]:
    yield from ("--quiet", "--format", "pylock.toml", "--no-header", "--only-binary", ":all:")
    yield from ("--python-version", request.python, "--python-platform", request.platform)
    yield from ("--constraints", "constraints.txt", "--build-constraints", "constraints.txt")
    yield from ("--index-strategy", request.index_strategy)
    for name in request.build:
        yield from ("--no-binary", name)
    for index in request.indexes:
        yield from ("--index", index)
    if request.exclude_newer is not None:
        # uv takes a date to be one of the time zone that it runs in.
        date = len(request.exclude_newer) == len("2026-01-31")
        yield from ("--exclude-newer", f"{request.exclude_newer}T23:59:59Z" if date else request.exclude_newer)


def _of_tree(context: Context, request: PythonRequest) -> list[str]:
    """Requirements that a file of a git tree names."""
    if request.tree is None:
        return []
    git = GitSource(context)
    file, name = request.file or "", shown(request.tree)
    pin = git.resolve(
        PinRequest(uri=request.tree, mirrors=request.tree_mirrors, submodules=("*",), lfs_pointers=("*",))
    )
    text = git.read_text(pin, file, limit=_MAX_FILE)
    if text is None:
        raise SourceError(f"{name} has no file {file}", hint="say which one under 'file'")
    lines = [_COMMENT.sub("", line).strip() for line in text.splitlines()]
    for line in filter(None, lines):
        if not line[0].isalnum() or not line.isprintable() or line.endswith("\\"):
            raise SourceError(
                f"{file} of {name} has a line that is no requirement: {line[:200]!r}",
                hint="write the requirements into the declaration",
            )
    return [line for line in lines if line]


def _parsed(text: bytes, request: PythonRequest, what: str) -> list[Chosen]:
    try:
        packages = tomllib.loads(text.decode())["packages"]
        found = [_package(package, request, what) for package in packages]
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError, TypeError, AttributeError) as error:
        raise SourceError(
            f"{what}: uv's answer is not what PEP 751 describes",
            cause=f"{type(error).__name__}: {str(error)[:200]}",
            hint="update uv, or layerbuild",
        ) from None
    if len({chosen.name for chosen in found}) != len(found):
        raise SourceError(f"{what}: uv chose two versions of one package", hint="update uv, or layerbuild")
    return sorted(found, key=lambda chosen: chosen.name)


def _package(package: Mapping[str, Any], request: PythonRequest, what: str) -> Chosen:
    name = normalized(package["name"])
    wheels = {_filename(wheel): wheel for wheel in package.get("wheels") or ()}
    source = package.get("sdist") or package.get("archive")
    if wheels:
        found, is_wheel = wheels[best(sorted(wheels), request.python)], True
    elif source:
        found, is_wheel = source, _filename(source).endswith(".whl")
    else:
        raise SourceError(
            f"{what}: {name} is neither a wheel nor an archive",
            cause="directories and repositories have no digest that an installer would check",
            hint="require the archive of a commit: NAME @ https://HOST/.../COMMIT.zip",
        )
    if not is_wheel and name not in {normalized(allowed) for allowed in request.build}:
        raise SourceError(
            f"{what}: {name} has no wheel for this platform, and building runs code of its authors",
            hint=f"if you trust them: build: [{name}]",
        )
    url = found.get("url")
    if not isinstance(url, str) or not url.startswith(("https://", "http://")):
        raise SourceError(
            f"{what}: {name} lies on this machine only",
            cause="a lock names nothing that others cannot reach",
            hint="put it on an index, or into a web server's directory",
        )
    size, sha256 = found.get("size"), (found.get("hashes") or {}).get("sha256")
    file = PinRequest(uri=_without_hash(url), sha256=sha256, size=size if type(size) is int else None)
    return Chosen(name=name, version=package.get("version"), file=file, is_wheel=is_wheel)


def _filename(found: Mapping[str, Any]) -> str:
    """What a file is called: PEP 751 lets the name stand in the address only."""
    name = found.get("name") or unquote(urlsplit(found.get("url") or found.get("path") or "").path.rpartition("/")[2])
    return str(name)


def _without_hash(url: str) -> str:
    return urlsplit(url)._replace(fragment="").geturl()


def pinned(context: Context, chosen: Chosen) -> Pin:
    """The pin of a package's file. Only an index that tells neither digest nor size is asked for more.

    Raises:
        SourceError: it cannot be had, or its address may not stand in a lock.
    """
    return WebSource(context).resolve(chosen.file)
