"""``vivarium plugins install``, ``uninstall`` and ``sync``, with real installers in real environments, offline."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import venv
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen
from kernel.cli.running import Done, environment, village
from kernel.plugins.shelf import files_of, record_of, source, wheel
from vivarium_kernel.errors import Invalid
from vivarium_kernel.installing import absolute, made_by_uv

import vivarium_kernel

pytestmark = pytest.mark.thorough
BUILDER = ("hatchling", "editables")  # what an editable build of the example takes


@frozen
class Environment:
    """An environment that sees this one's kernel and installers, with a village and a folder of wheels."""

    folder: Path
    maker: str

    def __call__(self, *arguments: str | Path, stdin: str = "") -> Done:
        offline = {"PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "UV_OFFLINE": "1", "UV_NO_INDEX": "1",
                   "UV_CACHE_DIR": str(self.folder / "cache"), "PIP_FIND_LINKS": str(self.wheels),
                   "UV_FIND_LINKS": str(self.wheels)}  # fmt: skip
        call = "import sys; from vivarium_kernel.cli import main; sys.exit(main())"
        done = subprocess.run(
            [self.folder / "bin" / "python", "-c", call, *map(str, arguments)], cwd=self.village, input=stdin,
            env=environment(offline), capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        return Done(done.returncode, done.stdout, done.stderr)

    @property
    def village(self) -> Path:
        return self.folder / "village"

    @property
    def wheels(self) -> Path:
        return self.folder / "wheels"

    @property
    def site(self) -> Path:
        return next(self.folder.glob("lib/python*/site-packages"))

    @property
    def record(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.village / "plugins.json").read_text())
        return found

    def wheel(self, name: str, version: str, **bodies: str) -> Path:
        return wheel(self.wheels, name, version, {plugin: source(plugin, body) for plugin, body in bodies.items()})

    def states(self) -> dict[str, str]:
        return {one["name"]: one["state"] for one in self("plugins", "list", "--json").document}


def made(folder: Path, maker: str) -> Environment:
    venv.EnvBuilder(with_pip=False, symlinks=True).create(folder)
    here = Environment(folder, maker)
    if maker == "uv":
        with (folder / "pyvenv.cfg").open("a") as file:
            file.write("uv = 0.9\n")
    kernel = distribution("vivarium-kernel")
    info = here.site / f"vivarium_kernel-{kernel.version}.dist-info"
    info.mkdir()
    # What it requires is borrowed: an installer need not look for that.
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vivarium-kernel\nVersion: {kernel.version}\n")
    (info / "INSTALLER").write_text(maker)
    libraries = Path(str(kernel.locate_file("")))
    sources = Path(vivarium_kernel.__file__ or "").parents[1]
    (here.site / "borrowed.pth").write_text(f"{sources}\n{libraries}\n")
    village(here.village)
    here.wheels.mkdir()
    return here


@pytest.fixture(params=["pip", pytest.param("uv", marks=pytest.mark.skipif(not shutil.which("uv"), reason="no uv"))])
def env(request: pytest.FixtureRequest, tmp_path: Path) -> Environment:
    return made(tmp_path / "env", request.param)


@pytest.mark.promise("what is installed by command is recorded and can be restored")
def test_what_is_installed_is_recorded_restored_and_taken_away(env: Environment) -> None:
    path = env.wheel("hat-shop", "1.0", hats="@hookimpl\ndef on_tick(self, now, tx): pass", scarves="")
    done = env("plugins", "install", path)
    assert done.status == 0, done.out + done.err
    assert "hats 1.0 of hat-shop is on" in done.out and "scarves 1.0 of hat-shop is on" in done.out
    assert (env.site / "hat_shop-1.0.dist-info" / "INSTALLER").read_text().strip() == env.maker
    assert env.record["installed"] == [f"hat-shop @ {path.as_uri()}"]
    hats = env.record["plugins"]["hats"]
    assert hats["hooks"] == ["on_tick"] and hats["requirement"] == f"hat-shop @ {path.as_uri()}"
    assert env("plugins", "sync").out == "Everything that is recorded is installed.\n"

    # The environment is made anew, without the plugins.
    for each in env.site.glob("hat_shop-*"):
        shutil.rmtree(each)
    (env.site / "zz_hats.py").unlink()
    assert env.states()["hats"] == "failed"
    assert "would install hat-shop" in env("plugins", "sync", "--dry-run").out
    done = env("plugins", "sync")
    assert done.status == 0, done.out + done.err
    assert env.states()["hats"] == "on"

    done = env("plugins", "uninstall", "hats", stdin="n\n")
    assert done.status != 0 and "has further plugins: scarves" in done.out
    assert env.states()["hats"] == "on"
    done = env("plugins", "uninstall", "hats", "--yes")
    assert done.status == 0, done.out + done.err
    assert "hats" not in env.states()
    assert (env.record["plugins"], env.record["installed"], env.record["disabled"]) == ({}, [], [])


@pytest.fixture(scope="session")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheels that hatchling builds with, in a folder; where they can't be had, that is the machine's."""
    folder: Path = tmp_path_factory.mktemp("builder")
    get = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary", ":all:", "--dest", folder, *BUILDER]
    done = subprocess.run(get, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        pytest.skip(f"building needs pip, and {' and '.join(BUILDER)} from a package index: {done.stderr[-200:]}")
    return folder


@pytest.mark.promise("what is installed by command is recorded and can be restored")
def test_sources_are_used_where_they_are_recorded_as_that_and_restored(
    env: Environment, builder: Path, repository: Path
) -> None:
    shutil.copytree(builder, env.wheels, dirs_exist_ok=True)
    sources = env.folder / "weather"
    shutil.copytree(repository / "examples" / "vivarium-plugins-weather", sources)
    before = files_below(sources)
    done = env("plugins", "install", "-e", "../weather")
    assert done.status == 0, done.out + done.err
    assert "weather 0.1.0 of vivarium-plugins-weather is on" in done.out
    info = env.site / "vivarium_plugins_weather-0.1.0.dist-info"
    assert (info / "INSTALLER").read_text().strip() == env.maker
    assert not (env.site / "vivarium_plugins_weather").exists(), "it is used where it is"
    line = f"-e {sources}"
    assert env.record["installed"] == [line]
    assert env.record["plugins"]["weather"]["requirement"] == line
    assert env("plugins", "sync").out == "Everything that is recorded is installed.\n"

    # What is edited there is what runs, and that it was edited is told.
    place = sources / "src" / "vivarium_plugins_weather" / "plugin.py"
    place.write_text(place.read_text().replace('"""Weather: a section', '"""Hail: a section'))
    assert env("plugins", "info", "weather", "--json").document["looked"]["doc"].startswith("Hail: ")
    assert "look at what has changed" in env("plugins", "list").out

    for each in (info, *env.site.glob("*vivarium_plugins_weather*.pth")):
        shutil.rmtree(each) if each.is_dir() else each.unlink()
    assert env.states()["weather"] == "failed"
    assert f"would install {line}" in env("plugins", "sync", "--dry-run").out
    env("plugins", "sync")
    assert env.states()["weather"] == "on"
    assert env("plugins", "uninstall", "weather").status == 0
    assert "weather" not in env.states() and env.record["installed"] == []
    assert files_below(sources) == before, "the sources stay, and nothing is left among them"


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if "__pycache__" not in path.parts}


@pytest.mark.promise("what is installed by command is recorded and can be restored")
def test_a_version_that_changed_by_other_means_is_told_and_restored(env: Environment) -> None:
    env.wheel("hat-shop", "1.0", hats="")
    assert env("plugins", "install", "hat-shop==1.0").status == 0
    assert env.record["installed"] == ["hat-shop==1.0"]
    newer = env.wheel("hat-shop", "1.1", hats="after = ()")
    info = next(env.site.glob("hat_shop-1.0*"))
    shutil.rmtree(info)
    with_newer = files_of("hat-shop", "1.1", {"hats": source("hats", "after = ()")})
    for name, text in (*with_newer.items(), record_of(with_newer)):
        (env.site / name).parent.mkdir(exist_ok=True)
        (env.site / name).unlink(missing_ok=True)  # uv links to its cache, which must not change with it
        (env.site / name).write_text(text)
    assert "it was enabled in version 1.0 and is 1.1 now" in env("plugins", "list").out
    assert env("plugins", "sync").status == 0
    assert (env.site / "hat_shop-1.0.dist-info").exists()
    # A newer one by command is the new record.
    assert env("plugins", "install", "--upgrade", "hat-shop").status == 0
    assert env.record["installed"] == ["hat-shop==1.1"] and env.record["plugins"]["hats"]["version"] == "1.1"
    assert newer.exists() and env("plugins", "sync").out == "Everything that is recorded is installed.\n"


def test_what_cannot_be_installed_changes_nothing(env: Environment) -> None:
    done = env("plugins", "install", "there-is-no-such-thing")
    assert done.status == 2 and "[plugins.installer]" in done.err
    assert not (env.village / "plugins.json").exists()
    token = env("token", "create", "eve", "--role", "human").out.strip()
    path = env.wheel("hat-shop", "1.0", hats="")
    assert "[role]" in env("plugins", "install", path, "--as", token).err
    assert not list(env.site.glob("hat_shop*"))


@pytest.fixture
def pip_env(tmp_path: Path) -> Environment:
    return made(tmp_path / "env", "pip")


def test_what_was_installed_and_cannot_be_on_is_told(pip_env: Environment) -> None:
    first = pip_env.wheel("hat-shop", "1.0", hats="", broken="raise SystemExit(4)", lonely="requires = ('nobody',)")
    done = pip_env("plugins", "install", first)
    assert done.status == 1
    assert "broken 1.0 of hat-shop is failed" in done.out and "SystemExit: 4" in done.out
    assert "lonely 1.0 of hat-shop is failed: it requires nobody" in done.out
    done = pip_env("plugins", "install", pip_env.wheel("other-hats", "2.0", hats=""))
    assert done.status == 1 and "hat-shop 1.0 and other-hats 2.0" in done.out
    assert "Name the distribution" in pip_env("plugins", "uninstall", "hats").err
    assert pip_env("plugins", "uninstall", "other-hats").status == 0
    assert pip_env.states()["hats"] == "on"


def test_what_was_switched_off_stays_off_when_it_is_installed_again(pip_env: Environment) -> None:
    pip_env("plugins", "install", pip_env.wheel("hat-shop", "1.0", hats="", scarves=""))
    pip_env("plugins", "disable", "hats")
    done = pip_env("plugins", "install", pip_env.wheel("hat-shop", "1.1", hats="", scarves=""))
    assert done.status == 0 and "hats 1.1 of hat-shop is off: switched off" in done.out
    assert pip_env.record["plugins"]["hats"]["version"] == "1.1"
    assert len(pip_env.record["installed"]) == 1


def test_uninstalling_is_refused_as_switching_off_is(pip_env: Environment) -> None:
    pip_env("plugins", "install", pip_env.wheel("head-shop", "1.0", heads=""))
    pip_env("plugins", "install", pip_env.wheel("hat-shop", "1.0", hats="requires = ('heads',)"))
    done = pip_env("plugins", "uninstall", "heads")
    assert done.status == 2 and "[plugins.required]" in done.err
    assert "kernel's own" in pip_env("plugins", "uninstall", "verifier").err
    assert "Did you mean hats?" in pip_env("plugins", "uninstall", "hat").err
    assert pip_env.states()["heads"] == "on"
    done = pip_env("plugins", "uninstall", "head-shop", "hat-shop")
    assert done.status == 0, done.out + done.err
    assert not {"hats", "heads"} & set(pip_env.states())


def test_without_a_village_it_is_installed_and_not_recorded(pip_env: Environment) -> None:
    (pip_env.village / "vivarium.toml").unlink()
    done = pip_env("plugins", "install", pip_env.wheel("hat-shop", "1.0", hats=""))
    assert done.status == 0 and "nothing is recorded" in done.out and "hats 1.0 of hat-shop is on" in done.out


def test_the_installer_is_the_one_that_made_the_environment(tmp_path: Path) -> None:
    assert made_by_uv(made(tmp_path / "uv", "uv").folder)
    by_uv = (distribution("vivarium-kernel").read_text("INSTALLER") or "").strip() == "uv"
    assert made_by_uv(Path("/nowhere")) == by_uv


def test_a_path_is_made_absolute_and_an_option_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a-1.whl").write_text("")
    (tmp_path / "hats").mkdir()
    assert absolute("a-1.whl") == str(tmp_path / "a-1.whl")
    assert absolute("./hats") == str(tmp_path / "hats")
    assert absolute("hats") == "hats" and absolute("hats==1.0") == "hats==1.0"
    with pytest.raises(Invalid, match="no requirement"):
        absolute("--index-url=x")
