"""The bytecode that lies beside Python sources, made when the image is built (PEP 552, unchecked-hash)."""

from __future__ import annotations

from collections.abc import Iterable

from layerbuild import pyc
from layerbuild.kinds.base import Knowledge
from layerbuild.model import Entry


def compiled(
    entries: Iterable[Entry], setting: str, knowledge: Knowledge, *, listing: str | None = None
) -> list[Entry]:
    """`entries` with the bytecode of those that are sources, and no other: what comes from elsewhere in a
    `__pycache__` is void once the sources have another mtime.

    Args:
        setting: by `pyc.setting`.
        listing: sha256 of the git tree's listing that the sources are of.

    Raises:
        LayerbuildError: a source cannot be had or compiled.
    """
    version = setting.split(maxsplit=1)[0]
    kept = [entry for entry in entries if not pyc.is_cached(entry.path)]
    sources = {f"/{e.path}": e for e in kept if e.content is not None and e.path.endswith(".py")}
    pairs = [(path, entry.content) for path, entry in sources.items() if entry.content is not None]
    made = knowledge.bytecode(version, pairs, listing=listing)
    for path, content in made.items():
        source, cached = sources[path], pyc.cached_path(path, pyc.tag(version)).lstrip("/")
        kept.append(Entry(path=cached, type="file", mode=0o644, uid=source.uid, gid=source.gid, content=content))
    return kept
