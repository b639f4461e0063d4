"""`docs/openapi.json`, and a reader of the little of JSON Schema that it uses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DOCUMENT: dict[str, Any] = json.loads(Path("docs/openapi.json").read_text())

TYPES: dict[str, type | tuple[type, ...]] = {
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "string": str,
    "null": type(None),
    "array": list,
    "object": dict,
}


def schema(name: str) -> dict[str, Any]:
    found: dict[str, Any] = DOCUMENT["components"]["schemas"][name]
    return found


def strays(value: Any, of: dict[str, Any], path: str = "") -> Iterator[str]:
    """Name each place where `value` is not what the schema says; a key it lacks is one, too."""
    if "$ref" in of:
        of = schema(of["$ref"].rpartition("/")[2])
    types = of["type"] if isinstance(of["type"], list) else [of["type"]]
    fits = (
        isinstance(value, TYPES[name]) and not (name != "boolean" and isinstance(value, bool))
        for name in types
    )
    if not any(fits):
        yield f"{path}: {value!r} is none of {types}"
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from strays(item, of["items"], f"{path}[{index}]")
    elif isinstance(value, dict):
        known = of.get("properties", {})
        yield from (
            f"{path}.{key}: is missing" for key in of.get("required", ()) if key not in value
        )
        for key, item in value.items():
            below = known.get(key, of.get("additionalProperties"))
            if below is None:
                yield f"{path}.{key}: is not described"
            else:
                yield from strays(item, below, f"{path}.{key}")
