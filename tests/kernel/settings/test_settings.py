"""vivarium.toml and VIVARIUM_* become one record, with the origin of each value, or every problem at once."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vivarium_kernel.problems import InputError, Problem
from vivarium_kernel.settings import (
    OTHER_VARIABLES,
    TABLES,
    Api,
    Budgets,
    Commands,
    Loaded,
    Models,
    Retries,
    Settings,
    SettingsError,
    Source,
    leaves,
    load,
    settle,
)
from vivarium_kernel.settings_text import HIDDEN, example_toml, rows, toml, written


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    village = tmp_path / "chores"
    village.mkdir()
    return village


def loaded(folder: Path, text: str = "", **environ: str) -> Loaded:
    (folder / "vivarium.toml").write_text(text)
    return load(folder, environ)


def problems(folder: Path, text: str = "", **environ: str) -> tuple[Problem, ...]:
    with pytest.raises(SettingsError) as caught:
        loaded(folder, text, **environ)
    return caught.value.problems


def test_an_empty_file_gives_the_defaults_and_the_name_of_the_folder(folder: Path) -> None:
    assert loaded(folder).settings == Settings(name="chores")


def test_a_variable_is_stronger_than_the_file_and_the_file_than_the_default(folder: Path) -> None:
    text = 'pace_seconds = 3\nlease_seconds = 5\n[commands.allow]\nsort = "sort"\n[plugins.hats]\nsize = 0.5\n'
    got = loaded(folder, text, VIVARIUM_PACE_SECONDS="4.5")
    file = str(folder / "vivarium.toml")
    assert (got.settings.pace_seconds, got.settings.lease_seconds, got.settings.hour_seconds) == (4.5, 5.0, 10.0)
    assert got.sources["pace_seconds"] == Source("environment", "VIVARIUM_PACE_SECONDS")
    assert got.sources["lease_seconds"] == Source("file", file)
    assert got.sources["hour_seconds"] == Source("default")
    assert got.sources["commands.allow.sort"] == got.sources["plugins.hats"] == Source("file", file)
    assert got.settings.plugins == {"hats": {"size": 0.5}}
    assert type(got.settings.plugins["hats"]["size"]) is float


def test_all_errors_are_told_at_once_each_with_its_path(folder: Path) -> None:
    text = """
        name = 5
        tasks = "a.toml"
        residents = ["Ada", "ben", "ben"]
        pace_seconds = 301
        [commands]
        sandbox = "foo"
        env = ["PATH", "VIVARIUM_TOKEN"]
        allow = {"a/b" = "sort", ok = "../x"}
        [budgets]
        task_usd = 0.1234567
        start_aid = -5
        [retries]
        backoff_seconds = 400
        [api]
        port = true
        [plugins]
        hats = 3
    """
    found = problems(folder, text, VIVARIUM_LEASE_SECONDS="-1", VIVARIUM_AUTO_APPROVE="x", VIVARIUM_API_PORT="99999")
    assert [(problem.path, problem.where.rpartition("/")[2]) for problem in found] == [
        ("auto_approve", "VIVARIUM_AUTO_APPROVE"),
        ("name", "vivarium.toml"),
        ("tasks", "vivarium.toml"),
        ("residents[0]", "vivarium.toml"),
        ("residents[2]", "vivarium.toml"),
        ("pace_seconds", "vivarium.toml"),
        ("lease_seconds", "VIVARIUM_LEASE_SECONDS"),
        ("commands.sandbox", "vivarium.toml"),
        ("commands.env[0]", "vivarium.toml"),
        ("commands.env[1]", "vivarium.toml"),
        ('commands.allow."a/b"', "vivarium.toml"),
        ("commands.allow.ok", "vivarium.toml"),
        ("budgets.task_usd", "vivarium.toml"),
        ("budgets.start_aid", "vivarium.toml"),
        ("retries.backoff_max_seconds", "vivarium.toml"),
        ("api.port", "VIVARIUM_API_PORT"),
        ("plugins.hats", "vivarium.toml"),
    ]


def test_an_error_names_field_value_and_what_is_allowed(folder: Path) -> None:
    [problem] = problems(folder, '[commands]\nsandbox = "foo"')
    assert str(attrs.evolve(problem, where="")) == 'commands.sandbox: must be landlock, auto or none, not "foo"'
    assert problem.value == '"foo"'


@pytest.mark.parametrize(
    ("text", "path", "next_step"),
    [
        ('[commands]\nsandbx = "none"', "commands.sandbx", 'did you mean "sandbox"?'),
        ('sandbox = "none"', "sandbox", 'did you mean "commands.sandbox"?'),
        ("[budget]\ntask_usd = 1", "budget", 'did you mean "budgets"?'),
        ("[api]\npace_seconds = 1", "api.pace_seconds", 'did you mean "pace_seconds"?'),
    ],
)
def test_an_unknown_setting_comes_with_the_one_that_was_meant(
    folder: Path, text: str, path: str, next_step: str
) -> None:
    [problem] = problems(folder, text)
    assert (problem.path, problem.message, problem.next_step) == (path, "unknown setting", next_step)


def test_an_unknown_variable_comes_with_the_one_that_was_meant(folder: Path) -> None:
    [problem] = problems(folder, VIVARIUM_COMANDS_SANDBOX="none")
    assert problem.next_step == "did you mean VIVARIUM_COMMANDS_SANDBOX?"
    assert loaded(folder, **{name: "x" for name in OTHER_VARIABLES}, OTHER_THING="1").settings.name == "chores"


def test_the_pace_has_a_second_name_and_two_different_values_are_refused(folder: Path) -> None:
    assert loaded(folder, VIVARIUM_WAIT_SECONDS="0").settings.pace_seconds == 0
    assert loaded(folder, VIVARIUM_WAIT_SECONDS="7", VIVARIUM_PACE_SECONDS="7").settings.pace_seconds == 7
    [problem] = problems(folder, VIVARIUM_WAIT_SECONDS="1", VIVARIUM_PACE_SECONDS="2")
    assert problem.path == "pace_seconds"
    assert "VIVARIUM_WAIT_SECONDS=1" in problem.message


def test_malformed_toml_is_refused_with_file_line_and_column(folder: Path) -> None:
    [problem] = problems(folder, 'name = "x"\npace_seconds = = 3\n')
    assert problem.where == f"{folder / 'vivarium.toml'}, line 2, column 16"
    assert "is not TOML" in problem.message
    [at_the_end] = problems(folder, '[commands]\nsandbox = """abc')
    assert ", line 2, column" in at_the_end.where


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b'name = "x"\n# caf\xe9\n', "is not UTF-8"),
        (b"x = " + b"9" * 5000, "can be read"),
        (b"x = " + b"[" * 5000, "nested too deeply"),
        (b"plugins." + b"a." * 5000 + b"a = 1", "nested at most"),
    ],
)
def test_a_file_that_no_parser_takes_is_refused_and_never_a_traceback(folder: Path, raw: bytes, says: str) -> None:
    (folder / "vivarium.toml").write_bytes(raw)
    with pytest.raises(SettingsError, match=says):
        load(folder, {})


def test_a_folder_without_a_village_is_told_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path / "nowhere", {})
    [problem] = caught.value.problems
    assert "vivarium init" in problem.next_step
    assert str(tmp_path / "nowhere") in str(caught.value)


def test_a_path_that_is_no_file_is_refused(folder: Path) -> None:
    (folder / "vivarium.toml").mkdir()
    with pytest.raises(SettingsError, match="can't be read"):
        load(folder, {})


def test_budgets_are_written_as_decimals_and_held_in_millionths(folder: Path) -> None:
    text = '[budgets]\ntask_usd = 0.07\nvillage_day_usd = "4.35"\nvillage_usd = 5\nresident_day_usd = "none"\n'
    got = loaded(folder, text, VIVARIUM_BUDGETS_START_AID="12.5").settings.budgets
    assert got == Budgets(
        task_usd_micros=70_000,
        village_day_usd_micros=4_350_000,
        village_usd_micros=5_000_000,
        start_aid_micros=12_500_000,
    )
    assert loaded(folder, text, VIVARIUM_BUDGETS_VILLAGE_USD="none").settings.budgets.village_usd_micros is None
    assert [problem.path for problem in problems(folder, '[budgets]\ntask_usd = "none"')] == ["budgets.task_usd"]


@pytest.mark.parametrize(
    ("text", "value"),
    [("a.toml, b.jsonl", ("a.toml", "b.jsonl")), ("", ()), (" , a.toml,", ("a.toml",))],
)
def test_lists_in_variables_are_separated_by_commas(folder: Path, text: str, value: tuple[str, ...]) -> None:
    assert loaded(folder, VIVARIUM_TASKS=text).settings.tasks == value


@pytest.mark.parametrize(("text", "value"), [("true", True), ("1", True), ("OFF", False), ("no", False)])
def test_switches_in_variables_are_words(folder: Path, text: str, value: bool) -> None:
    assert loaded(folder, VIVARIUM_HUMAN_REVIEW=text).settings.human_review is value


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("VIVARIUM_HUMAN_REVIEW", "maybe"),
        ("VIVARIUM_API_PORT", "84.5"),
        ("VIVARIUM_API_PORT", "9" * 5000),
        ("VIVARIUM_PACE_SECONDS", "nan"),
        ("VIVARIUM_PACE_SECONDS", "٣"),
        ("VIVARIUM_BUDGETS_TASK_USD", ""),
        ("VIVARIUM_NAME", " "),
        ("VIVARIUM_COMMANDS_SANDBOX", "foo"),
    ],
)
def test_a_wrong_variable_is_named(folder: Path, variable: str, text: str) -> None:
    [problem] = problems(folder, **{variable: text})
    assert problem.where == variable


def test_a_variable_does_not_hide_what_is_wrong_with_its_table(folder: Path) -> None:
    assert [p.path for p in problems(folder, "commands = 3", VIVARIUM_COMMANDS_SANDBOX="none")] == ["commands"]


def test_every_setting_has_a_variable_of_its_own_and_documentation() -> None:
    known = leaves()
    variables = [name for leaf in known for name in leaf.variables]
    assert len(set(variables)) == len(variables)
    assert not set(variables) & set(OTHER_VARIABLES)
    assert all(leaf.doc.endswith((".", ".)")) for leaf in known)
    fields = [f for cls in (Settings, Commands, Budgets, Models, Retries, Api) for f in attrs.fields(cls)]
    # All but the five sections, and the tables whose keys people choose.
    assert len(known) == len(fields) - 5 - len(TABLES)


def test_every_variable_reaches_its_setting(folder: Path) -> None:
    for leaf in leaves():
        # A value that differs from the default wherever the setting allows one.
        default = written(leaf, leaf.field.default)
        text = {
            "commands.sandbox": "none",
            "model": "scripted:other",
            "tasks": "a.toml",
            "auto_approve": "0.5",
            "retries.jitter": "0.5",
            "write_policy": "work",
            **{f"models.{name}": "scripted:other" for name in ("small", "medium", "large")},
        }.get(leaf.path)
        if text is None:
            kind: Any = leaf.field.type
            text = "true" if kind is bool else "17" if "parse" in leaf.field.metadata else "other"
            text = str(default + 1) if kind in (int, float) and not isinstance(default, (bool, str)) else text
        got = loaded(folder, **{leaf.variables[0]: text})
        assert got.sources[leaf.path] == Source("environment", leaf.variables[0])
        assert leaf.value(got.settings) != leaf.value(Settings(name="chores")), leaf.path


def test_the_example_loads_as_it_is_written(folder: Path) -> None:
    assert loaded(folder, example_toml("my village")).settings == Settings(name="my village")


def test_the_example_shows_every_setting_with_its_default(folder: Path) -> None:
    lines = [line[1:] if line[:1] == "#" and line[1:2].isalpha() else line for line in example_toml("x").splitlines()]
    text = "\n".join(lines)
    got = loaded(folder, text)
    assert got.settings == Settings(name="x", commands=Commands(allow={"sort": "sort"}))
    assert {source.kind for source in got.sources.values()} == {"file"}
    assert all(leaf.doc.split()[0] in text and leaf.variables[0] in text for leaf in leaves())
    assert max(map(len, lines)) <= 120


def test_the_example_can_be_given_values(folder: Path) -> None:
    given_values = {"tasks": ["tasks.toml"], "commands.sandbox": "auto", "commands.allow": {"sort": "sort", "a.b": "x"}}
    got = loaded(folder, example_toml('odd "name"\\', given_values)).settings
    assert (got.name, got.tasks, got.commands.sandbox) == ('odd "name"\\', ("tasks.toml",), "auto")
    assert got.commands.allow == {"sort": "sort", "a.b": "x"}


@given(st.text() | st.integers(-(2**63), 2**63 - 1) | st.booleans() | st.lists(st.text(max_size=5), max_size=3))
def test_a_value_written_as_toml_reads_back(value: Any) -> None:
    try:
        str(value).encode()
    except UnicodeEncodeError:
        return
    assert tomllib.loads(f"x = {toml(value)}")["x"] == value


def test_what_is_shown_tells_origin_and_hides_secrets(folder: Path) -> None:
    text = '[budgets]\ntask_usd = 0.3\n[plugins.openai]\napi_key = "s3cret"\nsize = 2\nmore = [{token = "s3cret"}]\n'
    shown = {row.path: row for row in rows(loaded(folder, text, VIVARIUM_RESIDENTS="eve"))}
    assert shown["budgets.task_usd"].value == "0.30"
    assert shown["budgets.task_usd"].source.kind == "file"
    assert (shown["residents"].value, shown["residents"].variable) == (["eve"], "VIVARIUM_RESIDENTS")
    assert shown["plugins.openai"].value == {"api_key": HIDDEN, "size": 2, "more": [{"token": HIDDEN}]}
    assert "s3cret" not in repr(shown)


def test_settings_made_by_a_program_are_checked_as_well() -> None:
    with pytest.raises(InputError, match=r"pace_seconds: must be a number from 0 to 300 seconds, not 301"):
        Settings(pace_seconds=301)
    with pytest.raises(InputError, match=r"task_usd"):
        Budgets(task_usd_micros=-1)


def test_reading_settings_costs_nothing_until_they_are_read() -> None:
    script = (
        "import sys, vivarium_kernel.settings, vivarium_kernel.settings_text\n"
        "print(*sorted({'cattrs', 'tomllib', 'json', 'difflib', 'decimal', 'sqlite3', 'asyncio'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_process_environment_is_read_when_none_is_given(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("VIVARIUM_")]:
        monkeypatch.delenv(name)
    (folder / "vivarium.toml").write_text("")
    monkeypatch.setenv("VIVARIUM_NAME", "from outside")
    assert load(folder).settings.name == "from outside"


VALUES = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
SECTIONS = {field.name: field for field in attrs.fields(Settings)}
ANY_TABLES = {
    name: st.dictionaries(st.sampled_from([leaf.path.split(".")[-1] for leaf in leaves()]), VALUES, max_size=5) | VALUES
    for name in ("commands", "budgets", "models", "limits", "retries", "api", "plugins")
}


@settings(max_examples=150)
@given(
    st.fixed_dictionaries({}, optional={**{name: VALUES for name in SECTIONS}, **ANY_TABLES, "sandbox": VALUES}),
    st.dictionaries(st.sampled_from([leaf.variables[0] for leaf in leaves()]), st.text(max_size=10), max_size=4),
)
def test_any_table_and_environment_give_settings_or_problems_with_paths(
    raw: dict[str, Any], environ: dict[str, str]
) -> None:
    try:
        got = settle(raw, environ, "vivarium.toml", "x")
    except SettingsError as error:
        assert all(problem.path and problem.where and problem.message for problem in error.problems)
        assert all(line.isprintable() for line in str(error).splitlines())
    else:
        assert isinstance(got.settings, Settings)
        assert set(got.sources) >= {leaf.path for leaf in leaves()}
        assert rows(got)


def test_a_table_in_a_variable_is_laid_over_the_files(folder: Path) -> None:
    (folder / "vivarium.toml").write_text(
        '[commands.allow]\nsort = "sort"\nuniq = "uniq"\n[plugins.hats]\nbrim_tiles = 1\nfeathers = 2.5\n'
    )
    found = load(folder, {
        "VIVARIUM_COMMANDS_ALLOW": '{ sort = "/usr/bin/sort", cmp = "cmp" }',
        "VIVARIUM_MODELS_PRICES": '{ "vllm:tiny" = { second_usd = "0.0001" } }',
        "VIVARIUM_LIMITS": "{ ada = { tool_calls = 5 } }",
        "VIVARIUM_PLUGINS_HATS": "{ brim_tiles = 3 }",
    })  # fmt: skip
    settings = found.settings
    assert settings.commands.allow == {"sort": "/usr/bin/sort", "uniq": "uniq", "cmp": "cmp"}
    assert settings.models.prices["vllm:tiny"].second_micros == 100
    assert settings.limits["ada"].tool_calls == 5
    assert settings.plugins["hats"] == {"brim_tiles": 3, "feathers": 2.5}
    assert found.sources["commands.allow.cmp"].where == "VIVARIUM_COMMANDS_ALLOW"
    assert found.sources["commands.allow.uniq"].kind == "file"


@pytest.mark.parametrize("text", ["sort", "[1]", "{ sort = }", "{ a = 1 } b = 2"])
def test_a_wrong_table_in_a_variable_is_named(folder: Path, text: str) -> None:
    [problem] = problems(folder, VIVARIUM_COMMANDS_ALLOW=text)
    assert problem.where == "VIVARIUM_COMMANDS_ALLOW"
    assert "must be a TOML table" in problem.message


def test_what_is_wrong_in_a_table_of_a_variable_is_told_at_its_path(folder: Path) -> None:
    [problem] = problems(folder, VIVARIUM_LIMITS="{ ada = { tool_cals = 5 } }")
    assert problem.path.startswith("limits.ada") and "tool_cal" in str(problem)
    [problem] = problems(folder, VIVARIUM_PLUGINS_ALOW="x")
    assert problem.message == "unknown variable"
