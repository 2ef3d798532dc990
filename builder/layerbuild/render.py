"""Jinja2 in string values: sandboxed, and a name that nobody defined is an error.

YAML is parsed first and only strings are rendered, so that a declaration stays valid YAML, keeps
its line numbers, and can be read by an editor.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
import jinja2.meta
import jinja2.sandbox
from jinja2 import nodes

from layerbuild.errors import Problem
from layerbuild.yamlfile import Document, KeyPath

_MARKS = ("{{", "{%", "{#")


def has_markup(value: Any) -> bool:
    """Whether `value` is a string that Jinja2 would change."""
    return isinstance(value, str) and "{" in value and any(mark in value for mark in _MARKS)


@lru_cache(maxsize=32)
def _environment(directory: Path | None) -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(directory) if directory else None
    environment = jinja2.sandbox.SandboxedEnvironment(
        loader=loader,
        undefined=jinja2.StrictUndefined,
        autoescape=False,
        keep_trailing_newline=True,
        finalize=_printable,
    )
    # The same declaration gives the same text.
    del environment.globals["lipsum"], environment.filters["random"]
    return environment


def _printable(value: Any) -> Any:
    """Refuses what would print a memory address, and a null that would print as `None`."""
    if isinstance(value, str | int | float | jinja2.Undefined):
        return value
    raise TypeError(f"{{{{ }}}} gives a {type(value).__name__}, and only text and numbers can be written")


@lru_cache(maxsize=4096)
def _compiled(text: str) -> jinja2.Template:
    return _environment(None).from_string(text)


@lru_cache(maxsize=4096)
def _references(text: str) -> frozenset[str]:
    tree = _environment(None).parse(text)
    undeclared = jinja2.meta.find_undeclared_variables(tree)
    whole = Counter(node.name for node in tree.find_all(nodes.Name))
    found = set()
    for node in tree.find_all(nodes.Getattr):
        if isinstance(node.node, nodes.Name):
            whole[node.node.name] -= 1
            found.add((node.node.name, node.attr))
    attributes = {f"{name}.{attribute}" for name, attribute in found if name in undeclared}
    return frozenset(attributes | {name for name in undeclared if whole[name] > 0})


def strings(value: Any) -> Iterator[str]:
    """Every string in nested data, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)


def references(value: Any) -> set[str]:
    """What the strings in `value` refer to: `name`, or `name.attribute` where only that is used of it.

    Strings that do not parse refer to nothing: rendering them says what is wrong.
    """
    found: set[str] = set()
    for text in strings(value):
        if has_markup(text):
            try:
                found |= _references(text)
            except jinja2.TemplateError:
                continue
    return found


def render_data(
    value: Any, context: Mapping[str, Any], report: Callable[[KeyPath, str, str | None], None], path: KeyPath = ()
) -> Any:
    """`value` with every string rendered, keys included.

    Args:
        report: is told path, message and hint of each string that cannot be rendered.
    """
    if isinstance(value, dict):
        result: dict[str, Any] = {}
        for key, item in value.items():
            name = _render(key, context, report, (*path, key)) if has_markup(key) else key
            if name in result:
                report((*path, key), f"there is another key {name!r} once both are rendered", "remove one of them")
            result[name] = render_data(item, context, report, (*path, key))
        return result
    if isinstance(value, list):
        return [render_data(item, context, report, (*path, i)) for i, item in enumerate(value)]
    return _render(value, context, report, path) if has_markup(value) else value


def _render(
    text: str, context: Mapping[str, Any], report: Callable[[KeyPath, str, str | None], None], path: KeyPath
) -> str:
    try:
        return _compiled(text).render(context)
    except jinja2.TemplateError as error:
        report(path, *_explain(error, context))
    except _RUNTIME as error:
        report(path, f"the template fails: {error}", None)
    return text


_RUNTIME = (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError, MemoryError)
"""What an expression in a template can raise by itself, e.g. `{{ 1 / 0 }}`."""


def _explain(error: jinja2.TemplateError, context: Mapping[str, Any]) -> tuple[str, str | None]:
    if isinstance(error, jinja2.UndefinedError):
        known = ", ".join(sorted(context)) or "none"
        return f"{error.message}", f"define it under 'matrix' or 'vars' of the recipe; defined here: {known}"
    return f"not a valid template: {error.message}", "see the Jinja2 manual; {{ and {% begin an expression"


def render_file(
    directory: Path, name: str, context: Mapping[str, Any], document: Document, path: KeyPath
) -> str | Problem:
    """The text of template `name` below `directory`, rendered; or what is wrong, placed at `path`.

    Includes and imports stay below `directory`.
    """
    try:
        return _environment(directory).get_template(name).render(context)
    except jinja2.TemplateNotFound as error:
        return document.problem(
            path, f"no template {error.name!r} beside the declaration", f"create {directory.name}/{error.name}"
        )
    except jinja2.TemplateSyntaxError as error:
        return document.problem(path, f"template {error.name or name}, line {error.lineno}: {error.message}")
    except jinja2.TemplateError as error:
        message, hint = _explain(error, context)
        return document.problem(path, f"template {name}: {message}", hint)
    except (*_RUNTIME, UnicodeError, OSError) as error:
        return document.problem(path, f"template {name} fails: {error}")
