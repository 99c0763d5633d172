"""Promises about `vivarium plan`: shown first, posted on approval, refused by the setting, honest about no LLM."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import vivarium_plugins_intent
from attrs import frozen
from click.testing import CliRunner
from vivarium_kernel.cli import main
from vivarium_kernel.cli.opening import acting
from vivarium_kernel.cli.refusing import answered
from vivarium_kernel.people import NewToken
from vivarium_kernel.village import Village, With
from vivarium_plugins_intent import command
from vivarium_plugins_intent.planning import RULE_LABEL

from vivarium_kernel import Conflict, people

from .scene import LONG, SHORT


@frozen
class Said:
    status: int
    out: str
    err: str


pytestmark = pytest.mark.usefixtures("installed")


@pytest.fixture
def plan(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Said]:
    """`vivarium plan` in a village that was made with `init --work`."""
    monkeypatch.setenv("COLUMNS", "200")
    folder = tmp_path / "small"
    assert main(["init", str(folder), "--work"]) == 0
    capsys.readouterr()
    return planner(folder, capsys)


def planner(folder: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    def run(*arguments: str) -> Said:
        words = [*arguments, "--village", str(folder)]
        status = answered(lambda: command.plan.main(words, prog_name="vivarium plan", standalone_mode=False))
        found = capsys.readouterr()
        return Said(status, found.out, found.err)

    run.folder = folder  # type: ignore[attr-defined]
    return run


def tasks(plan: Callable[..., Said]) -> list[tuple[str, str]]:
    with Village(plan.folder, With(load_plugins=False)) as village, village.store.view() as view:  # type: ignore[attr-defined]
        return [(row[0], row[1]) for row in view.rows("SELECT id, state FROM tasks ORDER BY seq")]


def test_a_plan_is_shown_and_nothing_is_posted_without_approval(plan: Callable[..., Said]) -> None:
    done = plan(LONG, "--budget", "0.20", "--must", "Name sources.", "--never", "Guess.")
    assert done.status == 0, done.err
    assert f"by {RULE_LABEL}" in done.out
    assert re.search(r"^t1-part-2 +then list the names in them; +t1-part-1 +0.05 USD$", done.out, re.M)
    assert re.search(r"^t1-whole .* t1-part-1, t1-part-2, t1-part-3 +0.05 USD$", done.out, re.M)
    assert "Together 0.20 USD" in done.out
    assert "has to keep to: Name sources." in done.out
    assert "must not: Guess." in done.out
    assert "vivarium do intent.approve plan=t1 digest=" in done.out
    assert tasks(plan) == [("t1", "done")]


def test_yes_posts_what_was_shown(plan: Callable[..., Said]) -> None:
    done = plan(LONG, "--yes")
    assert done.status == 0, done.err
    assert "Posted: t1-part-1, t1-part-2, t1-part-3, t1-whole" in done.out
    assert tasks(plan) == [
        ("t1", "done"), ("t1-part-1", "open"), ("t1-part-2", "waiting"), ("t1-part-3", "waiting"),
        ("t1-whole", "waiting"),
    ]  # fmt: skip


@pytest.mark.parametrize(("typed", "posted"), [("y", 2), ("n", 1), ("", 1)])
def test_a_terminal_is_asked(
    plan: Callable[..., Said], monkeypatch: pytest.MonkeyPatch, typed: str, posted: int
) -> None:
    monkeypatch.setattr(command, "_is_terminal", lambda: True)
    words = [SHORT, "--village", str(plan.folder)]  # type: ignore[attr-defined]
    done = CliRunner().invoke(command.plan, words, input=f"{typed}\n", standalone_mode=False)
    assert "Post these tasks? [y/N]" in done.output
    assert len(tasks(plan)) == posted


def test_json_is_one_document_with_the_digest(plan: Callable[..., Said]) -> None:
    shown = json.loads(plan(SHORT, "--json").out)
    assert shown["posted"] is False
    assert [task["max_micros"] for task in shown["tasks"]] == [100_000]
    again = json.loads(plan(SHORT, "--json", "--yes").out)
    assert again["posted"] is True
    assert len(tasks(plan)) == 3
    assert len(again["digest"]) == 16


def test_plans_are_listed_with_what_became_of_them(plan: Callable[..., Said]) -> None:
    assert plan("--list").out == "There is no plan yet: vivarium plan GOAL\n"
    plan(SHORT)
    plan(LONG, "--yes")
    listed = plan("--list")
    assert listed.status == 0, listed.err
    assert re.findall(r"^(t\d) +(posted|to be approved) +(.{12})", listed.out, re.M) == [
        ("t1", "to be approved", SHORT[:12]), ("t2", "posted", LONG[:12]),
    ]  # fmt: skip
    both = json.loads(plan("--list", "--json").out)["plans"]
    assert [(one["plan"], one["state"], one["posted"]) for one in both] == [("t1", "done", False), ("t2", "done", True)]
    with acting(plan.folder, None, "POST /plan", plugins=True) as (opened, actor):  # type: ignore[attr-defined]
        waiting = asyncio.run(command._do(opened, actor, "list", {"waiting": True}))["plans"]
        few = asyncio.run(command._do(opened, actor, "list", {"most": 1}))
    assert [one["plan"] for one in waiting] == ["t1"]
    assert ([one["plan"] for one in few["plans"]], few["more"]) == (["t1"], True)
    assert plan("--list", SHORT).status == 2


def test_a_plan_that_is_dropped_waits_no_more_and_cannot_be_posted(plan: Callable[..., Said]) -> None:
    shown = json.loads(plan(SHORT, "--json").out)
    plan(LONG, "--yes")
    assert plan("--drop", shown["plan"]).out == f"Dropped {shown['plan']}: it can't be posted any more\n"
    assert plan("--drop", shown["plan"]).status == 0
    assert re.findall(r"^(t\d) +(posted|dropped)", plan("--list").out, re.M) == [("t2", "posted"), ("t1", "dropped")]
    posted = plan("--drop", "t2")
    assert posted.status == 2 and "[plan.posted]" in posted.err
    assert "[plan.unknown]" in plan("--drop", "t9").err
    with acting(plan.folder, None, "POST /plan", plugins=True) as (opened, actor):  # type: ignore[attr-defined]
        assert asyncio.run(command._do(opened, actor, "show", {"plan": "t1"}))["dropped"] is True
    assert plan("--drop", "t1", SHORT).status == 2
    with acting(plan.folder, None, "POST /plan", plugins=True) as (opened, actor):  # type: ignore[attr-defined]
        found = asyncio.run(command._do(opened, actor, "list", {"waiting": True}))["plans"]
        assert found == []
        asked = {"plan": shown["plan"], "digest": shown["digest"]}
        with pytest.raises(Conflict, match="was dropped"):
            asyncio.run(command._do(opened, actor, "approve", asked))
        events = opened.store.call(lambda tx, _: tx.rows("SELECT task FROM events WHERE kind = 'intent.dropped'"), None)
    assert events == [(shown["plan"],)]


def test_files_of_the_folder_are_planned(plan: Callable[..., Said]) -> None:
    for name in ("one.md", "two.md"):
        (plan.folder / name).write_text(f"Mend {name}.")  # type: ignore[attr-defined]
    shown = json.loads(plan("--files", "*.md", "--json").out)
    assert [task["title"] for task in shown["tasks"][:-1]] == ["one.md", "two.md"]


def test_a_village_of_documents_exits_with_2_and_names_the_setting(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "documents"
    assert main(["init", str(folder)]) == 0
    assert re.search(r'^#write_policy = "documents"$', (folder / "vivarium.toml").read_text(), re.M)
    plan = planner(folder, capsys)
    done = plan(SHORT, "--yes")
    assert done.status == 2
    assert "write_policy" in done.err
    assert 'write_policy = "work"' in done.err
    assert tasks(plan) == []


def test_init_work_sets_the_policy(plan: Callable[..., Said]) -> None:
    text = (plan.folder / "vivarium.toml").read_text()  # type: ignore[attr-defined]
    assert re.search(r'^write_policy = "work"$', text, re.M)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "Give a GOAL"),
        (("  ",), "plan.goal"),
        ((SHORT, "--budget", "much"), "--budget"),
        ((SHORT, "--budget", "0"), "max_micros"),
        ((SHORT, "--files", "../*"), "leads out"),
        ((SHORT, "--files", "*.rst"), "No file"),
    ],
)
def test_what_cannot_be_planned_is_refused_with_2(
    plan: Callable[..., Said], arguments: tuple[str, ...], words: str
) -> None:
    done = plan(*arguments)
    assert done.status == 2, (done.out, done.err)
    assert words in done.err
    assert tasks(plan) == []


def test_a_plan_that_does_not_come_about_exits_with_1_and_says_why(plan: Callable[..., Said]) -> None:
    done = plan(LONG, "--budget", "0.01", "--min-budget", "0.01")
    assert done.status == 1
    assert "4 * 0.01 = 0.04 USD, and the budget is 0.01 USD" in done.err
    assert plan(SHORT, "--model", "nobody:nothing").status == 1


def test_a_village_at_rest_plans_nothing(plan: Callable[..., Said]) -> None:
    assert main(["pause", "--village", str(plan.folder)]) == 0  # type: ignore[attr-defined]
    done = plan(SHORT)
    assert done.status == 2
    assert "paused" in done.err
    assert tasks(plan) == []


def test_a_token_may_do_what_its_role_may(plan: Callable[..., Said]) -> None:
    with Village(plan.folder, With(load_plugins=False)) as village:  # type: ignore[attr-defined]
        for role, name in (("human", "hana"), ("resident", "ada"), ("worker", "far")):
            village.store.call(people.make_token, NewToken(role, name, f"{name}-secret", "test"))  # type: ignore[arg-type]
    assert plan(SHORT, "--as", "hana-secret").status == 0
    for secret in ("ada-secret", "far-secret", "nobody"):
        assert plan(SHORT, "--as", secret).status == 2


def test_importing_the_command_is_quick_enough_for_a_help_page() -> None:
    code = "import sys, vivarium_plugins_intent.command; print({'msgspec', 'starlette', 'cattrs'} & {*sys.modules})"
    env = {**os.environ, "PYTHONPATH": str(Path(vivarium_plugins_intent.__file__).parents[1])}  # it is not installed
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()", "what is slow is imported when it is used"
