"""The village's choice of plugins: what plugins.json holds, how it is written, and what a plugin's files are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from kernel.plugins.shelf import Shelf, source
from vivarium_kernel.builtin import builtin_places, builtin_plugins
from vivarium_kernel.errors import Invalid
from vivarium_kernel.installed import claims, digest, distribution_of, requirement_of
from vivarium_kernel.plugins import hooks_of
from vivarium_kernel.registry import Choice, Recorded, Registry, changed, only_of, read, stamp, write

HATS = Recorded("hat-shop", "1.0", "hat-shop==1.0", "sha256:00", ("on_tick",), ("brim",), ("heads",))


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    registry = Registry(frozenset({"scarves"}), {"hats": HATS}, ("hat-shop==1.0",))
    write(tmp_path, registry)
    assert read(tmp_path) == registry
    assert [path.name for path in tmp_path.iterdir()] == ["plugins.json"]


def test_a_village_without_the_file_has_every_plugin_on(tmp_path: Path) -> None:
    assert read(tmp_path) == Registry()
    assert stamp(tmp_path) is None
    assert Choice(read(tmp_path)).why_off("anything", installed=True) == ""


def test_a_file_with_disabled_alone_is_valid(tmp_path: Path) -> None:
    (tmp_path / "plugins.json").write_text('{"disabled": ["hats"]}')
    assert read(tmp_path).disabled == {"hats"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "can't be read"),
        ("[]", "can't be read"),
        ('{"disabled": "hats"}', '"disabled" must be a list of texts'),
        ('{"disabled": [1]}', '"disabled" must be a list of texts'),
        ('{"plugins": {"hats": 1}}', 'has 1 under "hats"'),
        ('{"plugins": {"hats": {"version": 1}}}', '"plugins.hats.version" must be text'),
        ('{"version": 2}', "is of version 2"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_with_what_is_wrong(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "plugins.json").write_text(text)
    with pytest.raises(Invalid, match=told):
        read(tmp_path)


def test_every_write_changes_the_stamp(tmp_path: Path) -> None:
    seen = set()
    for number in range(20):
        write(tmp_path, Registry(frozenset({f"p{number % 2}"})))
        seen.add(stamp(tmp_path))
    assert len(seen) == 20


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    sets = [frozenset(f"plugin_{number}" for number in range(size)) for size in (1, 300)]
    write(tmp_path, Registry(sets[0]))
    ended = threading.Event()

    def writes() -> None:
        for number in range(100):
            write(tmp_path, Registry(sets[number % 2]))
        ended.set()

    writer = threading.Thread(target=writes)
    writer.start()
    while not ended.is_set():
        assert read(tmp_path).disabled in sets
    writer.join()


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, Registry(frozenset({"hats"})))

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write(tmp_path, Registry())
    assert read(tmp_path).disabled == {"hats"}
    assert [path.name for path in tmp_path.iterdir()] == ["plugins.json"]


@pytest.mark.parametrize(
    ("choice", "name", "installed", "off"),
    [
        (Choice(), "hats", True, False),
        (Choice(Registry(frozenset({"hats"}))), "hats", True, True),
        (Choice(Registry(frozenset({"verifier"}))), "verifier", False, True),
        (Choice(without=frozenset({"verifier"})), "verifier", False, True),
        (Choice(only=frozenset({"hats"})), "hats", True, False),
        (Choice(only=frozenset({"hats"})), "scarves", True, True),
        (Choice(only=frozenset({"hats"})), "verifier", False, False),  # the kernel's own are left out by name alone
        (Choice(only=frozenset()), "hats", True, True),
        (Choice(allow=("hats",)), "hats", True, False),
        (Choice(allow=("hats",)), "scarves", True, True),
        (Choice(allow=("hats",)), "verifier", False, False),
        (Choice(allow=()), "hats", True, True),
        (Choice(allow=("hats", "*")), "scarves", True, False),
    ],
)
def test_what_is_on_is_decided_by_name(choice: Choice, name: str, installed: bool, off: bool) -> None:
    assert bool(choice.why_off(name, installed=installed)) is off


def test_the_variable_names_what_stays_on() -> None:
    assert only_of({}) is None
    assert only_of({"VIVARIUM_PLUGINS": " hats,scarves ,"}) == {"hats", "scarves"}
    assert only_of({"VIVARIUM_PLUGINS": ""}) == frozenset()


def test_a_requirement_takes_the_place_of_an_older_one() -> None:
    first = Registry().install(["Hat_Shop==1.0", "scarves==2"]).record("hats", HATS)
    assert first.installed == ("scarves==2", "hat-shop==1.0")
    newer = Recorded("hat-shop", "1.1", "-e /sources/hats")
    second = first.record("hats", newer)
    assert second.installed == ("scarves==2", "-e /sources/hats")
    assert second.record("hats", HATS).installed == ("scarves==2", "hat-shop==1.0")
    assert second.forget(["hats"], "hat-shop").installed == ("scarves==2",)
    assert Registry().record("hats", HATS).installed == ()  # what was not installed by command is not noted as such


@pytest.mark.parametrize(
    ("line", "name"),
    [("a==1", "a"), ("a-b.c[x]>=2", "a-b.c"), ("a @ file:///x.whl", "a"), ("a", "a"), ("/x/a.whl", ""),
     ("-e /x", ""), ("git+https://x/y", ""), ("./a", "")],
)  # fmt: skip
def test_a_requirement_names_its_distribution(line: str, name: str) -> None:
    assert distribution_of(line) == name


# Files


def test_the_hash_is_of_every_file_that_was_published(shelf: Shelf) -> None:
    info = shelf.put("hat-shop", "1.0", hats="", scarves="")
    found = claims()["hats"][0]
    first = digest(found)
    assert first == digest(found) == digest(claims()["scarves"][0])
    (info / "INSTALLER").write_text("pip\n")
    (shelf.folder / "__pycache__").mkdir()
    (shelf.folder / "__pycache__" / "zz_hats.pyc").write_bytes(b"\0")
    assert digest(found) == first
    module = shelf.folder / "zz_scarves.py"
    module.write_text(module.read_text() + "# and one line more\n")
    assert digest(found) != first
    module.unlink()
    assert digest(found) not in (first, "")


def test_the_hash_of_an_editable_plugin_is_of_its_sources(shelf: Shelf, tmp_path: Path) -> None:
    sources = tmp_path / "sources"
    (sources / "zz_family" / "hats").mkdir(parents=True)  # zz_family is a namespace: no __init__
    (sources / "zz_family" / "hats" / "__init__.py").write_text(source("hats"))
    info = shelf.put_modules("hat-shop", "1.0", {"hats": ""})
    (shelf.folder / "zz_hats.py").unlink()
    (info / "entry_points.txt").write_text("[vivarium.plugins]\nhats = zz_family.hats:It\n")
    (info / "direct_url.json").write_text(json.dumps({"url": sources.as_uri(), "dir_info": {"editable": True}}))
    (info / "RECORD").write_text(f"_hat_shop.pth,,\n{info.name}/METADATA,,\n{info.name}/entry_points.txt,,\n")
    sys.path.append(str(sources))  # as the .pth would
    try:
        found = claims()["hats"][0]
        first = digest(found)
        assert requirement_of(found.entry_point.dist) == f"-e {sources}"
        (sources / "zz_family" / "hats" / "__init__.py").write_text(source("hats", "after = ('x',)"))
        assert digest(found) != first
        assert not [name for name in sys.modules if name.startswith("zz_family")]
    finally:
        sys.path.remove(str(sources))


def test_what_differs_from_the_record_is_said(shelf: Shelf) -> None:
    shelf.put("hat-shop", "1.0", hats="")
    found = claims()["hats"][0]
    same = Recorded("Hat_Shop", "1.0", "hat-shop==1.0", digest(found))
    assert changed(same, found) == ""
    assert "files" in changed(HATS, found)
    assert "version 0.9 and is 1.0 now" in changed(Recorded("hat-shop", "0.9", ""), found)
    assert "part of other 1.0" in changed(Recorded("other", "1.0", ""), found)


# The kernel's own


def test_the_table_of_the_kernels_own_is_what_their_classes_are() -> None:
    classes = builtin_plugins()
    assert {name: one.name for name, one in classes.items()} == {name: name for name in builtin_places()}
    assert {name: tuple(hooks_of(one)) for name, one in classes.items()} == {
        name: one.hooks for name, one in builtin_places().items()
    }


def test_deciding_by_name_imports_neither_plugins_nor_what_runs_them() -> None:
    code = (
        "import sys; from vivarium_kernel import standing, registry, installed;"
        "from pathlib import Path; standing.standings(registry.Choice(registry.read(Path('.'))));"
        "print(sorted({'pluggy', 'cattrs', 'sqlite3', 'asyncio', 'rich', 'jinja2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
