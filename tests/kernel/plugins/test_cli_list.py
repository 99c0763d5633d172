"""``vivarium plugins list``, ``info`` and ``hooks``: how each plugin stands and why, without running any."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from kernel.cli.running import Here, village, vivarium
from kernel.plugins.shelf import Shelf


def listed(here: Here, *options: str) -> dict[str, Any]:
    return {one["name"]: one for one in here("plugins", "list", "--json", *options).document}


def settings(here: Here, text: str) -> None:
    path = here.folder / "vivarium.toml"
    path.write_text(path.read_text() + text + "\n")


@pytest.mark.promise("no listing runs a plugin's code")
def test_a_list_names_every_plugin_and_imports_none(shelf: Shelf, here: Here) -> None:
    shelf.put("hat-shop", "1.2", hats="", scarves="")
    done = here("plugins", "list")
    lines = {line.split()[0]: line.split() for line in done.out.splitlines() if line.strip()}
    assert lines["hats"][1:4] == lines["scarves"][1:4] == ["on", "1.2", "hat-shop"]
    assert lines["verifier"][1] == "on"
    assert here("plugins", "--help").status == 0
    assert shelf.imported() == []
    assert not (here.folder / "vivarium.db").exists()  # nor does looking found a village


def test_a_list_outside_a_village_shows_what_is_installed(shelf: Shelf, tmp_path: Path) -> None:
    shelf.put("hat-shop", "1.2", hats="")
    found = vivarium("plugins", "list", "--json", cwd=tmp_path, env={"PYTHONPATH": str(shelf.folder)})
    assert {one["name"]: one["state"] for one in found.document}["hats"] == "on"


def test_two_distributions_with_one_name_are_both_off_and_both_named(shelf: Shelf, here: Here) -> None:
    shelf.put("hat-shop", "1.2", hats="")
    (shelf.folder / "second").mkdir()
    shelf.put("other-hats", "0.9", hats="")
    one = listed(here)["hats"]
    assert one["state"] == "failed"
    assert "hat-shop 1.2 and other-hats 0.9" in one["cause"]
    done = here("plugins", "enable", "hats")
    assert done.status == 2 and "hat-shop 1.2 and other-hats 0.9" in done.err
    run = vivarium("run", cwd=here.folder, env={"PYTHONPATH": str(shelf.folder)})
    assert "hat-shop 1.2 and other-hats 0.9; neither is taken" in run.out + run.err
    assert shelf.imported() == []


def test_a_distribution_cannot_take_the_name_of_one_of_the_kernels_own(shelf: Shelf, here: Here) -> None:
    shelf.put("sham", "1.0", text_policy="")
    rows = [one for one in here("plugins", "list", "--json").document if one["name"] == "text_policy"]
    assert [(one["distribution"], one["state"]) for one in rows] == [("vivarium-kernel", "on"), ("sham", "failed")]
    run = vivarium("run", cwd=here.folder, env={"PYTHONPATH": str(shelf.folder)})
    assert "text_policy" in run.out and "has the name of one of the kernel's own" in run.out
    assert run.status == 0 and shelf.imported() == []


def test_hooks_and_settings_are_known_once_a_plugin_was_enabled(shelf: Shelf, here: Here) -> None:
    shelf.put("hat-shop", "1.2", hats=_HATS)
    assert (listed(here)["hats"]["hooks"], listed(here)["hats"]["config"]) == (None, None)
    assert "not recorded" in here("plugins", "list").out
    assert here("plugins", "enable", "hats").status == 0
    before = shelf.imported()
    one = listed(here)["hats"]
    assert (one["hooks"], one["config"]) == (["claim_filter", "on_tick"], ["brim_tiles"])
    assert shelf.imported() == before


_HATS = """
    @attrs.frozen
    class Config:
        brim_tiles: int = attrs.field(default=3, metadata={"doc": "How wide."})

    after = ("scarves",)

    @hookimpl
    def on_tick(self, now, tx):
        pass

    @hookimpl
    def claim_filter(self, resident, tasks, view):
        return []
"""


def test_what_is_recorded_and_missing_is_named(shelf: Shelf, here: Here) -> None:
    (here.folder / "plugins.json").write_text(
        json.dumps({"disabled": ["gone"], "plugins": {
            "hats": {"distribution": "hat-shop", "version": "1.2", "requirement": "hat-shop==1.2"},
            "scarves": {"distribution": "scarf-shop", "version": "2", "requirement": "scarf-shop==2",
                        "requires": ["hats"]}}})
    )  # fmt: skip
    shelf.put("scarf-shop", "2", scarves="")
    found = listed(here)
    assert (found["hats"]["state"], found["hats"]["version"]) == ("failed", "1.2")
    assert "vivarium plugins sync" in found["hats"]["next_step"]
    assert (found["scarves"]["state"], found["scarves"]["cause"]) == ("failed", "it requires hats, which is not on")
    assert (found["gone"]["state"], found["gone"]["cause"]) == ("off", "switched off, and not installed")
    run = vivarium("run", cwd=here.folder, env={"PYTHONPATH": str(shelf.folder)})
    assert "plugin hats is recorded (hat-shop==1.2) and not installed: vivarium plugins sync restores it" in run.out
    assert "gone" not in run.out


def test_a_changed_file_is_reported_and_in_allow_mode_refused(shelf: Shelf, here: Here) -> None:
    shelf.put("hat-shop", "1.2", hats="")
    assert here("plugins", "enable", "hats").status == 0
    assert listed(here)["hats"]["cause"] == ""
    module = shelf.folder / "zz_hats.py"
    module.write_text(module.read_text() + "\n# changed\n")
    path = {"PYTHONPATH": str(shelf.folder)}
    one = listed(here)["hats"]
    assert one["state"] == "on" and "its files are not those of hat-shop 1.2" in one["cause"]
    run = vivarium("run", cwd=here.folder, env=path)
    assert "plugin hats has changed: its files are not those" in run.out
    times = len(shelf.imported())

    settings(here, 'plugins_allow = ["hats"]')
    assert listed(here)["hats"]["state"] == "failed"
    run = vivarium("run", cwd=here.folder, env=path)
    assert "plugin hats is left out" in run.out and "its files are not those" in run.out
    assert len(shelf.imported()) == times  # what was not looked at is not run

    assert here("plugins", "enable", "hats").status == 0
    assert listed(here)["hats"]["state"] == "on"
    assert "left out" not in vivarium("run", cwd=here.folder, env=path).out


def test_only_plugins_that_are_allowed_load(shelf: Shelf, here: Here) -> None:
    shelf.put("hat-shop", "1.2", hats="", scarves="")
    settings(here, 'plugins_allow = ["scarves"]')
    found = listed(here)
    assert (found["hats"]["state"], found["scarves"]["state"], found["verifier"]["state"]) == ("off", "on", "on")
    assert "plugins_allow" in found["hats"]["cause"]
    vivarium("run", cwd=here.folder, env={"PYTHONPATH": str(shelf.folder)})
    assert set(shelf.imported()) == {"scarves"}
    done = here("plugins", "enable", "hats")
    assert done.status == 2 and "[plugins.allow]" in done.err


def test_imports_are_measured_each_in_a_process_of_its_own(shelf: Shelf, here: Here) -> None:
    bodies = {"hats": "", "slow": "import time; time.sleep(0.5)", "exits": "raise SystemExit(3)",
              "dies": "import os; os._exit(7)", "prints": "print('{}')",
              "misspelt": "@hookimpl\ndef enrch_prompt(self): pass"}  # fmt: skip
    shelf.put("hat-shop", "1.2", **bodies)
    found = listed(here, "--imports")
    assert found["slow"]["import_ms"] >= 500 > found["hats"]["import_ms"]
    assert {name: found[name]["state"] for name in bodies} == {
        "hats": "on", "slow": "on", "exits": "failed", "dies": "failed", "prints": "on", "misspelt": "failed"
    }  # fmt: skip
    assert "SystemExit: 3" in found["exits"]["cause"]
    assert "ended the process with status 7" in found["dies"]["cause"]
    assert "did you mean enrich_prompt?" in found["misspelt"]["cause"]
    assert found["misspelt"]["next_step"].endswith("vivarium plugins disable misspelt")
    assert "import ms" in here("plugins", "list", "--imports").out


def test_info_shows_what_a_plugin_is_and_can_be_set_to(shelf: Shelf, here: Here) -> None:
    shelf.put("hat-shop", "1.2", hats=_HATS)
    settings(here, "[plugins.hats]\nbrim_tiles = 'wide'")
    out = here("plugins", "info", "hats").out
    for said in ("Does one thing.", "hat-shop 1.2", "zz_hats:It", "claim_filter, on_tick",
                 "brim_tiles: int = 3  How wide.", "scarves", "plugins.hats.brim_tiles"):  # fmt: skip
        assert said in out
    assert here("plugins", "info", "hats", "--json").document["state"] == "failed"
    assert "review_outcome" in here("plugins", "info", "verifier").out
    done = here("plugins", "info", "hat")
    assert done.status == 2 and "Did you mean hats?" in done.err


def test_a_run_says_each_thing_that_is_wrong_with_a_plugin_on_a_line_of_its_own(shelf: Shelf, here: Here) -> None:
    shelf.put("hat-shop", "1.2", hats=_HATS)
    settings(here, "[plugins.hats]\nbrim_tiles = 'wide'\ncolour = 'red'")
    out = vivarium("run", cwd=here.folder, env={"PYTHONPATH": str(shelf.folder)}).out.splitlines()
    said = [line.partition(" is left out: ")[2] for line in out if line.startswith("plugin hats is left out: ")]
    assert sorted(line.split(":")[0] for line in said) == ["plugins.hats.brim_tiles", "plugins.hats.colour"]


def test_what_a_run_left_out_is_listed_as_failed_until_a_run_takes_it_up(shelf: Shelf, here: Here) -> None:
    shelf.put("hat-shop", "1.2", hats=_HATS)
    path = {"PYTHONPATH": str(shelf.folder)}
    settings(here, "[plugins.hats]\nbrim_tiles = 'wide'")
    assert vivarium("run", cwd=here.folder, env=path).status == 0
    found = listed(here)["hats"]
    assert (found["state"], found["off_on"]) == ("failed", {})
    assert "plugins.hats.brim_tiles" in found["cause"]
    assert "hats is off on loading" in here("status").out
    file = here.folder / "vivarium.toml"
    file.write_text(file.read_text().replace("'wide'", "2"))
    done = vivarium("run", cwd=here.folder, env=path)
    assert (done.status, "hats" in done.out) == (0, False), done.out
    assert listed(here)["hats"]["state"] == "on"
    assert "hats is off" not in here("status").out


def test_any_plugin_can_be_required(shelf: Shelf, here: Here) -> None:
    """So that none is missing in silence whose review nobody else makes."""
    shelf.put("hat-shop", "1.2", hats=_HATS)
    path = {"PYTHONPATH": str(shelf.folder)}
    required = 'safety_required = ["command_policy", "text_policy", "hats"]\n'
    settings(here, required)
    assert vivarium("run", cwd=here.folder, env=path).status == 0
    settings(here, "[plugins.hats]\nbrim_tiles = 'wide'")
    done = vivarium("run", cwd=here.folder, env=path)
    assert done.status == 2
    assert "These plugins are required and not on: hats." in done.err and "plugins.hats.brim_tiles" in done.err


def test_hooks_are_listed_with_those_who_implement_them(shelf: Shelf, here: Here) -> None:
    shelf.put("hat-shop", "1.2", hats=_HATS)
    found = {one["hook"]: one for one in here("plugins", "hooks", "--json").document}
    assert found["on_tick"]["on"] == ["hats"] and found["check_safety"]["on"] == ["command_policy", "text_policy"]
    assert all(one["doc"] for one in found.values())
    assert here("plugins", "hooks", "claim_filter").out.split()[-10:].count("hats") <= 1
    done = here("plugins", "hooks", "on_tock")
    assert done.status == 2 and "Did you mean on_tick?" in done.err


def test_a_hook_that_is_switched_off_is_seen_in_the_list(shelf: Shelf, here: Here) -> None:
    shelf.put("hat-shop", "1.2", hats=_HATS)
    here("pace", "1")  # founds the village
    with sqlite3.connect(here.folder / "vivarium.db") as connection:
        connection.execute(
            "INSERT INTO breakers (plugin, hook, cause, at) VALUES ('hats', 'on_tick', 'failed 5 times in a row', 1)"
        )
    assert listed(here)["hats"]["off_on"] == {"on_tick": "failed 5 times in a row"}
    assert "off on on_tick: failed 5 times in a row → vivarium plugins retry hats" in here("plugins", "list").out
    assert {one["hook"]: one["off"] for one in here("plugins", "hooks", "--json").document}["on_tick"] == ["hats"]


def test_a_damaged_registry_is_refused_and_named(here: Here) -> None:
    (here.folder / "plugins.json").write_text("{")
    done = here("plugins", "list")
    assert done.status == 2 and "plugins.json" in done.err and "[plugins.file]" in done.err


def test_one_run_can_leave_plugins_out(shelf: Shelf, tmp_path: Path) -> None:
    shelf.put("hat-shop", "1.2", hats="", scarves="", gloves="")
    place = village(tmp_path / "small")
    path = {"PYTHONPATH": str(shelf.folder)}

    def imported(*options: str, **env: str) -> set[str]:
        shelf.marks.unlink(missing_ok=True)
        done = vivarium("run", *options, cwd=place, env=path | env)
        assert done.status == 0, done.err
        return set(shelf.imported())

    assert imported() == {"hats", "scarves", "gloves"}
    assert imported("--without", "hats", "--without", "verifier") == {"scarves", "gloves"}
    assert imported("--with-only", "hats,gloves") == {"hats", "gloves"}
    assert imported("--with-only", "hats,gloves", "--without", "hats") == {"gloves"}
    assert imported(VIVARIUM_PLUGINS="scarves") == {"scarves"}
    assert imported("--with-only", "hats", VIVARIUM_PLUGINS="scarves") == {"hats"}
    assert imported(VIVARIUM_PLUGINS="") == set()
    assert not (place / "plugins.json").exists()
    for options, env in (
        (("--without", "hat"), {}),
        (("--with-only", "hats,glove"), {}),
        ((), {"VIVARIUM_PLUGINS": "hatz"}),
    ):
        done = vivarium("run", *options, cwd=place, env=path | env)
        assert done.status == 2 and "Did you mean" in done.err
    done = vivarium("run", "--without", "text_policy", cwd=place, env=path)
    assert done.status == 2 and "[safety.required]" in done.err
