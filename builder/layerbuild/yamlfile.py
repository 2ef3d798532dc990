"""YAML as this project reads it: plain data, the line of every key, and nothing surprising.

YAML 1.1 through PyYAML's safe loader, narrowed: keys are strings, no key twice, and aliases may not
blow a small file up (the "billion laughs"). Errors name file, line and key.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from layerbuild.errors import Problem, ProjectError
from layerbuild.yamlevents import Events, Excess, broken, deeper

_MAX_DEPTH = 64

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True, kw_only=True)
class Document:
    """A parsed file: its data, and its text, which tells where each key and item stands.

    `rewritten` holds the text of numbers that a string made of them would not repeat: 1.10 is 1.1.
    """

    file: str
    data: Any
    text: str = field(repr=False)
    rewritten: Mapping[KeyPath, str] = field(default_factory=dict)

    @cached_property
    def lines(self) -> Mapping[KeyPath, int]:
        """The 1-based line of every key and item. Read when somebody asks: those of a sound file never are."""
        lines: dict[KeyPath, int] = {}
        _Reader(self.text, self.file, lines=lines).document()
        return lines

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


_YAML = "look at the indentation, the quotes and the brackets there, and in the line before"


def parse(text: str, file: str) -> Document:
    """Parse one document.

    Args:
        text: the file's text.
        file: its name, for messages.

    Raises:
        ProjectError: not YAML, or YAML that this project does not take.
    """
    reader = _Reader(text, file)
    try:
        data = reader.document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else None
        message = " ".join(part for part in (error.context, error.problem) if part)
        raise ProjectError([Problem(file=file, line=line, message=f"not valid YAML: {message}", hint=_YAML)]) from None
    except (yaml.YAMLError, ValueError) as error:
        first = str(error).partition("\n")[0]
        raise ProjectError([Problem(file=file, message=f"not valid YAML: {first}", hint=_YAML)]) from None
    if reader.problems:
        raise ProjectError(reader.problems)
    return Document(file=file, data=data, text=text, rewritten=reader.rewritten)


def load(path: Path, name: str) -> Document:
    """Read and parse `path`, called `name` in messages."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ProjectError([Problem(file=name, message="not UTF-8 text", hint="save it as UTF-8")]) from None
    except OSError as error:
        raise ProjectError(
            [Problem(file=name, message=f"cannot be read: {error.strerror}", hint="check who may read it")]
        ) from None
    return parse(text, name)


_TEXT = "tag:yaml.org,2002:str"
_MERGE = "tag:yaml.org,2002:merge"
_PLAIN_TAGS = frozenset({None, "!", "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"})


class _Reader:
    """Turns the text of one document into data.

    Args:
        lines: is given the line of every path, unless it is None.
    """

    def __init__(self, text: str, file: str, *, lines: dict[KeyPath, int] | None = None) -> None:
        self._events = Events(text)
        self._lines = lines
        self.file = file
        self.rewritten: dict[KeyPath, str] = {}
        self.problems: list[Problem] = []
        self._scalars = yaml.constructor.SafeConstructor()
        self._texts: dict[str, str] = {}

    def document(self) -> Any:
        """The data; None where the text holds none, or cannot be read to its end.

        Raises:
            yaml.YAMLError: not YAML.
        """
        try:
            return self._document()
        except Excess as stop:
            self._fail(stop.event, (), *stop.args)
            return None
        finally:
            self._events.close()

    def _document(self) -> Any:
        self._events.next()  # the stream's start
        if isinstance(self._events.next(), yaml.StreamEndEvent):
            return None
        data = self._read(self._events.next(), ())
        self._events.next()  # the document's end
        event = self._events.next()
        if not isinstance(event, yaml.StreamEndEvent):
            raise broken(event, "expected a single document in the stream but found another document")
        return data

    def _fail(self, event: Any, path: KeyPath, message: str, hint: str | None = None) -> None:
        key = ".".join(str(part) for part in path) or None
        line = event.start_mark.line + 1
        self.problems.append(Problem(file=self.file, line=line, key=key, message=message, hint=hint))

    def _read(self, event: Any, path: KeyPath) -> Any:
        if self._lines is not None:
            self._lines.setdefault(path, event.start_mark.line + 1)
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event, path)
        if len(path) >= _MAX_DEPTH:
            raise Excess(event, f"nested more than {_MAX_DEPTH} levels deep", "flatten it")
        if event.tag not in _PLAIN_TAGS:
            self._fail(event, path, f"the tag {event.tag!r} means nothing here", "remove the tag")
            self._skip()
            return None
        return self._mapping(event, path) if isinstance(event, yaml.MappingStartEvent) else self._sequence(path)

    def _skip(self) -> None:
        """To the end of a collection that has begun."""
        depth = 1
        while depth:
            depth += deeper(self._events.next())

    def _sequence(self, path: KeyPath) -> list[Any]:
        result: list[Any] = []
        while not isinstance(event := self._events.next(), yaml.SequenceEndEvent):
            result.append(self._read(event, (*path, len(result))))
        return result

    def _mapping(self, start: yaml.Event, path: KeyPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        lines: dict[str, int] = {}
        merged: list[Any] = []
        while not isinstance(key := self._events.next(), yaml.MappingEndEvent):
            tag = _tag(key)
            if tag == _MERGE:
                value = self._read(self._events.next(), (*path, "<<"))
                merged += value if isinstance(value, list) else [value]
                continue
            name = self._name(key, tag, path, lines)
            if name is None:
                self._pass_over()
                continue
            here: KeyPath = (*path, name)
            lines[name] = key.start_mark.line + 1
            if self._lines is not None:
                self._lines[here] = lines[name]
            result[name] = self._read(self._events.next(), here)
        for other in merged:
            if isinstance(other, dict):
                result = {**other, **result}
            else:
                self._fail(start, path, "'<<' takes a mapping", "name a mapping with an anchor: <<: *NAME")
        return result

    def _name(self, key: Any, tag: str | None, path: KeyPath, lines: Mapping[str, int]) -> str | None:
        """A key that can be used, None where it cannot."""
        if tag != _TEXT:
            shown = key.value if isinstance(key, yaml.ScalarEvent) else "?"
            self._fail(key, path, f"the key {shown!r} is not a string", "put it in quotes")
            if not isinstance(key, yaml.ScalarEvent):
                self._skip()
            return None
        name = self._texts.setdefault(key.value, key.value)
        if name in lines:
            message = f"this key already stands in line {lines[name]}"
            self._fail(key, (*path, name), message, "remove one of them")
            return None
        return name

    def _pass_over(self) -> None:
        """A value that nobody wants."""
        if not isinstance(self._events.next(), yaml.ScalarEvent):
            self._skip()

    def _scalar(self, event: Any, path: KeyPath) -> Any:
        tag = _tag(event)
        if tag == _TEXT:
            # Names and digests come up again and again: each is held once.
            return self._texts.setdefault(event.value, event.value)
        try:
            node = yaml.ScalarNode(str(tag), event.value, event.start_mark, event.end_mark)
            value = self._scalars.construct_object(node, deep=True)
        except (yaml.YAMLError, ValueError, LookupError, AttributeError) as error:
            # The last two: PyYAML on a tag that does not fit its text.
            problem = getattr(error, "problem", None) or str(error)
            self._fail(event, path, f"not a plain value: {problem}", "use strings, numbers, true, false or null")
            return None
        if isinstance(value, float) and not math.isfinite(value):
            self._fail(event, path, f"{event.value!r} is no finite number", "write a number, or put it in quotes")
            return None
        if _loses_text(event.value, value):
            self.rewritten[path] = event.value
        if isinstance(value, str | int | float | bool) or value is None:
            return value
        # A date or binary: nobody writes one here on purpose.
        self._fail(event, path, f"{event.value!r} is read as a {type(value).__name__}", "put it in quotes")
        return None


def _tag(event: Any) -> str | None:
    """What a scalar is by YAML 1.1, None for what is no scalar."""
    if not isinstance(event, yaml.ScalarEvent):
        return None
    if event.tag not in (None, "!"):
        return str(event.tag)
    if event.implicit[0]:
        for tag, pattern in _IMPLICIT.get(event.value[:1], ()):
            if pattern.match(event.value):
                return str(tag)
    return _TEXT


_IMPLICIT: Mapping[str, list[tuple[str, re.Pattern[str]]]] = yaml.SafeLoader.yaml_implicit_resolvers
"""By their first character, what plain scalars other than text look like."""


def _loses_text(text: str, value: Any) -> bool:
    """Whether a number is written in a way that a string made of it would not repeat: 1.10, 0755, 1:30."""
    if isinstance(value, bool):
        return False
    return (isinstance(value, int) and str(value) != text) or (
        isinstance(value, float) and re.fullmatch(r"[-+]?[0-9]+\.[0-9]+", text) is not None and str(value) != text
    )
