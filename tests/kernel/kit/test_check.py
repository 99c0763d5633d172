"""Promises about ``vivarium plugins check``: whatever a plugin does, it is told by name and the command comes back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from vivarium_kernel.testing.conformance import checks

from . import installing
from .installing import Done

pytestmark = pytest.mark.thorough

HEAD = '"""A rogue."""\nfrom vivarium_kernel import Plugin, hookimpl\n'
SOUND = HEAD + 'class Rogue(Plugin):\n    """It does nothing."""\n    name = "rogue"\n'


def checked(tmp_path: Path, source: str, *more: str) -> tuple[Done, dict[str, Any]]:
    """Install a plugin of this source and check it; the results by check."""
    site = tmp_path / "site"
    distribution = installing.plugin(site, source)
    done = installing.vivarium("plugins", "check", distribution, "--json", *more, site=site, cwd=tmp_path)
    results = json.loads(done.out) if done.out.startswith("[") else []
    return done, {each["check"]: each for each in results}


def test_a_sound_plugin_holds_every_check(tmp_path: Path) -> None:
    done, results = checked(tmp_path, SOUND)
    assert done.status == 0, done.out + done.err
    assert [f"test_{check}" for check in results] == checks()


def test_a_misspelled_hook_is_told_with_the_one_that_was_meant(tmp_path: Path) -> None:
    source = SOUND + "    @hookimpl\n    def enrch_prompt(self, resident, task, view):\n        return []\n"
    done, results = checked(tmp_path, source)
    assert done.status == 1
    assert results["its_hooks_fit"]["result"] == "failed"
    assert "did you mean enrich_prompt" in results["its_hooks_fit"]["why"]
    assert results["it_documents_itself"]["result"] == "passed"


def test_a_plugin_that_can_not_be_imported_is_told_once(tmp_path: Path) -> None:
    done, results = checked(tmp_path, "import no_such_module_anywhere\n" + SOUND)
    assert done.status == 1
    told = results.pop("its_entry_point_leads_to_it")
    assert "no_such_module_anywhere" in told["why"] and told["result"] == "failed"
    assert {each["result"] for each in results.values()} == {"skipped"}


def test_a_plugin_that_ends_the_process_is_named_with_its_check(tmp_path: Path) -> None:
    source = SOUND + "    @hookimpl\n    def on_tick(self, now, tx):\n        import os\n        os._exit(7)\n"
    done, results = checked(tmp_path, source)
    assert done.status == 1
    last = list(results.values())[-1]
    assert (last["plugin"], last["check"], last["result"]) == ("rogue", "it_lives_without_a_fault", "ended")
    assert "status 7" in last["why"]


def test_a_plugin_that_hangs_is_named_with_its_check(tmp_path: Path) -> None:
    done, results = checked(tmp_path, SOUND + "import time\ntime.sleep(3600)\n", "--timeout", "12")
    assert done.status == 1
    (last,) = results.values()
    assert (last["check"], last["result"]) == ("its_entry_point_leads_to_it", "ended")
    assert "more than 12 s" in last["why"]


def test_a_check_is_excused_only_with_a_reason_and_only_while_it_fails(tmp_path: Path) -> None:
    source = SOUND.replace('"""A rogue."""\n', "")
    done, results = checked(tmp_path, source, "--xfail", "it documents itself=it is shy")
    assert done.status == 0, done.out
    assert results["it_documents_itself"] | {"seconds": 0} == {
        "plugin": "rogue", "check": "it_documents_itself", "result": "excused", "seconds": 0, "why": "it is shy",
    }  # fmt: skip


def test_an_excuse_for_a_check_that_is_held_is_a_failure(tmp_path: Path) -> None:
    done, results = checked(tmp_path, SOUND, "--xfail", "it_documents_itself=it is shy")
    assert done.status == 1
    assert results["it_documents_itself"]["result"] == "failed"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no-such-distribution"], "There is no installed distribution 'no-such-distribution'"),
        (["attrs"], "brings no plugin"),
        (["attrs", "--xfail", "its_hooks_fit"], "gives no reason"),
    ],
)
def test_what_can_not_be_checked_is_refused(arguments: list[str], said: str, tmp_path: Path) -> None:
    done = installing.vivarium("plugins", "check", *arguments, site=tmp_path, cwd=tmp_path)
    assert done.status == 2
    assert said in done.err


def test_for_people_there_is_a_table_and_each_reason(tmp_path: Path) -> None:
    site = tmp_path / "site"
    distribution = installing.plugin(site, SOUND.replace('"""It does nothing."""', "x = 1"))
    done = installing.vivarium("plugins", "check", distribution, site=site, cwd=tmp_path)
    assert done.status == 1
    assert "rogue: it documents itself (failed)\n  Rogue has no docstring" in done.out
    assert "14 checks, 1 not held" in done.out
