"""YAML as this project reads it: plain data, the line of every key, and nothing surprising.

YAML 1.1 through PyYAML's safe loader, narrowed: keys are strings, no key twice, and aliases may not
blow a small file up (the "billion laughs"). Errors name file, line and key.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from layerbuild.errors import Problem, ProjectError

_MAX_DEPTH = 64

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True, kw_only=True)
class Document:
    """A parsed file: its data, and where each key and item stands (1-based lines).

    `rewritten` holds the text of numbers that a string made of them would not repeat: 1.10 is 1.1.
    """

    file: str
    data: Any
    lines: Mapping[KeyPath, int]
    rewritten: Mapping[KeyPath, str] = field(default_factory=dict)

    def line(self, path: KeyPath) -> int | None:
        """The line of `path`, or of the nearest thing around it."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.lines:
                return self.lines[path[:end]]
        return None

    def problem(self, path: KeyPath, message: str, hint: str | None = None) -> Problem:
        """A problem at `path`, with its line."""
        key = ".".join(str(part) for part in path) or None
        return Problem(file=self.file, line=self.line(path), key=key, message=message, hint=hint)


def parse(text: str, file: str) -> Document:
    """Parse one document.

    Args:
        text: the file's text.
        file: its name, for messages.

    Raises:
        ProjectError: not YAML, or YAML that this project does not take.
    """
    try:
        _refuse_depth(text, file)
        loader = _BaseLoader(text)
        try:
            root = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else None
        message = " ".join(part for part in (error.context, error.problem) if part)
        raise ProjectError([Problem(file=file, line=line, message=f"not valid YAML: {message}")]) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        first = str(error).partition("\n")[0]
        raise ProjectError([Problem(file=file, message=f"not valid YAML: {first}")]) from None
    reader = _Reader(file, limit=len(text) + 1)
    data = None if root is None else reader.read(root, ())
    if reader.problems:
        raise ProjectError(reader.problems)
    return Document(file=file, data=data, lines=reader.lines, rewritten=reader.rewritten)


def load(path: Path, name: str) -> Document:
    """Read and parse `path`, called `name` in messages."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ProjectError([Problem(file=name, message="not UTF-8 text")]) from None
    except OSError as error:
        raise ProjectError([Problem(file=name, message=f"cannot be read: {error.strerror}")]) from None
    return parse(text, name)


_BaseLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


_PLAIN_TAGS = frozenset({"tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"})


def _refuse_depth(text: str, file: str) -> None:
    """Before anything recurses: libyaml's own composer ends the process when nesting exhausts the stack."""
    depth = 0
    for event in yaml.parse(text, Loader=_BaseLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _MAX_DEPTH:
                line = event.start_mark.line + 1 if event.start_mark else None
                message = f"nested more than {_MAX_DEPTH} levels deep"
                raise ProjectError([Problem(file=file, line=line, message=message, hint="flatten it")])
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


class _Stop(Exception):
    """The document is beyond reading further."""


class _Reader:
    """Turns YAML nodes into data, keeping lines."""

    def __init__(self, file: str, *, limit: int) -> None:
        # Without aliases every node costs at least one character; with honest ones, hardly less.
        self._limit = limit
        self.file = file
        self.lines: dict[KeyPath, int] = {}
        self.rewritten: dict[KeyPath, str] = {}
        self.problems: list[Problem] = []
        self._nodes = 0
        self._scalars = yaml.constructor.SafeConstructor()

    def read(self, node: yaml.Node, path: KeyPath) -> Any:
        try:
            return self._read(node, path)
        except _Stop:
            return None

    def _fail(self, node: yaml.Node, path: KeyPath, message: str, hint: str | None = None) -> None:
        key = ".".join(str(part) for part in path) or None
        line = node.start_mark.line + 1
        self.problems.append(Problem(file=self.file, line=line, key=key, message=message, hint=hint))

    def _read(self, node: yaml.Node, path: KeyPath) -> Any:
        self._nodes += 1
        if self._nodes > self._limit or len(path) > _MAX_DEPTH:
            self._fail(
                node, path[:4], "too large once its aliases are expanded", "write the values out, or split the file"
            )
            raise _Stop
        self.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.CollectionNode) and node.tag not in _PLAIN_TAGS:
            self._fail(node, path, f"the tag {node.tag!r} means nothing here", "remove the tag")
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._read(item, (*path, i)) for i, item in enumerate(node.value)]
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        merged: list[Any] = []
        for key_node, value_node in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                value = self._read(value_node, (*path, "<<"))
                merged += value if isinstance(value, list) else [value]
                continue
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag != "tag:yaml.org,2002:str":
                shown = key_node.value if isinstance(key_node, yaml.ScalarNode) else "?"
                self._fail(key_node, path, f"the key {shown!r} is not a string", "put it in quotes")
                continue
            name = key_node.value
            here: KeyPath = (*path, name)
            if name in result:
                self._fail(key_node, here, f"this key already stands in line {self.lines[here]}", "remove one of them")
                continue
            self.lines[here] = key_node.start_mark.line + 1
            result[name] = self._read(value_node, here)
        for other in merged:
            if isinstance(other, dict):
                result = {**other, **result}
            else:
                self._fail(node, path, "'<<' takes a mapping")
        return result

    def _scalar(self, node: yaml.Node, path: KeyPath) -> Any:
        try:
            value = self._scalars.construct_object(node, deep=True)
        except (yaml.YAMLError, ValueError, KeyError) as error:
            problem = getattr(error, "problem", None) or str(error)
            self._fail(node, path, f"not a plain value: {problem}", "use strings, numbers, true, false or null")
            return None
        if isinstance(value, float) and not math.isfinite(value):
            self._fail(node, path, f"{node.value!r} is no finite number", "write a number, or put it in quotes")
            return None
        if _loses_text(node.value, value):
            self.rewritten[path] = node.value
        if isinstance(value, str | int | float | bool) or value is None:
            return value
        # A date or binary: nobody writes one here on purpose.
        self._fail(node, path, f"{node.value!r} is read as a {type(value).__name__}", "put it in quotes")
        return None


def _loses_text(text: str, value: Any) -> bool:
    """Whether a number is written in a way that a string made of it would not repeat: 1.10, 0755, 1:30."""
    if isinstance(value, bool):
        return False
    return (isinstance(value, int) and str(value) != text) or (
        isinstance(value, float) and re.fullmatch(r"[-+]?[0-9]+\.[0-9]+", text) is not None and str(value) != text
    )
