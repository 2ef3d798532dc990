"""The page: one HTML file with its data, style and script in it, which may load nothing.

Names come from files that others wrote. What the template writes is escaped, what the scripts write goes in as text;
the data stands in a block that no name can close, and a Content-Security-Policy (level 3) lets nothing run but the
page's own script, by its hash.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any

import jinja2

_SCRIPTS = ("base.js", "table.js", "rows.js", "matrix.js", "pulls.js", "sections.js")
"""In this order: each uses what those before it define."""

_UNSAFE = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}
"""What could end a block of data, or a line of it, in the eyes of an HTML parser."""


def render(data: Mapping[str, Any], size: Callable[[int | None], str]) -> str:
    """The page.

    Args:
        data: as `values.Report.as_json` gives it.
        size: bytes for people.
    """
    style, script = _part("report.css"), _script()
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["size"] = size
    return environment.from_string(_part("report.html.j2")).render(
        data=data,
        saved=data["totals"]["separate"] - data["totals"]["stored"],
        # CSP hashes are of the very bytes between the tags.
        policy=f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'",
        style=style,
        script=script,
        json=_json(data),
    )


def _part(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _script() -> str:
    body = "\n".join(_part(name) for name in _SCRIPTS)
    return f'"use strict";\n(() => {{\n{body}}})();\n'


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True).translate(_UNSAFE)
