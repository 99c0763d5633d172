"""A village that is really served: a server on a free port in a thread of its own, and plain HTTP to speak to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

from attrs import define, frozen
from vivarium_kernel.api.server import serve
from vivarium_kernel.clock import Clock
from vivarium_kernel.plugins import Plugin
from vivarium_kernel.records import NewTask, Task
from vivarium_kernel.runtime import Runtime
from vivarium_kernel.village import Village, With

from vivarium_kernel import board, people

TOML = """
name = "served"
pace_seconds = 0.1
lease_seconds = {lease}
residents = ["ada", "ben", "cyn"]

[commands]
sandbox = "none"

[commands.allow]
sleep = "sleep"
sh = "sh"
"""
OPERATOR, HUMAN, RESIDENT, OTHER, WORKER, REVOKED = (
    f"{word}-secret" for word in ("operator", "human", "ada", "ben", "worker", "revoked")
)


@frozen
class Reply:
    """What the server answered."""

    status: int
    headers: Mapping[str, str]
    raw: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.raw)

    def problem(self, status: int, rule: str) -> Any:
        """The problem page, which must be one of this status and rule."""
        assert self.headers["content-type"] == "application/problem+json", self
        page = self.json
        assert (self.status, page["status"], page["rule"]) == (status, status, rule), page
        assert page["type"] == f"urn:vivarium:problem:{rule}"
        assert page["detail"]
        return page

    def ok(self, status: int = 200) -> Any:
        assert self.status == status, (self.status, self.raw)
        return self.json


def found_village(folder: Path, lease: float = 30.0, more: str = "") -> Path:
    """A village's folder, before anybody has opened it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vivarium.toml").write_text(TOML.format(lease=lease) + more)
    return folder


@define
class Served:
    """A village that is served in this process."""

    village: Village
    port: int
    loop: asyncio.AbstractEventLoop

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        token: str | None = OPERATOR,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """One request on a connection of its own. ``body`` is sent as JSON, or as it is when it is bytes."""
        with contextlib.closing(HTTPConnection("127.0.0.1", self.port, timeout=30)) as line:
            sent = dict(headers or {})
            if token is not None:
                sent.setdefault("Authorization", f"Bearer {token}")
            data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
            if data is not None:
                sent.setdefault("Content-Type", "application/json")
            line.request(method, path, data, sent)
            answer = line.getresponse()
            return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())

    def get(self, path: str, token: str | None = OPERATOR) -> Reply:
        return self.ask("GET", path, token=token)

    def post(self, path: str, body: Any = None, token: str | None = OPERATOR, key: str | None = None) -> Reply:
        return self.ask("POST", path, {} if body is None else body, token, {"Idempotency-Key": key} if key else None)

    @contextlib.contextmanager
    def stream(self, path: str, token: str, headers: Mapping[str, str] | None = None) -> Iterator[HTTPResponse]:
        """An open stream; whoever reads it waits at most ten seconds."""
        with contextlib.closing(HTTPConnection("127.0.0.1", self.port, timeout=10)) as line:
            line.request("GET", path, headers={"Authorization": f"Bearer {token}", **(headers or {})})
            answer = line.getresponse()
            assert answer.status == 200, answer.read()
            yield answer

    def write(self, fn: Callable[..., Any], item: Any) -> Any:
        """A transaction of the village, asked from outside its loop."""
        return asyncio.run_coroutine_threadsafe(_written(self.village, fn, item), self.loop).result(30)

    def do(self, coroutine: Any) -> Any:
        """Something on the server's own loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)

    def rows(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self.village.store.view() as view:
            return view.rows(sql, params)

    def add(self, *tasks: NewTask) -> list[Task]:
        posted: list[Task] = self.write(board.post, self.village.posting(tasks, "test"))
        return posted

    def task(self, name: str) -> Task:
        with self.village.store.view() as view:
            return board.task(view, name)

    def token(self, role: Any, name: str, secret: str, **more: Any) -> int:
        number: int = self.write(people.make_token, people.NewToken(role, name, secret, "test", **more))
        return number

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [json.loads(row[0]) for row in self.rows("SELECT data FROM events WHERE kind = ? ORDER BY id", (kind,))]


async def _written(village: Village, fn: Callable[..., Any], item: Any) -> Any:
    return await village.store.write(fn, item)


@contextlib.contextmanager
def served(
    folder: Path,
    *,
    plugins: Sequence[type[Plugin]] = (),
    residents: int | None = None,
    environ: Any = None,
    closing: contextlib.ExitStack | None = None,
    clock: Clock | None = None,
) -> Iterator[Served]:
    """Serve the village; with ``residents`` the same process also keeps so many at work.

    The end of a server takes uvicorn two ticks of 0.1 s; with ``closing`` that stack waits for it.
    """
    ready: dict[str, Any] = {}
    listening = threading.Event()

    async def life() -> None:
        how = With(threaded=True, installed=False, plugins=plugins)
        village = Village(folder, how, clock=clock, environ={} if environ is None else environ)
        ready["village"], ready["loop"] = village, asyncio.get_running_loop()
        ready["task"] = asyncio.current_task()
        try:
            async with contextlib.AsyncExitStack() as stack:
                runtime = None
                if residents is not None:
                    runtime = await stack.enter_async_context(Runtime(village, residents, kind="up"))
                await serve(village, port=0, runtime=runtime, ready=told)
        except asyncio.CancelledError:
            return
        except BaseException as error:
            ready["error"] = error
            raise
        finally:
            village.close()
            listening.set()

    def told(url: str) -> None:
        ready["port"] = int(url.rpartition(":")[2])
        listening.set()

    def ended() -> None:
        thread.join(20)
        assert not thread.is_alive(), "the server did not end"

    thread = threading.Thread(target=lambda: asyncio.run(life()), daemon=True)
    thread.start()
    assert listening.wait(20), "the server did not come up"
    if "error" in ready:
        raise ready["error"]
    found = Served(ready["village"], ready["port"], ready["loop"])
    try:
        yield found
    finally:
        with contextlib.suppress(RuntimeError):
            found.loop.call_soon_threadsafe(ready["task"].cancel)
        if closing is None:
            ended()
        else:
            closing.callback(ended)


def with_tokens(scene: Served) -> Served:
    """A token of each role; ``revoked`` was an operator's."""
    for role, name, secret in (
        ("operator", "op", OPERATOR),
        ("human", "hana", HUMAN),
        ("resident", "ada", RESIDENT),
        ("resident", "ben", OTHER),
        ("worker", "far", WORKER),
    ):
        scene.token(role, name, secret)
    scene.write(people.revoke_token, (scene.token("operator", "gone", REVOKED), "test"))
    return scene


def claim(scene: Served, task: NewTask, **asked: Any) -> dict[str, Any]:
    """Join as a worker and claim this task; the claim, with its worker's number under ``worker``."""
    joined = scene.post("/wire/workers", {"residents": 1}, WORKER).ok()
    scene.add(task)
    body = {"worker": joined["worker"], "resident": joined["residents"][0], "wait_seconds": 5, **asked}
    found = scene.post("/wire/claims", body, WORKER).ok()["claim"]
    assert found is not None, "nothing was claimed"
    return {**found, "worker": joined["worker"]}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])
