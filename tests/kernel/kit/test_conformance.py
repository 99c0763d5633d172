"""Promises about the conformance suite: it finds each bug that is planted for it, and can't be talked out of it."""

from __future__ import annotations

import logging
import re
import sqlite3
import textwrap
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Protocol

import attrs
import pytest
from sqlite_utils import Migrations
from vivarium_kernel.inspecting import of_class
from vivarium_kernel.plugins import Plugin
from vivarium_kernel.testing import Conformance, inspection, trial
from vivarium_kernel.testing.samples import sample
from vivarium_kernel.testing.stage import Opening, Stage

from vivarium_kernel import (
    Action,
    Actor,
    Conflict,
    Ending,
    Job,
    Meta,
    Panel,
    PluginTx,
    Reject,
    Resident,
    Task,
    hookimpl,
    hookspec,
)

from .scene import Garden, Idler

Run = Callable[[str], str]


class TestGarden(Conformance):
    plugin = Garden

    @pytest.mark.xfail(reason="it is a test's, and not installed")
    def test_its_entry_point_leads_to_it(self) -> None: ...


class Rogue(Plugin):
    """What each of the plugins below is made from."""

    name = "rogue"


def life(plugin: type[Plugin], folder: Path, connection: type[sqlite3.Connection] | None = None) -> list[str]:
    """What is wrong with a plugin's life."""
    stage = Stage()
    try:
        more = {} if connection is None else {"connection": connection}
        village = stage.open(Opening(folder, (plugin,), **more))  # type: ignore[arg-type]
        trial.live(stage, village)
        return list(trial.faults(village, "rogue"))
    finally:
        stage.close()


# Lives


def test_a_hook_that_raises_is_found_with_its_line(tmp_path: Path) -> None:
    class Raises(Rogue):
        @hookimpl
        def enrich_prompt(self, resident: Resident) -> list[Any]:
            raise ValueError("no flower")

    (fault,) = set(life(Raises, tmp_path))
    assert fault.startswith("enrich_prompt: ValueError: no flower") and "test_conformance.py:" in fault


def test_an_answer_of_a_wrong_type_is_found(tmp_path: Path) -> None:
    class Answers(Rogue):
        @hookimpl
        def claim_filter(self, tasks: Sequence[Task]) -> Any:
            return [Reject(task.id, 3) for task in tasks]  # type: ignore[arg-type]

    assert any(fault.startswith("claim_filter: ") for fault in life(Answers, tmp_path))


def test_a_panel_that_can_not_be_drawn_is_found(tmp_path: Path) -> None:
    class Draws(Rogue):
        @hookimpl
        def register_panels(self) -> list[Panel]:
            return [Panel(name="rogue", title="Rogue", template="{{ nobody_said_this }}")]

    assert "the panel rogue: UndefinedError: 'nobody_said_this' is undefined" in life(Draws, tmp_path)


# Actions


@attrs.frozen
class Asked:
    """What the actions below are asked."""

    word: Annotated[str, Meta(min_length=3, max_length=8)]
    count: Annotated[int, Meta(gt=4)]
    prize_micros: int
    kind: Literal["red", "blue"]
    inner: list[int]
    note: str = ""


def acting(name: str, **more: Any) -> type[Plugin]:
    """A plugin with one action."""
    return type("Acts", (Rogue,), {
        "register_actions": hookimpl(lambda self: [Action(name=f"rogue.{name}", doc="Act.", Input=Asked, **more)]),
    })  # fmt: skip


def acted(plugin: type[Plugin], folder: Path) -> list[str]:
    stage = Stage()
    try:
        return list(trial.action_problems(stage, Opening(folder, (plugin,)), "rogue"))
    finally:
        stage.close()


def test_each_action_is_done_once_with_an_input_made_from_its_schema(tmp_path: Path) -> None:
    asked: list[Any] = []
    assert acted(acting("do", run=lambda tx, actor, body: asked.append((str(actor), body))), tmp_path) == []
    assert asked == [("resident:ada", Asked("sample", 5, 1, "blue", []))]


@pytest.mark.parametrize("role", ["operator", "human", "worker"])
def test_an_action_is_done_by_one_whom_it_is_for(role: Any, tmp_path: Path) -> None:
    asked: list[str] = []
    acted(acting("do", roles=(role,), run=lambda tx, actor, body: asked.append(actor.role)), tmp_path)
    assert asked == [role]


def test_an_action_that_breaks_is_named_with_its_input_and_line(tmp_path: Path) -> None:
    def breaks(tx: PluginTx, actor: Actor, body: Asked) -> Any:
        return {}[body.word]

    (found,) = acted(acting("do", run=breaks), tmp_path)
    assert found.startswith('rogue.do, done by resident:ada with {"word": "sample", "count": 5, "prize_micros": 1, ')
    assert "KeyError: 'sample'" in found and "test_conformance.py:" in found


def test_an_action_that_refuses_is_sound(tmp_path: Path) -> None:
    def refuses(tx: PluginTx, actor: Actor, body: Asked) -> Any:
        raise Conflict("rogue.full", "It is full.", "Come again.")

    assert acted(acting("do", run=refuses), tmp_path) == []


def test_a_slow_tool_is_used_by_a_resident_at_work(tmp_path: Path) -> None:
    asked: list[str] = []

    async def breaks(job: Job, body: Asked) -> Any:
        asked.append(job.resident.name)
        raise ValueError("no wheel")

    (found,) = acted(acting("turn", act=breaks), tmp_path)
    assert found.startswith("rogue.turn, done by resident:ada with ") and "ValueError: no wheel" in found
    assert asked


def test_an_input_that_holds_itself_has_an_end() -> None:
    kids = {"type": "array", "items": {"$ref": "#/$defs/Tree"}, "minItems": 1}
    tree = {"type": "object", "properties": {"kids": kids}, "required": ["kids"]}
    assert sample({"$ref": "#/$defs/Tree", "$defs": {"Tree": tree}})["kids"]


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "integer", "minimum": 3}, 3),
        ({"type": "integer", "exclusiveMinimum": 3, "multipleOf": 5}, 10),
        ({"type": "number", "maximum": -2}, -2),
        ({"anyOf": [{"type": "null"}, {"type": "boolean"}]}, False),
        ({"type": ["null", "string"], "maxLength": 2}, "sa"),
        ({"type": "string", "minLength": 7}, "samplex"),
        ({"const": 4}, 4),
        ({"type": "array", "prefixItems": [{"type": "null"}], "minItems": 2, "items": {"enum": ["a"]}}, [None, "a"]),
    ],
)
def test_a_sample_is_what_its_schema_lets_through(schema: dict[str, Any], value: Any) -> None:
    assert sample(schema) == value


# Hooks of others, services of others


@hookspec("collect")
def smell_rose(petals: int) -> Sequence[str]:
    """Say what a rose smells of."""
    raise NotImplementedError


class Roses(Plugin):
    """Offers a hook."""

    name = "roses"
    hookspecs = (smell_rose,)


def test_a_slip_in_a_hook_that_another_plugin_offers_is_found() -> None:
    given = {"roses": Roses}
    marked = type("P", (Rogue,), {"after": ("roses",), "smel_rose": hookimpl(lambda self: [])})
    unmarked = type("P", (Rogue,), {"after": ("roses",), "smell_roses": lambda self: []})
    waits = type("P", (Rogue,), {"smell_rosy": hookimpl(optionalhook=True)(lambda self: [])})
    for cls, said in (
        (marked, "there is no hook smel_rose; smel_rose: did you mean smell_rose (of roses)?"),
        (unmarked, "P.smell_roses: did you mean smell_rose (of roses)? Mark it with @hookimpl"),
        (waits, "P.smell_rosy waits for a plugin that offers it; did you mean smell_rose (of roses)?"),
    ):
        found = list(inspection.hook_problems(cls, "rogue", given))
        assert any(said in problem for problem in found), found


def test_what_a_plugin_offers_asks_and_waits_for_is_seen_by_looking_at_it() -> None:
    looked = of_class("roses", Roses, {})
    assert (looked.offers, looked.faults) == (("smell_rose: Say what a rose smells of.",), ())
    waits = type(
        "P", (Rogue,), {"after": ("roses",), "asks": {"garden": Grows}, "smell_rose": hookimpl(lambda self: [])}
    )
    looked = of_class("rogue", waits, {})
    assert looked.waits == ("smell_rose waits for roses, which is not on",)
    assert (looked.asks, looked.faults, looked.hooks) == (("garden",), (), ("smell_rose",))


class Grows(Protocol):
    def grow(self, tx: PluginTx) -> None: ...


# Tables


def migrating(*statements: str, name: str = "rogue") -> type[Plugin]:
    migrations = Migrations(name)

    @migrations()
    def m001(db: Any) -> None:
        for statement in statements:
            db.execute(statement)

    return type("Migrating", (Rogue,), {"migrations": migrations})


class Forgetful:
    """Migrations that note nothing of what has run."""

    name = "rogue"

    def __init__(self, *statements: str) -> None:
        self.statements = statements

    def apply(self, db: Any) -> None:
        for statement in self.statements:
            db.execute(statement)


@pytest.mark.parametrize(
    ("plugin", "said"),
    [
        (migrating("CREATE TABLE other (x)"), "make the table other on other: the plugin's tables begin with rogue_"),
        (migrating("CREATE INDEX rogue_i ON tasks (mode)"), "make the index rogue_i on tasks"),
        (migrating("ALTER TABLE tasks ADD COLUMN rogue"), "change the table tasks, which is not the plugin's"),
        (migrating("UPDATE village SET paused = 1"), "change rows of tables that are not the plugin's"),
        (migrating("DROP TABLE replies"), "drop the table replies"),
        (
            migrating(
                "CREATE TABLE rogue_t (x)",
                "CREATE TRIGGER rogue_tr AFTER INSERT ON rogue_t BEGIN UPDATE tasks SET priority = 9; END",
            ),
            "the trigger rogue_tr touches tables that are not the plugin's",
        ),
        (migrating("CREATE TABLE rogue_t (x)", "no sql at all"), "from scratch: OperationalError"),
        (type("A", (Rogue,), {"migrations": Forgetful("CREATE TABLE rogue_t (x)")}), "a second time: Operational"),
        (
            type("B", (Rogue,), {"migrations": Forgetful("CREATE TABLE IF NOT EXISTS rogue_t (x)",
                                                         "INSERT INTO rogue_t VALUES (1)")}),
            "a second time the migrations change what they made",
        ),
    ],
)  # fmt: skip
def test_a_migration_that_does_more_or_less_than_it_may_is_found(
    plugin: type[Plugin], said: str, tmp_path: Path
) -> None:
    found = list(trial.migration_problems(Opening(tmp_path, (plugin,)), plugin))
    assert any(said in problem for problem in found), found


def test_a_sound_migration_is_not_blamed(tmp_path: Path) -> None:
    plugin = migrating(
        "CREATE TABLE rogue_t (x)", "CREATE INDEX rogue_i ON rogue_t (x)",
        "CREATE VIRTUAL TABLE rogue_f USING fts5 (x)",
        "CREATE TRIGGER rogue_tr AFTER INSERT ON rogue_t BEGIN INSERT INTO rogue_f VALUES (new.x); END",
    )  # fmt: skip
    assert list(trial.migration_problems(Opening(tmp_path, (plugin,)), plugin)) == []


# Writes


def writes_of(plugin: type[Plugin], folder: Path) -> list[str]:
    found: list[str] = []
    with trial.watching_connections(found, folder):
        life(plugin, folder, trial.watched(found))
    return found


class WritesByTheStore(Rogue):
    @hookimpl
    async def on_event(self, event: Any) -> None:
        if event.kind == "attempt.ended":
            await self.village.store.write(lambda tx, _: tx.run("UPDATE tasks SET priority = 3"), None)


class OpensTheFile(Rogue):
    @hookimpl
    async def startup(self, village: Any) -> None:
        sqlite3.connect(village.folder / "vivarium.db").close()


class TakesTheConnection(Rogue):
    @hookimpl
    def end_attempt(self, tx: Any) -> None:
        tx._tx.connection.execute("DELETE FROM replies")


@pytest.mark.parametrize(
    ("plugin", "said"),
    [
        (WritesByTheStore, "writes past its tx: UPDATE tasks SET priority = 3"),
        (OpensTheFile, "opens the village's database by itself"),
        (TakesTheConnection, "writes past its tx: DELETE FROM replies"),
    ],
)
def test_a_write_past_what_a_plugin_is_handed_is_found(plugin: type[Plugin], said: str, tmp_path: Path) -> None:
    found = writes_of(plugin, tmp_path)
    assert any(said in each and "test_conformance.py" in each for each in found), found


def test_writing_ones_own_tables_is_not_blamed(tmp_path: Path) -> None:
    assert writes_of(Garden, tmp_path) == []


def test_a_write_that_the_village_refuses_is_a_fault_of_its_life(tmp_path: Path) -> None:
    class Meddles(Rogue):
        @hookimpl
        def end_attempt(self, ending: Ending, tx: PluginTx) -> None:
            tx.execute("UPDATE tasks SET priority = 9")

    assert any("not authorized" in fault for fault in life(Meddles, tmp_path))


# Leaving


class KeepsAThread(Rogue):
    stop: ClassVar[threading.Event] = threading.Event()

    @hookimpl
    async def startup(self, village: Any) -> None:
        threading.Thread(target=self.stop.wait, args=(60,), name="the rogue's", daemon=True).start()


class KeepsAFile(Rogue):
    kept: ClassVar[list[Any]] = []

    @hookimpl
    async def startup(self, village: Any) -> None:
        self.kept.append((village.folder / "rogue.txt").open("w"))


class KeepsItself(Rogue):
    kept: ClassVar[list[Any]] = []

    def __init__(self, village: Any, config: Any) -> None:
        super().__init__(village, config)
        self.kept.append(self)


class ChangesTheLog(Rogue):
    @hookimpl
    async def startup(self, village: Any) -> None:
        logging.getLogger().addHandler(logging.NullHandler())


@pytest.fixture
def tidied() -> Iterator[None]:
    handlers = logging.getLogger().handlers[:]
    KeepsAThread.stop.clear()
    yield
    KeepsAThread.stop.set()
    for file in KeepsAFile.kept:
        file.close()
    KeepsItself.kept.clear()
    logging.getLogger().handlers[:] = handlers


@pytest.mark.parametrize(
    ("plugin", "said"),
    [
        (KeepsAThread, "the thread the rogue's"),
        (KeepsAFile, "rogue.txt"),
        (KeepsItself, "still holds the plugin"),
        (ChangesTheLog, "the root logger has other handlers"),
    ],
)
def test_what_a_plugin_leaves_behind_is_found(plugin: type[Plugin], said: str, tmp_path: Path, tidied: None) -> None:
    found = list(trial.leaving_problems(Opening(tmp_path / "v", (plugin,)), plugin, real_time=False))
    assert any(said in problem for problem in found), found


def test_a_plugin_that_tidies_up_is_not_blamed(tmp_path: Path) -> None:
    assert list(trial.leaving_problems(Opening(tmp_path / "v", (Idler,)), Idler, real_time=False)) == []


# What is said of the class


@attrs.frozen
class Needy:
    key: str


@attrs.frozen
class Loose:
    anything = attrs.field(default=1)


@attrs.frozen
class Wrong:
    """``count`` is explained."""

    count: int = attrs.field(default=-1, validator=attrs.validators.ge(0))


class Silent(Rogue):
    Config = Needy


Silent.__doc__ = None


@pytest.mark.parametrize(
    ("problems", "said"),
    [
        (inspection.config_problems(type("P", (Rogue,), {"Config": Needy}), "rogue", {}), "rogue.key has no default"),
        (inspection.config_problems(type("P", (Rogue,), {"Config": Loose}), "rogue", {}), "rogue.anything has no type"),
        (inspection.config_problems(type("P", (Rogue,), {"Config": Wrong}), "rogue", {}), "plugins.rogue.count"),
        (inspection.documentation_problems(Silent, "rogue", None), "Silent has no docstring"),
        (inspection.documentation_problems(Silent, "rogue", None), "Needy.key is not explained"),
        (inspection.name_problems(migrating(name="other"), "rogue"), "are called 'other'"),
        (inspection.name_problems(Rogue, "other"), "the entry point is 'other'"),
        (inspection.hook_problems(type("P", (Rogue,), {"enrch_prompt": lambda self: []}), "rogue"),
         "P.enrch_prompt: did you mean enrich_prompt?"),
        (inspection.hook_problems(type("P", (Rogue,), {"on_event": hookimpl(lambda self, event: None)}), "rogue"),
         "the hook is a coroutine and this is not"),
        (inspection.entry_point_problems(Rogue, None), "no installed distribution has an entry point 'rogue'"),
        (inspection.service_problems(type("P", (Rogue,), {"provides": type("S", (), {"ask": lambda self, who: 1})})),
         "S.ask of the service takes neither tx nor view"),
    ],
)  # fmt: skip
def test_what_a_class_must_not_be_is_found(problems: Iterator[str], said: str) -> None:
    found = list(problems)
    assert any(said in problem for problem in found), found


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import time; time.sleep(0.3)", r"takes 3\d\d ms, more than 200"),
        ("import uvicorn", "loads uvicorn: import that inside the function"),
        ("raise SystemExit(3)", "import rogue_module in a process of its own"),
    ],
)
def test_a_slow_or_heavy_import_is_found(
    source: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rogue_module.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    (problem,) = inspection.import_problems("rogue_module")
    assert re.search(said, problem), problem


# Marks

HEAD = """
    import pytest
    from vivarium_kernel import Plugin
    from vivarium_kernel.testing import Conformance

    class Silent(Plugin):
        name = "silent"

    {decorator}
    class TestSilent(Conformance):
        plugin = Silent
"""


def written(body: str = "", decorator: str = "") -> str:
    return textwrap.dedent(HEAD.format(decorator=decorator)) + textwrap.indent(textwrap.dedent(body), "    ")


def test_an_excused_check_still_runs_and_must_fail(pytester_like: Run) -> None:
    said = pytester_like(
        written(
            """
            @pytest.mark.xfail(reason="it is shy")
            def test_it_documents_itself(self): ...
            @pytest.mark.xfail(reason="it says so")
            def test_its_hooks_fit(self): ...
            """
        )
    )
    assert "1 xfailed" in said
    assert "test_its_hooks_fit" in said and "[XPASS(strict)] it says so" in said


@pytest.mark.parametrize(
    ("body", "decorator"),
    [
        ("def test_it_documents_itself(self): ...", ""),
        ("test_it_documents_itself = None", ""),
        ("@pytest.mark.skip\ndef test_it_documents_itself(self): ...", ""),
        ("@pytest.mark.xfail\ndef test_it_documents_itself(self): ...", ""),
        ("@pytest.mark.xfail(True, reason='so')\ndef test_it_documents_itself(self): ...", ""),
        ("@pytest.mark.xfail(reason='so', run=False)\ndef test_it_documents_itself(self): ...", ""),
        ("", "@pytest.mark.skipif(True, reason='no time')"),
        ("pytestmark = pytest.mark.skip", ""),
    ],
)
def test_nothing_but_an_excuse_with_a_reason_overrides_a_check(body: str, decorator: str, pytester_like: Run) -> None:
    said = pytester_like(written(body, decorator))
    assert "may only be marked xfail(reason=…)" in said
    assert "passed" not in said


def test_an_authors_own_tests_in_the_class_are_free(pytester_like: Run) -> None:
    body = '@pytest.mark.skip(reason="later")\ndef test_more(self): ...\ndef test_other(self): assert self.plugin'
    assert "1 skipped" in pytester_like(
        written(body) + "\n    @pytest.mark.xfail(reason='x')\n    def test_y(self): 0/0"
    )
