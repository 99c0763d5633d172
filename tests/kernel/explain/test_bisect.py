"""The plugins that break a command are found: one by itself, several together, or none."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel.cli.running import village as small
from kernel.cli.running import vivarium
from vivarium_kernel.cli.bisecting import Found, Ran, find, runner

from vivarium_kernel import inspecting

from .scene import site

NAMES = [f"p{number:02}" for number in range(64)]


def bisect(
    faults: Collection[frozenset[str]], requires: dict[str, Sequence[str]] | None = None, names: Sequence[str] = NAMES
) -> Found:
    """The command breaks wherever all plugins of one of the faults are on."""
    requires = requires or {}

    def run(plugins: frozenset[str]) -> Ran:
        assert all(other in plugins for name in plugins for other in requires.get(name, ()) if other in names)
        return Ran(plugins, any(fault <= plugins for fault in faults), 1, 0.0)

    return find(names, requires, run)


@pytest.mark.promise("bisect")
def test_one_of_many_is_found_in_few_runs() -> None:
    for name in NAMES:
        found = bisect([frozenset([name])])
        assert found.culprits == ((name,),)
        assert found.runs <= 16


@pytest.mark.promise("bisect")
def test_two_that_break_it_only_together_are_named_together() -> None:
    found = bisect([frozenset(["p03", "p60"])])
    assert found.culprits == (("p03", "p60"),)
    assert found.runs < 64


def test_two_that_break_it_each_by_itself_are_named_apart() -> None:
    assert sorted(bisect([frozenset(["p07"]), frozenset(["p41"])]).culprits) == [("p07",), ("p41",)]


@pytest.mark.promise("bisect")
def test_a_command_that_breaks_with_none_or_works_with_all_blames_nobody() -> None:
    none = bisect([frozenset()])
    assert none.culprits == ()
    assert none.without is not None
    assert none.without.broke
    works = bisect([])
    assert works.culprits == ()
    assert works.without is None
    assert works.runs == 1


@pytest.mark.promise("bisect")
def test_what_it_requires_is_on_with_it_and_is_not_blamed_for_it() -> None:
    requires: dict[str, Sequence[str]] = {"guilds": ["hats"], "hats": ["identity"], "rooms": ["identity"]}
    names = ["guilds", "hats", "identity", "rooms"]
    found = bisect([frozenset(["guilds"])], requires, names)
    assert found.culprits == (("guilds",),)
    assert found.beside == {"guilds": ("hats", "identity")}
    assert bisect([frozenset(["identity"])], requires, names).culprits == (("identity",),)
    assert bisect([frozenset(["hats", "rooms"])], requires, names).culprits == (("hats", "rooms"),)
    absent: dict[str, Sequence[str]] = {"guilds": ["never_installed"]}
    assert bisect([frozenset(["guilds"])], absent, names).culprits == (("guilds",),)


SMALL = NAMES[:7]


@pytest.mark.promise("bisect")
@settings(max_examples=300)
@given(
    st.lists(st.frozensets(st.sampled_from(SMALL), min_size=1, max_size=3), min_size=1, max_size=3),
    st.dictionaries(st.sampled_from(SMALL[1:]), st.integers(0, 5), max_size=5),
)
def test_what_is_named_breaks_it_and_nothing_of_it_can_be_left_out(
    faults: list[frozenset[str]], below: dict[str, int]
) -> None:
    requires: dict[str, Sequence[str]] = {
        name: [SMALL[min(place, SMALL.index(name) - 1)]] for name, place in below.items()
    }

    def closed(wanted: Collection[str]) -> frozenset[str]:
        more = {other for name in wanted for other in requires.get(name, ())}
        return frozenset(wanted) if more <= set(wanted) else closed({*wanted, *more})

    def breaks(wanted: Collection[str]) -> bool:
        return any(fault <= closed(wanted) for fault in faults)

    found = bisect(faults, requires, SMALL)
    assert found.culprits
    left = frozenset(SMALL)
    for culprits in found.culprits:
        assert breaks(culprits)
        for one in culprits:
            assert not breaks(closed(culprits) - {one})
        left = frozenset(name for name in left if culprits[0] not in closed([name]))
    assert not breaks(left)


# With real commands

BAD = """
@hookimpl
async def execute_task(self, job):
    return Outcome(fault="invalid", reason="no")
"""


@pytest.mark.promise("bisect")
def test_a_real_command_is_bisected_through_what_the_plugins_require(tmp_path: Path) -> None:
    env = site(
        tmp_path / "site", base="requires = ()", good="requires = ()", bad=f"requires = ('base',)\n{BAD}",
        other="requires = ('bad',)",
    )  # fmt: skip
    small(tmp_path / "v", ['id = "a"\nprompt = "Say."'], settings='model = "scripted:echo"\n')
    run = f"{sys.executable} -c 'from vivarium_kernel.cli import main; raise SystemExit(main())' run copy"
    command = f"rm -rf copy && cp -r v copy && {run}"
    done = vivarium("plugins", "bisect", "--", "sh", "-c", command, cwd=tmp_path, env=env)
    assert done.status == 0, done.out + done.err
    assert "bad breaks it (with base, which it requires)" in done.out
    assert "vivarium plugins disable bad" in done.out
    assert "other breaks" not in done.out


def test_only_what_is_on_is_tried_and_the_document_says_it_all(tmp_path: Path) -> None:
    env = site(tmp_path / "site", alpha="", beta="", gamma="")
    folder = small(tmp_path / "v")
    (folder / "plugins.json").write_text('{"disabled": ["gamma"]}')
    code = (
        "import os, sys; on = os.environ['VIVARIUM_PLUGINS'].split(','); print('on:', on); "
        "sys.exit('beta' in on or 'gamma' in on)"
    )
    done = vivarium("plugins", "bisect", "--json", "--", sys.executable, "-c", code, cwd=folder, env=env)
    assert done.status == 0, done.err
    assert done.document["culprits"] == [["beta"]]
    assert "gamma" not in done.document["said"]
    unmatched = vivarium(
        "plugins", "bisect", "--match", "another fault", "--", sys.executable, "-c", code, cwd=folder, env=env
    )
    assert unmatched.status == 1
    assert "there is nothing to find" in unmatched.out
    missing = vivarium("plugins", "bisect", "--", "no-such-program", cwd=folder, env=env)
    assert missing.status == 2
    assert "no-such-program can't be run" in missing.err


def test_a_run_that_takes_too_long_is_broken_and_ended_with_what_it_started(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    said: list[Ran] = []
    run = runner(["sh", "-c", f"(sleep 1.2; touch {mark}) & sleep 30"], tmp_path, 0.3, None, said.append)
    began = time.monotonic()
    ran = run(frozenset())
    assert time.monotonic() - began < 5
    assert (ran.broke, ran.status) == (True, None)
    assert said == [ran]
    time.sleep(1.3)
    assert not mark.exists()


def test_plugins_that_end_or_hold_the_process_when_imported_hide_nobodys_requirements(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = site(
        tmp_path / "site", aa="requires = ('cc',)", bb="import os; os._exit(3)", cc="", dd="raise SystemExit",
        ee="import time; time.sleep(60)", ff="print('[1]'); requires = ('aa', 'cc')", gg="not python",
    )  # fmt: skip
    monkeypatch.syspath_prepend(env["PYTHONPATH"])
    monkeypatch.setattr(inspecting, "TIMEOUT_SECONDS", 2.0)
    found = {name: looked.requires for name, looked in inspecting.look(map(double, "abcdefg")).items()}
    assert found == {"aa": ("cc",), "bb": (), "cc": (), "dd": (), "ee": (), "ff": ("aa", "cc"), "gg": ()}


def double(letter: str) -> str:
    return letter * 2
