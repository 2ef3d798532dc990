"""What a value on a command line could be: names of images and layers, places that were used, revisions, files.

A metavar says what a value is, for readers of a help and for shells alike: `IMAGE`, `DEST`, `FILE`. All of it is had
without loading the project, and what cannot be read has no names.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from layerbuild.storepath import store_path

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]
_Names = Callable[[click.Context, str], Iterable[str]]

_LOCK = "lockfile.yaml"
_LARGEST = 64 * 1024 * 1024
"""Bytes of a lock that names are taken from."""

_MOST = 1000
"""Names that are offered at once, and files that are looked into for them."""

_SECONDS = 2
_KEY = re.compile(r"""  (?:"([^"\\]+)"|'((?:[^']|'')+)'|([^\s'"#{\[&*!|>%@`-][^#]*?)):(?:\s|$)""")


def complete(command: str, name: str, metavar: str) -> Completer | None:
    """What completes a value of a command's parameter; None where nothing does."""
    word = _NAMED.get(f"{command} {name}") or re.sub(r"\[=.*?\]|\[:.*?\]|[\[\].]", "", metavar)
    return _COMPLETERS.get(word)


# --- of the project ------------------------------------------------------------------------------------


def _root(ctx: click.Context) -> Path | None:
    named = ctx.find_root().params.get("project")
    start = Path(named or ".").absolute()
    return next((place for place in (start, *start.parents) if (place / "recipes").is_dir()), None)


def _images(ctx: click.Context, incomplete: str) -> Iterator[str]:
    """Images of the lock; one of their platforms only where an `@` asks for it."""
    names = _keys(_root(ctx), "images")
    yield from dict.fromkeys(name if "@" in incomplete else name.partition("@")[0] for name in names)


def _layers(ctx: click.Context, incomplete: str) -> Iterator[str]:
    del incomplete
    yield from dict.fromkeys(name.partition("[")[0] for name in _keys(_root(ctx), "layers"))


def _updatable(ctx: click.Context, incomplete: str) -> Iterator[str]:
    yield from _layers(ctx, incomplete)
    yield from _images(ctx, incomplete)


def _keys(root: Path | None, section: str) -> list[str]:
    """Keys of one section of the lock, which layerbuild writes with two spaces before them."""
    if root is None:
        return []
    text = _text(root / _LOCK)
    match = re.search(rf"^{section}:[ ]*\n((?:[ #].*\n|\n)*)", text, re.MULTILINE)
    found = (_KEY.match(line) for line in match[1].split("\n")) if match else ()
    return [key[1] or (key[2] or "").replace("''", "'") or key[3] for key in found if key]


def _text(path: Path) -> str:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if path.stat().st_size <= _LARGEST:
            return path.read_text(encoding="utf-8")
    return ""


def _labels(ctx: click.Context, incomplete: str) -> Iterator[str]:
    """`KEY`, and `KEY=VALUE` where a recipe says the value itself."""
    import yaml  # noqa: PLC0415  # for labels only

    root = _root(ctx)
    for path in sorted(root.glob("recipes/*.y*ml"))[:_MOST] if root is not None else ():
        value: object = None
        with contextlib.suppress(yaml.YAMLError, ValueError, RecursionError):
            value = yaml.load(_text(path), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
        for part in ("config", "labels"):
            value = value.get(part) if isinstance(value, dict) else None
        for key, text in value.items() if isinstance(value, dict) else ():
            yield f"{key}={text}" if "=" in incomplete and "{{" not in str(text) else str(key)


def _revisions(ctx: click.Context, incomplete: str) -> Iterator[str]:
    """Branches and tags of the project's repository, the latest first."""
    del incomplete
    root = _root(ctx)
    if root is None:
        return
    command = ["git", "-C", str(root), "for-each-ref", "--sort=-creatordate", f"--count={_MOST}"]
    command += ["--format=%(refname:lstrip=2)", "refs/heads", "refs/remotes", "refs/tags"]
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(command, capture_output=True, check=False, timeout=_SECONDS, stdin=subprocess.DEVNULL)
        if done.returncode == 0:
            yield "HEAD"
            yield from done.stdout.decode(errors="replace").splitlines()


# --- places --------------------------------------------------------------------------------------------


def _destinations(ctx: click.Context, incomplete: str) -> Iterator[str]:
    """`oci:` and a directory, `archive:` and a file, and where images were sent from here."""
    del ctx
    for scheme in ("oci:", "archive:"):
        if incomplete.startswith(scheme):
            yield from _files(scheme, incomplete.removeprefix(scheme), directories_only=scheme == "oci:")
        else:
            yield scheme
    yield from dict.fromkeys(f"{host}/{repository.rpartition('/')[0]}".rstrip("/") for host, repository in _pushed())


def _references(ctx: click.Context, incomplete: str) -> Iterator[str]:
    """Images of this project, as they were sent somewhere, and layouts."""
    if incomplete.startswith(("oci:", "archive:")):
        yield from _destinations(ctx, incomplete)
        return
    yield "oci:"
    yield from (f"{host}/{repository}" for host, repository in _pushed())


def _recipes(ctx: click.Context, incomplete: str) -> Iterator[str]:
    del incomplete
    root = _root(ctx)
    yield from sorted(path.stem for path in (root / "recipes").glob("*.yaml")) if root is not None else ()


def _compared(ctx: click.Context, incomplete: str) -> Iterator[str]:
    """Images, and revisions of the lock."""
    yield from _audited(ctx, incomplete)
    yield from _revisions(ctx, incomplete)


def _audited(ctx: click.Context, incomplete: str) -> Iterator[str]:
    yield from _images(ctx, incomplete)
    yield from _references(ctx, incomplete)


def _hosts(ctx: click.Context, incomplete: str) -> Iterator[str]:
    del ctx, incomplete
    yield from dict.fromkeys(host for host, _ in _pushed())


def _pushed() -> list[tuple[str, str]]:
    """Registries and repositories that something was sent to from this machine."""
    import os  # noqa: PLC0415  # beside its only use

    path = store_path(os.environ) / "store.db"
    sql = f"SELECT DISTINCT host, repository FROM pushed ORDER BY host, repository LIMIT {_MOST}"  # noqa: S608
    with contextlib.suppress(sqlite3.Error, OSError):
        if path.exists():
            with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=0.2)) as connection:
                return [(str(host), str(repository)) for host, repository in connection.execute(sql)]
    return []


def _files(scheme: str, begun: str, *, directories_only: bool) -> Iterator[str]:
    """Files and directories that go on with `begun`, after a scheme; a directory ends in a slash."""
    above, slash, _ = begun.rpartition("/")
    with contextlib.suppress(OSError):
        for path in sorted(Path(above + slash).expanduser().iterdir())[:_MOST]:
            if path.is_dir():
                yield f"{scheme}{above}{slash}{path.name}/"
            elif not directories_only:
                yield f"{scheme}{above}{slash}{path.name}"


# --- as shells want it -----------------------------------------------------------------------------------


def _offer(names: _Names) -> Completer:
    def offered(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        del parameter
        found: dict[str, None] = {}
        # A directory that is gone, or nobody may look into, has none.
        with contextlib.suppress(OSError):
            found |= dict.fromkeys(name for name in names(ctx, incomplete) if name.startswith(incomplete))
        # Of what a terminal would not show as it is, nothing is offered.
        return [
            CompletionItem(name, type="part" if name.endswith((":", "/")) else "plain")
            for name in [*found][:_MOST]
            if name.isprintable()
        ]

    return offered


def _of_the_shell(what: str) -> Completer:
    """Files, as the shell itself completes them."""
    return lambda ctx, parameter, incomplete: [CompletionItem(incomplete, type=what)]


_COMPLETERS: dict[str, Completer] = {
    "IMAGE": _offer(_images),
    "LAYER": _offer(_layers),
    "LAYER|IMAGE": _offer(_updatable),
    "KEY": _offer(_labels),
    "REV": _offer(_revisions),
    "OLD": _offer(_compared),
    "NEW": _offer(_compared),
    "DEST": _offer(_destinations),
    "REF": _offer(_references),
    "IMAGE|REF": _offer(_audited),
    "HOST": _offer(_hosts),
    "OS/ARCH": _offer(lambda ctx, incomplete: ("linux/amd64", "linux/arm64")),
    "RECIPE": _offer(_recipes),
    "SOURCE": _of_the_shell("file"),
    "DOCKERFILE": _of_the_shell("file"),
    "DIGEST|NAME|PATH": _offer(_layers),
    "FILE": _of_the_shell("file"),
    "LOCKFILE": _of_the_shell("file"),
    "DIR": _of_the_shell("dir"),
}
"""By the word that a metavar is."""

_NAMED = {
    "lock update": "LAYER",
    "lock repack": "LAYER|IMAGE",
    "verify image": "IMAGE",
    "audit reference": "IMAGE|REF",
    "import output": "FILE",
    "init base": "REF",
}
"""Better words than the metavars of some parameters."""
