"""The checkouts that a webui's launch script makes below `repositories/`, read by parsing, never run.

AUTOMATIC1111's webui and its forks name them in `modules/launch_utils.py`, releases before 1.2 in
`launch.py`: an address and a commit each, as the default of a variable of the environment, and then

    git_clone(some_repo, repo_dir("NAME"), "title", some_commit_hash)

Names are followed through assignments of plain texts only. What is put together in another way is an
error that names the line.
"""

from __future__ import annotations

import ast
import re
from collections import ChainMap
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from layerbuild.errors import SourceError
from layerbuild.paths import unsafe_reason
from layerbuild.webui import pythonsource

NAMES = ("modules/launch_utils.py", "launch.py")
"""Where the script is: the first of them that clones anything."""

MAX_SIZE = pythonsource.MAX_SIZE

_ADDRESS = re.compile(r"https?://[A-Za-z0-9._~:/%-]+")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_DIRECTORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_MOST = 64
_HINT = "name the webui's checkouts under 'repositories' instead of 'auto'"

Scope = Mapping[str, list[ast.expr]]
"""What is assigned to each name."""


@dataclass(frozen=True, kw_only=True)
class _Clone:
    """A call of `git_clone` in the function whose assignments are in `scope`."""

    call: ast.Call
    scope: Scope


def checkouts(text: str, name: str, *, what: str, known: Collection[str] = ()) -> dict[str, str] | None:
    """Directory -> git source with its commit, of every checkout; None where the script clones nothing.

    Args:
        text: the script.
        name: its path in the tree, for messages.
        what: the tree, for messages.
        known: directories of which nothing need be read: their sources are known from elsewhere.

    Raises:
        SourceError: the script cannot be parsed, or does not say plainly what it clones.
    """
    tree = pythonsource.parse(text)
    if tree is None:
        raise SourceError(f"{name} of {what} cannot be parsed as Python", hint=_HINT)
    clones = _clones(tree)
    found: dict[str, str] = {}
    for clone in clones:
        where = f"{name} of {what}, line {clone.call.lineno}"
        directory = _directory(clone, where)
        if directory not in known and found.setdefault(directory, source := _source(clone, where)) != source:
            raise _unclear(where, f"it clones {directory} a second time, from elsewhere")
        if len(found) > _MOST:
            raise _unclear(where, f"it makes more than {_MOST} checkouts")
    return found if clones else None


def _clones(tree: ast.Module) -> list[_Clone]:
    """Every call of `git_clone`, in the order of lines, once."""
    outer = _assigned(tree)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    found: dict[int, _Clone] = {}
    # The innermost function comes last, and its names go before those around it.
    for scope, body in ((outer, tree), *((ChainMap(_assigned(f), outer), f) for f in functions)):
        for node in ast.walk(body):
            if isinstance(node, ast.Call) and _called(node) == "git_clone":
                found[id(node)] = _Clone(call=node, scope=scope)
    return sorted(found.values(), key=lambda clone: (clone.call.lineno, clone.call.col_offset))


def _assigned(body: ast.Module | ast.FunctionDef | ast.AsyncFunctionDef) -> dict[str, list[ast.expr]]:
    """What is assigned to names directly in a body: in its branches too, and not in functions within it."""
    found: dict[str, list[ast.expr]] = {}
    stack: list[ast.AST] = list(body.body)
    while stack:
        node = stack.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            continue
        if isinstance(node, ast.Assign):
            for target in node.targets:
                for name in ast.walk(target):
                    if isinstance(name, ast.Name):
                        # What is unpacked is not known: the name stands for itself, which is nothing plain.
                        found.setdefault(name.id, []).append(node.value if target is name else name)
        elif isinstance(node, ast.AnnAssign | ast.AugAssign | ast.NamedExpr) and isinstance(node.target, ast.Name):
            plain = isinstance(node, ast.AnnAssign | ast.NamedExpr) and node.value is not None
            found.setdefault(node.target.id, []).append(node.value if plain and node.value else node.target)
        stack += ast.iter_child_nodes(node)
    return found


def _directory(clone: _Clone, where: str) -> str:
    target = _argument(clone.call, 1, "dir")
    if not (isinstance(target, ast.Call) and _called(target) == "repo_dir" and len(target.args) == 1):
        raise _unclear(where, "it clones to a place that is not repo_dir('NAME')")
    name = _text(target.args[0], clone.scope)
    if name is None or not _DIRECTORY.fullmatch(name) or unsafe_reason(name):
        raise _unclear(where, "the name of the directory is no plain text")
    return name


def _source(clone: _Clone, where: str) -> str:
    url = _text(_argument(clone.call, 0, "url"), clone.scope)
    commit = _text(_argument(clone.call, 3, "commithash"), clone.scope)
    if url is None or not _ADDRESS.fullmatch(url):
        raise _unclear(where, "the address is no plain https:// text")
    if commit is None or not _COMMIT.fullmatch(commit):
        raise _unclear(where, "the commit is no plain text of 40 hex digits")
    return f"git+{url}@{commit}"


def _argument(call: ast.Call, position: int, name: str) -> ast.expr | None:
    named = next((keyword.value for keyword in call.keywords if keyword.arg == name), None)
    if any(isinstance(argument, ast.Starred) for argument in call.args):
        return None
    return named or (call.args[position] if len(call.args) > position else None)


def _text(value: ast.expr | None, scope: Scope) -> str | None:
    """The one text that an expression stands for; None where it stands for none, or for several."""
    seen: set[str] = set()
    while isinstance(value, ast.Name) and value.id not in seen:
        seen.add(value.id)
        assigned = scope.get(value.id, [])
        plain = {_plain(v) for v in assigned}
        if len(assigned) > 1:
            return plain.pop() if len(plain) == 1 else None
        value = assigned[0] if assigned else None
    return _plain(value)


def _plain(value: ast.expr | None) -> str | None:
    """A plain text, or the default of a variable of the environment."""
    if isinstance(value, ast.Call) and _called(value) in ("get", "getenv") and _reads_environment(value):
        value = value.args[1] if len(value.args) == 2 and not value.keywords else None
    return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else None


def _reads_environment(call: ast.Call) -> bool:
    """`os.environ.get(...)`, `environ.get(...)` or `os.getenv(...)`."""
    function = call.func
    if isinstance(function, ast.Attribute) and function.attr == "get":
        owner = function.value
        return (owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")) == "environ"
    return True


def _called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _unclear(where: str, cause: str) -> SourceError:
    return SourceError(f"{where}: the checkout cannot be read", cause=cause, hint=_HINT)
