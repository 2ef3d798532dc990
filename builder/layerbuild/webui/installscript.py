"""What an extension's `install.py` would install or download at a start, read and never run.

The webui runs each extension's `install.py` from `launch.py`. What such a script names in plain text
is found by parsing; what it puts together at run time is not.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from layerbuild.addresses import redact
from layerbuild.webui import pythonsource

NAME = "install.py"
MAX_SIZE = pythonsource.MAX_SIZE
"""Bytes. A longer script is not read."""

_ADDRESS = re.compile(r"https?://[!#-&(-;=?-~]+")
"""Printable ASCII without quotes and angle brackets: the text is a stranger's, and goes to a terminal."""
_WORD = re.compile(r"[!-~]+")
_PIP = frozenset({"run_pip", "pip_install", "pip"})
_HUB = frozenset({"hf_hub_download", "snapshot_download"})
_FILES = re.compile(r"requirements[\w.-]*\.txt", re.ASCII)
_VALUES = frozenset({"-r", "--requirement", "-i", "--index-url", "--extra-index-url", "-f", "--find-links", "-c", "-t"})
"""Options of pip that take the next word."""
UNKNOWN = "{...}"


@dataclass(frozen=True, kw_only=True)
class InstallScript:
    """What a script names. Everything is printable ASCII.

    Attributes:
        packages: what it would have pip install, as written; `{...}` stands for what only a run knows.
        addresses: what it may download.
        requirements: requirement files that it mentions.
        unreadable: whether it could not be parsed.
    """

    packages: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    requirements: tuple[str, ...] = ()
    unreadable: bool = False


def parse(text: str) -> InstallScript:
    """What `text`, an `install.py` or its first `MAX_SIZE` bytes, would fetch."""
    tree = pythonsource.parse(text)
    if tree is None:
        return InstallScript(unreadable=True)
    # As they stand in the text, and not as deep as they are nested.
    nodes = sorted(ast.walk(tree), key=lambda node: (getattr(node, "lineno", 0), getattr(node, "col_offset", 0)))
    documented = {id(_docstring(node)) for node in nodes if isinstance(node, _DOCUMENTED)}
    strings = [
        n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str) and id(n) not in documented
    ]
    addresses = [match for value in strings for match in _ADDRESS.findall(value)]
    return InstallScript(
        packages=tuple(dict.fromkeys(word for node in nodes for word in _packages(node))),
        addresses=tuple(dict.fromkeys([*addresses, *(address for node in nodes for address in _of_hub(node))])),
        requirements=tuple(dict.fromkeys(match for value in strings for match in _FILES.findall(value))),
    )


_DOCUMENTED = (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def _docstring(node: ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> ast.expr | None:
    first = node.body[0] if node.body else None
    return first.value if isinstance(first, ast.Expr) else None


def _packages(node: ast.AST) -> Iterator[str]:
    """Arguments of `launch.run_pip("install PACKAGE", ...)` and its like, and of `[python, "-m", "pip", ...]`."""
    if isinstance(node, ast.Call) and _name(node.func) in _PIP and node.args:
        words = _text(node.args[0]).split()
    elif isinstance(node, ast.List | ast.Tuple):
        items = [_text(item) or UNKNOWN for item in node.elts]
        words = items[items.index("pip") + 1 :] if "pip" in items and "install" in items else []
    else:
        return
    yield from _wanted(words[1:] if words[:1] == ["install"] else words)


def _wanted(words: Sequence[str]) -> Iterator[str]:
    """Words that name packages."""
    for before, word in zip(["", *words], words, strict=False):
        if before not in _VALUES and not word.startswith("-") and not _FILES.search(word) and _WORD.fullmatch(word):
            yield word


def _of_hub(node: ast.AST) -> Iterator[str]:
    """Repositories that `huggingface_hub` would be asked for."""
    if isinstance(node, ast.Call) and _name(node.func) in _HUB:
        named = [keyword.value for keyword in node.keywords if keyword.arg == "repo_id"]
        repository = _text((*named, *node.args)[0]) if named or node.args else ""
        yield f"https://huggingface.co/{repository if _WORD.fullmatch(repository) else UNKNOWN}"


def _name(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _text(node: ast.expr) -> str:
    """A string as far as it is plain: `{...}` stands for what an f-string fills in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) if isinstance(part, ast.Constant) else UNKNOWN for part in node.values)
    return ""


_SHOWN = 8
_SHOWN_LENGTH = 120


def words(script: InstallScript) -> str:
    """What `script` would do, in words; empty where it fetches nothing. Addresses are shown without their secrets."""
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
