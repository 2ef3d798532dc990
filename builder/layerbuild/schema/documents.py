"""JSON Schema of declarations, for editors."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from layerbuild.fields import LayerName
from layerbuild.schema.layers import Layer
from layerbuild.schema.recipe import Recipe


def json_schema(what: Literal["layers", "recipe"]) -> dict[str, Any]:
    """JSON Schema (2020-12) of a layers file or a recipe, for editors.

    Where Jinja2 may give the value, markup is as good as the value itself.
    """
    if what == "recipe":
        schema = Recipe.model_json_schema()
        schema["title"] = "layerbuild recipe"
    else:
        from pydantic import RootModel  # noqa: PLC0415  # only this command needs it

        class Layers(RootModel[dict[LayerName, Annotated[Layer, Field(discriminator="kind")]]]):
            """Layer declarations by name."""

        schema = Layers.model_json_schema()
        schema["title"] = "layerbuild layers"
    schema["$defs"] = {name: _or_markup(definition) for name, definition in schema.get("$defs", {}).items()}
    if what == "recipe":
        schema["properties"] = {name: _or_markup(value) for name, value in schema["properties"].items()}
    else:
        schema["additionalProperties"] = False
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


_MARKUP = r"\{\{|\{%"


def _or_markup(node: Any) -> Any:
    """A JSON Schema that also takes markup wherever it narrows text, a number or a key."""
    if not isinstance(node, dict):
        return [_or_markup(item) for item in node] if isinstance(node, list) else node
    if "pattern" in node or "enum" in node or node.get("type") in ("integer", "number", "boolean"):
        about = {key: node[key] for key in ("title", "description", "default") if key in node}
        rule = {key: value for key, value in node.items() if key not in about}
        return {**about, "anyOf": [rule, {"type": "string", "pattern": _MARKUP}]}
    result = {
        key: {name: _or_markup(v) for name, v in value.items()} if key == "properties" else _or_markup(value)
        for key, value in node.items()
        if key != "default"
    }
    if "patternProperties" in node:
        patterns = result["patternProperties"]
        patterns[_MARKUP] = next(iter(patterns.values()))
        result["additionalProperties"] = False
    return result | ({"default": node["default"]} if "default" in node else {})
