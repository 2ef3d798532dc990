"""Extensions: what their install scripts would fetch, read and never run, and what git is asked of them."""

from __future__ import annotations

from collections.abc import Iterator

from layerbuild.audit.checks.hashcache import read_cache
from layerbuild.audit.costs import PREPARE
from layerbuild.audit.findings import Cost, Finding
from layerbuild.audit.view import ImageView
from layerbuild.audit.webui import Webui
from layerbuild.webui import installscript
from layerbuild.webui.hashcache import stores_extensions

_GIT = 0.1
"""Seconds that git takes to describe one checkout (an assumption)."""


def check(view: ImageView) -> Iterator[Finding]:
    """Every directory below extensions/."""
    if view.webui is None:
        return
    webui = view.webui
    above = f"{webui.data_dir}/extensions"
    names = [name for name in view.files.names(above) if view.files.is_directory(f"{above}/{name}")]
    for name in names:
        yield from _installs(view, webui, f"{above}/{name}/{installscript.NAME}")
    if names and stores_extensions(webui.target):
        yield from _uncached(view, webui, above, names)


def _installs(view: ImageView, webui: Webui, path: str) -> Iterator[Finding]:
    node = view.files.file(path)
    if node is None:
        return
    data = view.files.read(node) if node.size < installscript.MAX_SIZE else None
    unreadable = installscript.InstallScript(unreadable=True)
    script = installscript.parse(data.decode("utf-8", errors="replace")) if data is not None else unreadable
    does = installscript.words(script)
    if not does:
        return
    skipped = "--skip-prepare-environment" in view.command.flags or "--skip-install" in view.command.flags
    runs = view.command.starts("launch.py") and not (skipped and webui.since(1, 3))
    yield Finding(
        id="extension-installs",
        severity="warning" if runs else "info",
        paths=(path,),
        what=f"it {does}: " + ("launch.py runs it at each start" if runs else "only launch.py would run it"),
        cost=Cost(seconds=PREPARE / 2 if runs else 0),
        hint="have it in the base or in layers, and start webui.py",
    )


def _uncached(view: ImageView, webui: Webui, above: str, names: list[str]) -> Iterator[Finding]:
    """Extensions with a `.git` whose entry is missing or older than it (`modules/extensions.py`)."""
    cache, _ = read_cache(view, webui)
    if cache.sections is None:
        return
    entries = cache.sections.get("extensions-git", {})
    stale = []
    for name in names:
        git = view.files.resolve(f"{above}/{name}/.git")
        entry = entries.get(name)
        mtime = entry.get("mtime") if isinstance(entry, dict) else None
        if git is not None and not (isinstance(mtime, int | float) and git[1].mtime <= mtime):
            stale.append(f"{above}/{name}")
    if stale:
        yield Finding(
            id="extension-not-cached",
            severity="info",
            paths=tuple(stale),
            what="git is asked about these extensions when they are listed",
            cost=Cost(seconds=_GIT * len(stale), when="use"),
            hint="pin them as 'extensions' of a webui layer, which writes their entries",
        )
