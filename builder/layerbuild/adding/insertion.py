"""Puts something into a YAML file that a person wrote, and leaves every other byte as it is. Pure.

Text is inserted, and the result is parsed again: it must be what was there before, with the addition and
nothing else. Where no place in a file fits (a flow mapping, a document that is closed), nothing is done.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from layerbuild import yamlfile
from layerbuild.adding.declaration import as_yaml
from layerbuild.errors import ProjectError


def with_entries(text: str, path: Sequence[str], entries: dict[str, Any], block: str | None = None) -> str | None:
    """`text` with `entries` at the end of the mapping at `path`, which is made where it is not there.

    Args:
        block: the entries as YAML, with comments; for an empty path only.

    Returns:
        The new text, None where no place for them is found.
    """
    written = block if block is not None and not path else as_yaml(entries)
    return _first_right(text, _mapping_candidates(text, path, written), lambda data: _merged(data, path, entries))


def with_item(text: str, key: str, item: str) -> str | None:
    """`text` with `item` at the end of the list under `key`, which is made where it is not there; None where no
    place for it is found."""
    return _first_right(text, _item_candidates(text, key, item), lambda data: _appended(data, key, item))


def _first_right(text: str, candidates: Iterator[str], change: Any) -> str | None:
    """The first candidate that means what `change` makes of the data of `text`."""
    wanted = change(yamlfile.parse(text, "").data)
    for candidate in candidates:
        try:
            found = yamlfile.parse(candidate, "").data
        except ProjectError:
            continue
        # Text, because 1 == True == 1.0, and the order counts too.
        if wanted is not None and repr(found) == repr(wanted):
            return candidate
    return None


def _merged(data: Any, path: Sequence[str], entries: dict[str, Any]) -> Any:
    if data is not None and not isinstance(data, dict):
        return None
    if path:
        inner = _merged((data or {}).get(path[0]), path[1:], entries)
        return None if inner is None else {**(data or {}), path[0]: inner}
    return None if set(entries) & set(data or {}) else {**(data or {}), **entries}


def _appended(data: Any, key: str, item: str) -> Any:
    before = data.get(key) if isinstance(data, dict) else None
    if not isinstance(data, dict) or not (before is None or isinstance(before, list)):
        return None
    return {**data, key: [*(before or []), item]}


def _mapping_candidates(text: str, path: Sequence[str], written: str) -> Iterator[str]:
    root = _composed(text)
    node, missing = _found(root, path)
    for name in reversed(missing):
        written = f"{name}:\n{_indented(written, 2)}"
    if node is None or node is root:
        yield from _at_end(text, written, node)
    elif isinstance(node, yaml.MappingNode) and node.value and not node.flow_style:
        yield _after(text, node, _indented(written, node.start_mark.column))
    elif isinstance(node, yaml.MappingNode) and node.flow_style:
        flow = yaml.safe_dump(yaml.safe_load(written), default_flow_style=True, width=2**16, sort_keys=False).strip()
        yield _into_flow(text, node, flow[1:-1])


def _item_candidates(text: str, key: str, item: str) -> Iterator[str]:
    root = _composed(text)
    node, missing = _found(root, [key])
    scalar = as_yaml([item]).strip().removeprefix("- ")
    if missing:
        yield from _at_end(text, f"{key}:\n  - {scalar}\n", root)
    elif isinstance(node, yaml.SequenceNode) and node.value and not node.flow_style:
        yield _after(text, node, f"{' ' * node.start_mark.column}- {scalar}\n")
    elif isinstance(node, yaml.SequenceNode) and node.flow_style:
        yield _into_flow(text, node, scalar)
    elif isinstance(node, yaml.ScalarNode) and not node.value:
        end = node.end_mark.index
        yield f"{text[:end]} [{scalar}]{text[end:]}"


def _composed(text: str) -> Any:
    return yaml.compose(text, Loader=yaml.SafeLoader)


def _found(root: Any, path: Sequence[str]) -> tuple[Any, list[str]]:
    """The node at `path`, or the nearest one above it, with the part of the path that is not there."""
    node, rest = root, list(path)
    while rest and isinstance(node, yaml.MappingNode):
        below = next((value for name, value in node.value if name.value == rest[0]), None)
        if below is None:
            break
        node = below
        rest.pop(0)
    return node, rest


def _at_end(text: str, written: str, root: Any) -> Iterator[str]:
    """At the end of the file, after an empty line, or without one where that would belong to a text before it."""
    written = _indented(written, root.start_mark.column if isinstance(root, yaml.MappingNode) else 0)
    end = _line_end(text)
    written = written.replace("\n", end)
    whole = text if not text or text.endswith("\n") else text + end
    if whole.strip():
        yield whole + end + written
    yield whole + written


def _after(text: str, node: Any, written: str) -> str:
    """After the line in which the last value of a block ends."""
    last = node.value[-1][1] if isinstance(node, yaml.MappingNode) else node.value[-1]
    while isinstance(last, yaml.CollectionNode) and last.value and not last.flow_style:
        last = last.value[-1][1] if isinstance(last, yaml.MappingNode) else last.value[-1]
    end = last.end_mark.index
    if end and text[end - 1] == "\n":
        place = end  # a block scalar ends behind its line
    else:
        newline = text.find("\n", end)
        place = len(text) if newline < 0 else newline + 1
    before = text[:place]
    before = before if before.endswith("\n") else before + _line_end(text)
    return before + written.replace("\n", _line_end(text)) + text[place:]


def _into_flow(text: str, node: Any, written: str) -> str:
    """Before the bracket that closes a flow collection, behind its last value."""
    if not node.value:
        place = node.start_mark.index + 1
        return text[:place] + written + text[place:]
    last = node.value[-1][1] if isinstance(node, yaml.MappingNode) else node.value[-1]
    place = last.end_mark.index
    return f"{text[:place]}, {written}{text[place:]}"


def _indented(text: str, columns: int) -> str:
    return "".join(" " * columns + line if line.strip() else line for line in text.splitlines(keepends=True))


def _line_end(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"
