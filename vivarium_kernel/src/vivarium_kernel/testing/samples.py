"""The room of samples: an input made from its JSON Schema, the smallest that the schema lets through."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_DEEPEST = 8


def sample(schema: Mapping[str, Any], kinds: Mapping[str, Any] | None = None, depth: int = 0) -> Any:  # noqa: PLR0911
    """A value for a schema: of an object what it requires, of a list and a text as little as may be, the least number.

    What a pattern or a rule of the plugin's own wants is not known here: such an input is refused with its reason.
    """
    kinds = {**schema.get("$defs", {}), **(kinds or {})}
    if "$ref" in schema:
        found = kinds[schema["$ref"].rpartition("/")[2]]
        return sample(found, kinds, depth + 1) if depth < _DEEPEST else None
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for choices in (schema.get("anyOf"), schema.get("oneOf")):
        if choices:
            told = [each for each in choices if each.get("type") != "null"]
            return sample((told or choices)[0], kinds, depth + 1)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = next((each for each in kind if each != "null"), "null")
    match kind:
        case "object":
            fields = schema.get("properties", {})
            return {name: sample(fields[name], kinds, depth + 1) for name in schema.get("required", ())}
        case "array":
            first = schema.get("prefixItems", [])
            items = [sample(each, kinds, depth + 1) for each in first]
            wanted = schema.get("minItems", 0)
            inner = schema.get("items") or {}
            return items + [sample(inner, kinds, depth + 1) for _ in range(wanted - len(items))]
        case "string":
            text = _FORMATS.get(schema.get("format", ""), "sample")
            return text.ljust(schema.get("minLength", 0), "x")[: schema.get("maxLength")]
        case "integer" | "number":
            return _least(schema)
        case "boolean":
            return False
    return None


_FORMATS = {
    "date": "2026-01-01", "date-time": "2026-01-01T00:00:00+00:00", "time": "00:00:00+00:00", "duration": "PT1S",
    "uuid": "00000000-0000-4000-8000-000000000000",
}  # fmt: skip


def _least(schema: Mapping[str, Any]) -> int | float:
    """The least number that is allowed; 1 where nothing is said, or the most if that is less."""
    step = schema.get("multipleOf", 1)
    if "minimum" in schema:
        least: int | float = schema["minimum"]
    elif "exclusiveMinimum" in schema:
        least = schema["exclusiveMinimum"] + step
    else:
        top = schema.get("maximum", schema.get("exclusiveMaximum", 2) - step)
        least = min(1, top)
    return least if "multipleOf" not in schema else -(-least // step) * step
