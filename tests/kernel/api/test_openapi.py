"""Promises about the API's own page: it is what the types say, and the API answers as it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.types import Receive, Scope, Send
from vivarium_kernel.api import village_routes
from vivarium_kernel.api.app import api_of, app_of
from vivarium_kernel.api.openapi import document, text
from vivarium_kernel.api.roles import ANYONE, ROLES
from vivarium_kernel.api.routes import operations
from vivarium_kernel.people import NewToken
from vivarium_kernel.runtime import Runtime
from vivarium_kernel.terms import Role
from vivarium_kernel.village import Village, With

from vivarium_kernel import people

from .scene import found_village

REWRITE = "uv run python -m vivarium_kernel.api docs/openapi.json"
ROLE_NAMES: tuple[Role, ...] = get_args(Role)
# Streams do not end, claims wait, logging out and revoking would end the asking, a halt everything.
NOT_ASKED = ("/stream", "/stops", "/logout", "/halt", "/revoke", "/claims")
CHECKS: list[Any] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@pytest.mark.promise("openapi")
def test_the_committed_page_is_what_the_types_say(repository: Path) -> None:
    kept = (repository / "docs" / "openapi.json").read_text(encoding="utf-8")
    assert kept == text(document(operations())), f"docs/openapi.json is not what the types say: {REWRITE}"


@pytest.mark.promise("openapi")
def test_the_page_is_sound_and_names_every_route_with_its_roles() -> None:
    page = document(operations())
    found = {
        f"{method.upper()} {path}": entry
        for path, entries in page["paths"].items()
        for method, entry in entries.items()
    }
    assert found.keys() == ROLES.keys()
    for route, entry in found.items():
        assert entry["x-roles"] == list(ROLES[route])
        assert (entry.get("security") == []) == (ANYONE in ROLES[route])
    ids = [entry["operationId"] for entry in found.values()]
    assert len(set(ids)) == len(ids)
    for name, schema in page["components"]["schemas"].items():
        whole = {"$ref": f"#/components/schemas/{name}", "components": page["components"]}
        assert jsonschema_rs.validator_for(json.loads(json.dumps(whole))) is not None, schema


def test_a_route_without_a_row_in_the_role_table_is_no_route(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vivarium_kernel.api.routes.ROLES", {k: v for k, v in ROLES.items() if k != "GET /tasks"})
    with pytest.raises(RuntimeError, match="GET /tasks"):
        operations()


class Asgi:
    """A village that lives in whatever loop the application is started in, without a network."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._app: Any = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return
        await receive()
        with Village(self._folder, With(installed=False), environ={}) as village:
            for role in ROLE_NAMES:
                new = NewToken(role, "ada" if role == "resident" else role, f"{role}-secret", "test")
                with village.store.view() as view:
                    known = people.actor_of(view, new.secret)
                if known is None:  # schemathesis may start the application more than once
                    await village.store.write(people.make_token, new)
            async with Runtime(village, 2) as runtime:
                self._app = app_of(api_of(village, runtime), host="127.0.0.1", hosts=["testserver"])
                await send({"type": "lifespan.startup.complete"})
                await receive()
        await send({"type": "lifespan.shutdown.complete"})


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> BaseSchema:
    folder = tmp_path_factory.mktemp("fuzzed") / "village"
    app = Asgi(found_village(folder, more="\n[api]\nrequests_per_minute = 1000000\n"))
    return schemathesis.openapi.from_asgi("/openapi.json", app)


def ask_for_everything(schema: BaseSchema, role: str, mode: GenerationMode, only: str = "/", examples: int = 6) -> int:
    """Ask for every route whose path begins so; returns how many. Raises what is unlike the page."""
    asked = 0
    operations: Any = schema.get_all_operations()
    for found in operations:
        operation = found.ok()
        takes_nothing = not (operation.query or operation.headers or operation.body or operation.path_parameters)
        if not operation.path.startswith(only) or operation.path.endswith(NOT_ASKED):
            continue
        if mode is GenerationMode.NEGATIVE and takes_nothing:
            continue

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(
            max_examples=examples,
            database=None,
            derandomize=True,
            phases=(Phase.generate,),
            suppress_health_check=list(HealthCheck),
        )
        def ask(case: Any) -> None:
            if case.path == "/cycle" and isinstance(case.body, dict):
                case.body["wait_seconds"] = 0
            case.call_and_validate(checks=CHECKS, headers={"Authorization": f"Bearer {role}-secret"})

        ask()
        asked += 1
    return asked


@pytest.mark.promise("openapi")
@pytest.mark.parametrize("role", ROLE_NAMES)
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_whatever_is_asked_is_answered_as_the_page_says(
    schema: BaseSchema, thorough: bool, role: str, mode: GenerationMode
) -> None:
    """Schemathesis asks for everything with sound and unsound input; no answer is a fault or unlike the page."""
    # Most routes refuse the other roles, whatever is asked.
    examples = 6 if thorough else 3 if role == "operator" else 2
    assert ask_for_everything(schema, role, mode, examples=examples) > 25


@pytest.mark.promise("harnesses-find-planted-bugs")
@pytest.mark.parametrize(("answer", "found"), [({"status": 5}, "JsonSchemaError"), (None, "ServerError")])
def test_an_answer_unlike_the_page_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Any, found: str
) -> None:
    async def broken(call: object) -> Any:
        return answer or 1 / 0

    monkeypatch.setattr(village_routes, "_health", broken)
    schema = schemathesis.openapi.from_asgi("/openapi.json", Asgi(found_village(tmp_path / "village")))
    with pytest.raises(FailureGroup) as failed:
        ask_for_everything(schema, "operator", GenerationMode.POSITIVE, "/healthz")
    assert found in {type(each).__name__ for each in failed.value.exceptions}
