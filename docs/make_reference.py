"""Writes the tables of docs/declarations.md from the field descriptions in schema/, those of docs/lock.md from the
values that a lock holds, and that of docs/events.md.

    python docs/make_reference.py

Each table stands between `<!-- begin: Model -->` and `<!-- end: Model -->`; the rest of the page is
written by hand and left alone.
"""

from __future__ import annotations

import json
import re
from inspect import cleandoc
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from layerbuild import buckets, fields, lockmodel, model, schema
from layerbuild.cli.events import EVENTS, MEANINGS

PAGES = [Path(__file__).with_name(name) for name in ("declarations.md", "events.md", "lock.md")]

_TYPES: list[tuple[Any, str]] = [
    (fields.Hex64, "64 hex digits"),
    (fields.Commit, "40 hex digits"),
    (fields.Mode, "octal mode in quotes"),
    (fields.AbsolutePath, "absolute path"),
    (fields.Directory, "absolute path"),
    (fields.FilePath, "absolute path"),
    (fields.RelativePath, "relative path"),
    (fields.LinkTarget, "link target"),
    (fields.Suffix, "suffix"),
    (fields.LayerName, "name"),
    (fields.CheckoutName, "name or `*`"),
    (fields.Repository, "`ORG/NAME`"),
    (fields.Platform, "os/architecture"),
    (fields.EnvName, "name"),
    (fields.HeaderName, "name"),
    (fields.Mirror, "source"),
    (fields.Scalar, "text, number or boolean"),
    (str, "text"),
    (int, "number"),
    (bool, "boolean"),
]
"""Types of fields, and what to call them."""


def table(model: type[BaseModel]) -> str:
    """The table of a model's keys.

    Raises:
        ValueError: a field has no description.
    """
    hints = get_type_hints(model, include_extras=True)
    rows = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        if name == "kind":
            continue  # it is the heading
        if not field.description:
            raise ValueError(f"{model.__name__}.{name} has no description in schema/")
        cells = [f"`{field.alias or name}`", _type(hints[name]), _default(field), _plain(field.description)]
        rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(rows)


_LOCK: dict[str, tuple[type, ...]] = {
    "Lock": (lockmodel.Lock,),
    "LockedLayer": (lockmodel.LockedLayer,),
    "Pin": (model.Pin,),
    "PinnedFile": (model.PinnedFile, model.Content),
    "Facts": (model.Facts,),
    "Receipt": (model.Receipt,),
    "Blob": (model.Blob,),
    "LockedImage": (lockmodel.LockedImage,),
    "LockedBase": (lockmodel.LockedBase,),
    "Buckets": (buckets.Buckets,),
    "LockedIndex": (lockmodel.LockedIndex,),
}
"""Tables of the lock, and the values whose fields are written under one key there."""

_MAPPINGS = {("Pin", "headers")}
"""Fields of pairs that the lock writes as a mapping."""

_UNWRITTEN = {("Receipt", "key"), ("PinnedFile", "content")}
"""Fields that the lock does not write as keys: a section's own key, and what is written beside it."""


def lock_table(*values: type) -> str:
    """The table of what the lock writes of `values`.

    Raises:
        ValueError: a field is not described in its class's docstring.
    """
    rows = ["| key | value | meaning |", "|---|---|---|"]
    for value in values:
        told = _attributes(value)
        for name, hint in get_type_hints(value).items():
            if (value.__name__, name) in _UNWRITTEN:
                continue
            if name not in told:
                raise ValueError(f"{value.__name__}.{name} is not described under Attributes")
            kind = "mapping" if (value.__name__, name) in _MAPPINGS else _value(hint)
            rows.append(f"| `{name}` | {kind} | {_plain(told[name])} |")
    return "\n".join(rows)


def _attributes(value: type) -> dict[str, str]:
    """What a docstring says under `Attributes:`."""
    section = cleandoc(value.__doc__ or "").partition("Attributes:\n")[2]
    found = re.findall(r"^    (\w[\w, ]*): (.*(?:\n {5,}.*)*)", section, re.MULTILINE)
    return {name: " ".join(text.split()) for names, text in found for name in names.split(", ")}


def _value(hint: Any) -> str:
    """What a key of the lock holds, in a word."""
    parts = [part for part in get_args(hint) if part is not NoneType] if NoneType in get_args(hint) else [hint]
    origin = get_origin(parts[0])
    if origin is tuple:
        return "list"
    if parts[0] in (str, int, bool):
        return {str: "text", int: "number", bool: "boolean"}[parts[0]]
    return "mapping"


def events() -> str:
    """The table of events."""
    rows = ["| event | when | fields |", "|---|---|---|"]
    for name, found in EVENTS.items():
        told = [f"`{field}` {kind.rstrip('?-')}{_MARKS.get(kind[-1], '')}" for field, kind in found.items()]
        rows.append(f"| `{name}` | {MEANINGS[name]} | {', '.join(told)} |")
    return "\n".join(rows)


_MARKS = {"?": " or null", "-": ", may be absent"}


def _plain(text: str) -> str:
    """Text with what Markdown would take for markup escaped; code is left as it is."""
    parts = text.split("`")
    parts[::2] = [part.replace("<", "&lt;").replace("*", "\\*") for part in parts[::2]]
    return "`".join(parts)


def _type(hint: Any) -> str:
    for known, words in _TYPES:
        if hint == known:
            return words
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin is list:
        return f"list: {_type(arguments[0])}"
    if origin is dict:
        return f"mapping: {_type(arguments[0])} to {_type(arguments[1])}"
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return "mapping"
    if hasattr(hint, "__metadata__"):
        return _type(hint.__origin__)
    return " or ".join(dict.fromkeys(_type(part) for part in arguments if part is not NoneType))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None or isinstance(value, BaseModel) or value in ([], {}):
        return ""
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _named(name: str) -> str:
    """The table that a page asks for by this name."""
    if name == "events":
        return events()
    return lock_table(*_LOCK[name]) if name in _LOCK else table(getattr(schema, name))


def render(page: str) -> str:
    """`page` with every table made anew."""

    def fill(match: re.Match[str]) -> str:
        name = match[1]
        return f"<!-- begin: {name} -->\n{_named(name)}\n<!-- end: {name} -->"

    return re.sub(r"<!-- begin: (\w+) -->\n.*?<!-- end: \1 -->", fill, page, flags=re.DOTALL)


def main() -> None:
    """Rewrite the pages."""
    for page in PAGES:
        page.write_text(render(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
