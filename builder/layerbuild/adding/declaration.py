"""A layer's declaration as text: what `layerbuild add` writes into layers/. Pure."""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from layerbuild.errors import UsageError
from layerbuild.render import has_markup
from layerbuild.sources.base import words

_LONGEST_NAME = 60


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """One layer.

    Attributes:
        name: of the layer.
        values: its keys, in their order.
        comments: lines above it, without `#`; may hold anything that somebody else said.
    """

    name: str
    values: Mapping[str, Any]
    comments: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        """Where it comes from."""
        return str(self.values["source"])

    def text(self) -> str:
        """The declaration as YAML, ending with a newline.

        Raises:
            UsageError: a value would be rendered as a template.
        """
        for key, value in self.values.items():
            if has_markup_inside(value):
                raise UsageError(
                    f"the {key} of {self.name} has template markup in it",
                    cause="layerbuild would render {{ }} and {% %} in a declaration",
                    hint="give the file another name, and add it under that",
                )
        comments = "".join(f"# {words(line)}\n" for line in self.comments)
        return comments + as_yaml({self.name: dict(self.values)})


def has_markup_inside(value: Any) -> bool:
    """Whether any text in `value` would be rendered as a template."""
    return any(has_markup(text) for text in _texts(value))


def _texts(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return [text for item in value.items() for part in item for text in _texts(part)]
    return [text for item in value for text in _texts(item)] if isinstance(value, list) else [value]


def as_yaml(value: Any) -> str:
    """`value` in block style, one line for each text that fits on one."""
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=2**16))


class _Dumper(yaml.SafeDumper):
    """Indents lists below their keys, as people do, and repeats nothing by alias."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return True


def layer_name(text: str) -> str:
    """A name for a layer, made of a file's name or a title: lower case, without its extension."""
    stem, suffix = posixpath.splitext(posixpath.basename(text))
    stem = stem if re.fullmatch(r"\.[A-Za-z][A-Za-z0-9]{0,11}", suffix) else stem + suffix
    plain = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode().lower()
    name = re.sub(r"[^a-z0-9.+-]+", "-", plain.replace("_", "-"))
    return re.sub(r"-{2,}", "-", name)[:_LONGEST_NAME].strip("-.+") or "model"
