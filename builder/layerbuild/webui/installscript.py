"""What an extension's `install.py` would install or download at a start, read and never run.

The webui runs each extension's `install.py` from `launch.py`. What such a script names in plain text
is found by parsing; what it puts together at run time is not.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

NAME = "install.py"

_ADDRESS = re.compile(r"https?://[^\s'\"<>]+")
_PIP = frozenset({"run_pip", "pip_install", "pip"})
_FILES = re.compile(r"requirements[\w.-]*\.txt")


@dataclass(frozen=True, kw_only=True)
class InstallScript:
    """What a script names.

    Attributes:
        packages: what it would have pip install, as written.
        addresses: what it may download.
        requirements: requirement files that it mentions.
        unreadable: whether it could not be parsed.
    """

    packages: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    requirements: tuple[str, ...] = ()
    unreadable: bool = False

    @property
    def idle(self) -> bool:
        """Whether it names nothing that a start would fetch."""
        return not (self.packages or self.addresses or self.requirements or self.unreadable)


def parse(text: str) -> InstallScript:
    """What `text`, an `install.py`, would fetch."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return InstallScript(unreadable=True)
    strings = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    documented = {ast.get_docstring(node, clean=False) for node in ast.walk(tree) if isinstance(node, _DOCUMENTED)}
    code = [text for text in strings if text not in documented]
    return InstallScript(
        packages=tuple(dict.fromkeys(_packages(tree))),
        addresses=tuple(dict.fromkeys(match for text in code for match in _ADDRESS.findall(text))),
        requirements=tuple(dict.fromkeys(match for text in code for match in _FILES.findall(text))),
    )


_DOCUMENTED = (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def _packages(tree: ast.AST) -> Iterator[str]:
    """Arguments of `launch.run_pip("install PACKAGE", ...)` and its like."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or _name(node.func) not in _PIP or not node.args:
            continue
        words = _text(node.args[0]).split()
        if words[:1] == ["install"]:
            words = words[1:]
        yield from (word for word in words if not word.startswith("-") and not _FILES.search(word))


def _name(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _text(node: ast.expr) -> str:
    """A string as far as it is plain: `{...}` stands for what an f-string fills in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) if isinstance(part, ast.Constant) else "{...}" for part in node.values)
    return ""
