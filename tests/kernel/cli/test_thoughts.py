"""Promises about what a run says of models: its table, what stands in for them, and what it refuses without any."""

from __future__ import annotations

import errno
import os
import pty
import re
import subprocess
from pathlib import Path

import pytest
from kernel.tools.scene import use, use_all
from vivarium_kernel.cli import thoughts
from vivarium_kernel.deciding import Answering, answer
from vivarium_kernel.models import Price, ProviderFault
from vivarium_kernel.testing import RunCycles, ScriptedModel, StagedVillage

from .running import Done, argv, environment, village, vivarium

PROMPT = 'prompt = "Where is the lamp?"'
NIGHT = 'model = "auto"\n'


def run(folder: Path, *options: str) -> Done:
    return vivarium("run", folder, *options, cwd=folder.parent)


# Without a model


@pytest.mark.parametrize(
    ("tasks", "settings", "said"),
    [
        ([f'id = "a"\n{PROMPT}'], NIGHT, 'model = "auto", and no class of [models] is set. 1 of 1 tasks need one (a)'),
        ([f'id = "a"\n{PROMPT}'], 'model = "large"\n', 'model = "large", and no class'),
        ([f'id = "a"\n{PROMPT}\nmodel = "small"'], NIGHT, "1 of 1 tasks need one (a)"),
        ([f'id = "a"\n{PROMPT}'], 'model = "nimbus:big"\n', "models of nimbus, and no such provider is installed"),
        ([f'id = "a"\n{PROMPT}'], f'{NIGHT}[models]\nsmall = "nimbus:big"\n', "Install the plugin that brings it"),
        ([f'id = "a"\n{PROMPT}'], 'model = "grok:big"\n', "Did you mean groq?"),
        ([f'id = "a"\n{PROMPT}'], 'model = "nimbus:x,groq:x"\n', "vivarium plugins install vivarium-plugins-groq"),
    ],
    ids=["auto", "a class", "a task's class", "no provider", "no provider of a class", "a typo", "one of ours"],
)
def test_a_run_that_needs_a_model_and_has_none_is_refused_and_changes_nothing(
    tmp_path: Path, tasks: list[str], settings: str, said: str
) -> None:
    folder = village(tmp_path / "v", tasks, settings)
    done = run(folder)
    assert (done.status, done.out) == (2, "")
    assert said in done.err
    assert not (folder / "vivarium.db").exists()


@pytest.mark.parametrize(
    ("task", "settings"),
    [
        ('id = "a"\ncommand = ["ls"]', NIGHT),
        (f'id = "a"\n{PROMPT}\nmodel = "scripted:echo"', NIGHT),
        (f'id = "a"\n{PROMPT}', f'{NIGHT}[models]\nmedium = "scripted:echo"\n'),
        (f'id = "a"\n{PROMPT}', ""),
    ],
    ids=["commands alone", "its own model", "a class", "the default"],
)
def test_a_run_that_has_all_it_needs_is_not_refused(tmp_path: Path, task: str, settings: str) -> None:
    done = run(village(tmp_path / "v", [task], settings))
    assert done.status == 0, done.err


def test_residents_with_models_of_their_own_need_none_of_the_village(tmp_path: Path) -> None:
    folder = village(tmp_path / "v", [f'id = "a"\n{PROMPT}\nwanted = "dora"'], NIGHT)
    assert vivarium("resident", "add", "dora", "--model", "scripted:echo", "-v", folder, cwd=tmp_path).status == 0
    assert run(folder).status == 0
    assert run(folder, "--scripted").status == 0  # no LLM, either


@pytest.mark.parametrize("where", ["file", "board", "resident"])
def test_a_scripted_run_never_calls_a_model_that_is_named_elsewhere(tmp_path: Path, where: str) -> None:
    mine = f'id = "a"\n{PROMPT}' + ('\nmodel = "nimbus:big"' if where == "file" else "")
    folder = village(tmp_path / "v", [mine])
    if where == "board":
        vivarium("task", "add", "--id", "b", "--prompt", "x", "--model", "nimbus:big", "-v", folder, cwd=tmp_path)
    if where == "resident":
        vivarium("resident", "add", "dora", "--model", "nimbus:big", "-v", folder, cwd=tmp_path)
    done = run(folder, "--scripted")
    who = {"file": "task a", "board": "task b", "resident": "resident dora"}[where]
    assert done.status == 2
    assert f"{who} names nimbus:big itself" in done.err


def test_a_scripted_run_holds_where_classes_limits_and_an_allowlist_are_set(tmp_path: Path) -> None:
    settings = (
        f'{NIGHT}[models]\nallow = ["nimbus:*"]\nsmall = "nimbus:big"\n'
        '[limits.default]\nmodels = ["nimbus:big"]\ntokens_per_day = 100000\n'
    )
    done = run(village(tmp_path / "v", [f'id = "a"\n{PROMPT}\nmodel = "small"'], settings), "--scripted")
    assert done.status == 0, done.out + done.err
    assert re.search(r"^a +scripted:tools ", done.out, re.MULTILINE)


# The table


def test_who_stood_in_for_whom_is_marked_and_said(tmp_path: Path) -> None:
    wish = '\nmodel = "scripted:wait-0, scripted:echo"'
    settings = '[models]\nallow = ["scripted:echo"]\n'
    folder = village(tmp_path / "v", [f'id = "a"\n{PROMPT}{wish}', f'id = "b"\n{PROMPT}'], settings)
    done = run(folder)
    assert re.search(r"^a +\* scripted:echo ", done.out, re.MULTILINE)
    assert re.search(r"^b +scripted:echo ", done.out, re.MULTILINE)
    assert "* a: scripted:echo stood in for scripted:wait-0: The village does not allow scripted:wait-0." in done.out
    (first, second) = run(folder, "--json").document["thoughts"]
    assert (first["instead_of"], second["instead_of"]) == ("scripted:wait-0", "")


@pytest.mark.promise("The table of a run fits 80 columns")
def test_the_tables_fit_eighty_columns_and_cut_no_name(tmp_path: Path) -> None:
    name = "a-task-with-a-name-that-is-as-long-as-one-may-well-make-it"
    tasks = [f'id = "{name}-{number}"\n{PROMPT}' for number in range(3)]
    folder = village(tmp_path / "v", tasks)
    main, other = pty.openpty()
    env = environment({"COLUMNS": "80", "LINES": "40", "TERM": "xterm"})
    with subprocess.Popen(
        argv("run", folder, "--scripted"), cwd=tmp_path, env=env, stdin=subprocess.DEVNULL, stdout=other, stderr=other
    ) as process:
        os.close(other)
        said = b"".join(iter(lambda: read(main), b""))
        assert process.wait(60) == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said.decode()).replace("\r", "")
    ended, thoughts = text[text.index(f"{name}-0\n") :].split("What models did:")
    thoughts = thoughts.split("\n\n")[0]
    assert [line for line in (ended + thoughts).splitlines() if len(line) > 80] == []
    figures = r"model: scripted:tools; usd: 0; tokens in: \d+"
    for table, words in ((ended, r"status: done; resident: \w+"), (thoughts, figures)):
        assert re.findall(rf"^{name}-(\d)\n    {words}", table, re.M) == ["0", "1", "2"], table


def read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError as error:
        if error.errno == errno.EIO:  # the other side is closed
            return b""
        raise


def test_a_step_that_a_continued_attempt_was_given_again_counts_once(
    village: StagedVillage, scripted_model: ScriptedModel, run_cycles: RunCycles
) -> None:
    scripted_model.price_of_all = Price(1_000_000, 1_000_000)
    scripted_model.says(
        use_all(("desk.report", {"text": "I begin."}), ("desk.report", {"text": "I look."})),
        use("desk.ask", question="Which lamp?"),
        "The tall one.",
    )
    village.task(id="lamp")
    run_cycles()
    village.store.call(answer, Answering("lamp", "The tall one.", "operator:test"))
    run_cycles()
    with village.store.view() as view:
        (one,) = thoughts.thoughts(view)
        ((spent,),) = view.rows("SELECT sum(micros) FROM transfers WHERE currency = 'usd'")
    assert village.state("lamp") == "done"
    assert (one.calls, one.steps, one.model) == (3, 6, "scripted_model:m")
    assert one.spent_micros == spent > 0


def test_a_call_that_never_was_is_no_step_and_what_it_cost_is_in_the_sum(
    village: StagedVillage, scripted_model: ScriptedModel, run_cycles: RunCycles
) -> None:
    scripted_model.price_of_all = Price(1_000, 1_000)
    scripted_model.says(ProviderFault("429", started=False), ProviderFault("cut", started=True), "Good morning.")
    village.task(id="lamp")
    run_cycles(3)
    with village.store.view() as view:
        found = list(thoughts.thoughts(view))
        ((spent,),) = view.rows("SELECT sum(micros) FROM transfers WHERE currency = 'usd'")
    sums = thoughts.sums(found)
    assert (sums.tasks, sums.calls, sums.steps) == (1, 2, 2)
    assert sums.spent_micros == spent > 0
