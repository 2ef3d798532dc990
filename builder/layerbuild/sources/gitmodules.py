"""Submodules: where `.gitmodules` says that they come from, believed no further than a place to look.

The commit of a submodule stands in its parent's tree, and git checks what arrives by that. So only
the address needs care: it may name a server, or a neighbour of the parent, and nothing else of this
machine (gitmodules(5), git-submodule(1) for relative addresses).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from layerbuild.errors import SourceError
from layerbuild.sources.base import words

LARGEST = 256 * 1024
"""Bytes of a `.gitmodules`; honest ones have a hundred for each submodule."""

NAME = ".gitmodules"

_SCP = re.compile(r"git@([A-Za-z0-9.-]+):(?!/)(.+)")
_HINT = "leave it out of 'submodules', or pin that repository as a layer of its own"


@dataclass(frozen=True, kw_only=True)
class Submodule:
    """A submodule at `path` of its parent. `source` is a git source with the commit."""

    path: str
    source: str


def addresses(listed: bytes, *, what: str) -> dict[str, str]:
    """Path -> address as written, from `git config --null --get-regexp` on a `.gitmodules`.

    Raises:
        SourceError: two submodules claim one path.
    """
    fields: dict[str, dict[str, str]] = {}
    for item in listed.decode(errors="replace").split("\0"):
        key, newline, value = item.partition("\n")
        name, _, field = key.removeprefix("submodule.").rpartition(".")
        if newline and name:
            fields.setdefault(name, {})[field] = value
    found: dict[str, str] = {}
    for named in fields.values():
        path, url = named.get("path"), named.get("url")
        if path is not None and url is not None and found.setdefault(path, url) != url:
            raise SourceError(
                f"{what} gives the submodule at {words(path)} two addresses", hint="do not use this repository"
            )
    return found


def chosen(commits: Mapping[str, str], urls: Mapping[str, str], parent: str, *, what: str) -> Iterator[Submodule]:
    """The submodules of a tree that are followed, in the order of their paths.

    Args:
        commits: path -> commit.
        urls: what `.gitmodules` says: path -> address.
        parent: address of the repository that they are in, as the source names it.

    Raises:
        SourceError: one has no address, or one that may not be used.
    """
    for path, commit in sorted(commits.items()):
        if path not in urls:
            raise SourceError(f"{what} does not say where its submodule {words(path)} comes from", hint=_HINT)
        yield Submodule(path=path, source=f"{source_of(urls[path], parent, what=what)}@{commit}")


def source_of(url: str, parent: str, *, what: str) -> str:
    """The git source that an address in a `.gitmodules` stands for.

    Args:
        parent: address of the repository that it is in, as a source: `git+https://HOST/REPOSITORY`.

    Raises:
        SourceError: it is none that may be asked.
    """
    scp = _SCP.fullmatch(url)
    if url.startswith(("./", "../")):
        return _relative(url, parent, what=what)
    if scp is not None:
        return f"git+https://{scp[1]}/{scp[2]}"
    for prefix in ("ssh://git@", "git://"):
        if url.startswith(prefix):
            # The same repository, over what needs no account: the commit says whether it is.
            return f"git+https://{url.removeprefix(prefix)}"
    if url.startswith(("https://", "http://")):
        return f"git+{url}"
    raise SourceError(
        f"{what} has a submodule that cannot be followed: its address is {words(url)}",
        cause="only https://, and addresses relative to the repository's own, are asked",
        hint=_HINT,
    )


def _relative(url: str, parent: str, *, what: str) -> str:
    scheme, colon, rest = parent.partition(":")
    root, _, path = rest.removeprefix("//").partition("/") if rest.startswith("//") else ("", "", rest)
    here = path.rstrip("/").split("/")
    parts = url.rstrip("/").split("/")
    while parts and parts[0] in (".", ".."):
        if parts.pop(0) == "..":
            if not any(here):
                raise SourceError(
                    f"{what} has a submodule that cannot be followed: {words(url)} leads out of {words(parent)}",
                    hint=_HINT,
                )
            here.pop()
    if not parts or any(part in ("", ".", "..") for part in parts):
        raise SourceError(f"{what} has a submodule with a strange address: {words(url)}", hint=_HINT)
    joined = "/".join([*here, *parts])
    return f"{scheme}{colon}//{root}/{joined}" if rest.startswith("//") else f"{scheme}{colon}{joined}"
