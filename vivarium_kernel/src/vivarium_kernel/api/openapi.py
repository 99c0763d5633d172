"""The room of the API's own description: OpenAPI 3.1, made from the routes and their attrs types.

``docs/openapi.json`` is this page without any plugin's actions; write it again with
``uv run python -m vivarium_kernel.api docs/openapi.json``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import msgspec

from vivarium_kernel.actions import Action, input_schema
from vivarium_kernel.api import roles
from vivarium_kernel.api.operations import JSON, KEY_HEADER, NUMBERS, Operation
from vivarium_kernel.api.problem import MEDIA, Problem

_REF = "#/components/schemas/{name}"
_DESCRIPTION = """One village: its tasks, residents, money and log, and the wire for workers elsewhere.

Send `Authorization: Bearer TOKEN`; browsers have a session by a one-time link. Every error is a problem page
(RFC 9457) that names its rule and the next step. A POST may carry an `Idempotency-Key`: the same key and body give
the same reply and do nothing again; on the wire, step numbers do that. Amounts are integer millionths, times are
microseconds of Unix time."""


def document(found: Sequence[Operation], actions: Iterable[Action[Any]] = ()) -> dict[str, Any]:
    """The whole page: an entry for each of these routes and actions."""
    types = [kind for op in found for kind in (op.body, op.query, op.reply) if kind is not None and kind is not dict]
    names, components = _components([*dict.fromkeys(types), Problem])
    paths: dict[str, dict[str, Any]] = {}
    for op in found:
        paths.setdefault(op.path, {})[op.method.lower()] = _entry(op, names, components)
    for action in sorted(actions, key=lambda each: each.name):
        paths[f"/actions/{action.name}"] = {"post": _action(action, components)}
    queries = {name for kind, name in names.items() if any(op.query is kind for op in found)}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Vivarium", "version": version("vivarium-kernel"), "description": _DESCRIPTION},
        "security": [{"bearer": []}, {"session": []}],
        "paths": paths,
        "components": {
            "schemas": {name: schema for name, schema in sorted(components.items()) if name not in queries},
            "parameters": {"IdempotencyKey": _KEY},
            "responses": {"Refused": _REFUSED},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "session": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": "vivarium_8420",
                    "description": "The number is the port of the address.",
                },
            },
        },
    }


def text(page: Mapping[str, Any]) -> str:
    """The page as it is committed."""
    return json.dumps(page, indent=2, ensure_ascii=False) + "\n"


def _components(types: list[type]) -> tuple[dict[type, str], dict[str, Any]]:
    refs, components = msgspec.json.schema_components(types, ref_template=_REF)
    names = {kind: str(ref["$ref"]).rpartition("/")[2] for kind, ref in zip(types, refs, strict=True)}
    for schema in components.values():
        if "properties" in schema:
            schema["additionalProperties"] = False
        if "description" in schema:
            schema["description"] = " ".join(schema["description"].replace("``", "`").split())
    return names, components


def _entry(op: Operation, names: Mapping[type, str], components: Mapping[str, Any]) -> dict[str, Any]:
    callers = roles.ROLES[op.route]
    entry: dict[str, Any] = {
        "operationId": _operation_id(op),
        "summary": op.summary,
        "tags": [op.path.split("/")[1] or "panels"],
        "x-roles": list(callers),
        "responses": _responses(op, names),
    }
    if roles.ANYONE in callers:
        entry["security"] = []
    parameters = [*_in_path(op.path), *_in_query(op, names, components), *([_USE_KEY] if op.keyed else [])]
    if parameters:
        entry["parameters"] = parameters
    if op.body is not None:
        schema = {"type": "object"} if op.body is dict else {"$ref": _REF.format(name=names[op.body])}
        required = op.body is not dict and bool(components[names[op.body]].get("required"))
        entry["requestBody"] = {"required": required, "content": {op.takes: {"schema": schema}}}
    return entry


def _operation_id(op: Operation) -> str:
    words = re.findall(r"[a-z]+", op.path.replace(".json", ""))
    return "_".join([op.method.lower(), *words])


def _in_path(path: str) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "integer", "minimum": 0} if name in NUMBERS else _FILE if name == "file" else _WORD,
        }
        for name in re.findall(r"{([a-z]+)}", path)
    ]


_WORD = {"type": "string", "minLength": 1}
_FILE = {"type": "string", "pattern": "^[a-z]+\\.(css|js|svg)$"}


def _in_query(op: Operation, names: Mapping[type, str], components: Mapping[str, Any]) -> list[dict[str, Any]]:
    if op.query in (None, dict):
        return []
    schema = components[names[op.query]]
    return [
        {"name": name, "in": "query", "required": name in schema.get("required", ()), "schema": _without_null(found)}
        for name, found in schema["properties"].items()
    ]


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter that may be left out is never null."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    if "enum" in schema:
        schema = {**schema, "enum": [word for word in schema["enum"] if word is not None]}
    found = kinds[0] if len(kinds) == 1 else schema
    return {key: value for key, value in found.items() if not (key == "default" and value is None)}


_KEY = {
    "name": KEY_HEADER,
    "in": "header",
    "required": False,
    "description": "The same key and body give the same reply and do nothing again.",
    "schema": {"type": "string", "pattern": "^[!-~]{1,200}$"},
}
_USE_KEY = {"$ref": "#/components/parameters/IdempotencyKey"}
_USE_REFUSED = {"$ref": "#/components/responses/Refused"}
_REFUSED = {
    "description": "Refused: nothing was changed.",
    "content": {MEDIA: {"schema": {"$ref": _REF.format(name="Problem")}}},
}


def _responses(op: Operation, names: Mapping[type, str]) -> dict[str, Any]:
    schema: dict[str, Any] = {} if op.reply is None else {"$ref": _REF.format(name=names[op.reply])}
    media = op.gives.partition(";")[0]
    content = {media: {"schema": schema if media == JSON else {"type": "string"}}}
    found = {"200": {"description": "Done.", "content": content}, "default": _USE_REFUSED}
    if op.path in ("/cycle", "/plan"):
        found["202"] = {"description": "The task still runs or waits.", "content": content}
    return found


def _action(action: Action[Any], components: dict[str, Any]) -> dict[str, Any]:
    """An action's entry. What its input is made of becomes components in the action's own name."""
    schema = input_schema(action)
    own = schema.pop("$defs", {})
    names = {f"#/$defs/{name}": _REF.format(name=f"{action.name}.{name}") for name in own}
    components.update({f"{action.name}.{name}": _renamed(found, names) for name, found in own.items()})
    return {
        "operationId": f"action_{action.name.replace('.', '_')}",
        "summary": action.doc.strip().splitlines()[0],
        "description": action.doc,
        "tags": ["actions"],
        "x-roles": list(action.roles),
        "x-effect": action.effect,
        "x-cost-micros": action.cost_micros,
        "parameters": [_USE_KEY],
        "requestBody": {"required": True, "content": {JSON: {"schema": _renamed(schema, names)}}},
        "responses": {"200": {"description": "Done.", "content": {JSON: {"schema": {}}}}, "default": _USE_REFUSED},
    }


def _renamed(schema: Any, names: Mapping[str, str]) -> Any:
    if isinstance(schema, dict):
        return {key: names.get(v, v) if key == "$ref" else _renamed(v, names) for key, v in schema.items()}
    return [_renamed(item, names) for item in schema] if isinstance(schema, list) else schema
