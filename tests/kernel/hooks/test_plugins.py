"""Finding plugins, refusing unsound ones with everything that is wrong, ordering and building the others."""

import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import attrs
import pytest
from attrs import validators
from vivarium_kernel.plugins import Circle, Failed, Plugin, PluginError, build, discover, hookimpl, load, ordered
from vivarium_kernel.records import Resident, Task

from .scene import FAULTS

GROUP = "vivarium.plugins"


def install(folder: Path, distribution: str, version: str, names: dict[str, str]) -> None:
    info = folder / f"{distribution}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    points = "".join(f"{name} = {value}\n" for name, value in names.items())
    (info / "entry_points.txt").write_text(f"[{GROUP}]\n{points}")


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def cls_of(name: str, /, **attributes: Any) -> type[Plugin]:
    return type(name.title(), (Plugin,), {"name": name, **attributes})


def texts(failed: list[Failed]) -> dict[str, list[str]]:
    return {each.name: [str(error) for error in each.errors] for each in failed}


def built(**classes: type[Plugin]) -> tuple[list[str], dict[str, list[str]]]:
    plugins, failed = build("the village", classes, {})
    return [plugin.name for plugin in plugins], texts(failed)


# Discovery


def test_plugins_are_found_without_importing_them(packages: Path) -> None:
    install(packages, "vivarium-things", "1.2", {"zz_hats": "zz_things:Hats"})
    (packages / "zz_things.py").write_text("raise SystemExit('imported')")
    found, failed = discover()
    assert (found["zz_hats"].distribution, found["zz_hats"].version) == ("vivarium-things", "1.2")
    assert failed == []
    assert "zz_things" not in sys.modules


def test_one_name_claimed_by_two_distributions_is_taken_from_neither(packages: Path) -> None:
    install(packages, "first-things", "1.2", {"zz_hats": "zz_first:Hats", "zz_other": "zz_first:Other"})
    install(packages, "second-things", "0.9", {"zz_hats": "zz_second:Hats"})
    found, failed = discover()
    assert "zz_hats" not in found
    assert "zz_other" in found
    assert texts(failed) == {
        "zz_hats": [
            "plugin 'zz_hats': is claimed by first-things 1.2 and second-things 0.9; neither is taken; "
            "uninstall one of them"
        ]
    }


@pytest.mark.promise("faults-stay-with-their-plugin")
@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("raise SystemExit(3)", "can't be imported: SystemExit: 3"),
        ("import not_there_at_all", "can't be imported: ModuleNotFoundError"),
        ("", "can't be imported: AttributeError"),
        ("Hats = 5", "is int 5, not a subclass of Plugin"),
        ("def f(: pass", "can't be imported: SyntaxError"),
    ],
)
def test_a_plugin_that_cannot_be_imported_is_told_with_its_distribution(packages: Path, source: str, told: str) -> None:
    name = f"zz_{abs(hash(source))}"
    install(packages, "things", "1.2", {name: f"{name}:Hats"})
    (packages / f"{name}.py").write_text(source)
    found, _ = discover()
    with pytest.raises(PluginError) as refused:
        load(found[name])
    assert str(refused.value).startswith(f"{name}:Hats of things 1.2: {told}")


def test_an_installed_plugin_is_loaded(packages: Path) -> None:
    install(packages, "things", "1.2", {"zz_sound": "zz_sound:Hats"})
    (packages / "zz_sound.py").write_text("from vivarium_kernel.plugins import Plugin\nclass Hats(Plugin): pass\n")
    cls = load(discover()[0]["zz_sound"])
    assert issubclass(cls, Plugin)


# Declarations


@attrs.define
class Soft:
    gravity: float = 9.81


@attrs.frozen
class Incomplete:
    gravity: float


@attrs.frozen
class Sound:
    gravity: float = 9.81


@pytest.mark.parametrize(
    ("attributes", "told"),
    [
        ({"name": "caps"}, "Hats.name = 'caps': the entry point is 'hats'; give both one name"),
        ({"api": 2}, "Hats.api = 2: this kernel's hook API is 1; upgrade vivarium-kernel"),
        ({"api": "1"}, "Hats.api = '1': this kernel's hook API is 1; upgrade the plugin, or write api = 1"),
        ({"requires": ("wallet")}, "Hats.requires = 'wallet': is not a tuple of names; write requires = (\"name\",)"),
        ({"after": [3]}, "Hats.after = [3]: is not a tuple of names"),
        ({"Config": dict}, "Hats.Config = <class 'dict'>: is not an attrs class"),
        ({"Physics": Soft}, "Hats.Physics = Soft: can be changed; decorate it with @attrs.frozen"),
        ({"Physics": Incomplete}, "Hats.Physics = Incomplete: can't be made"),
    ],
)
def test_a_wrong_declaration_is_told_with_its_cure(attributes: dict[str, Any], told: str) -> None:
    names, failed = built(hats=cls_of("hats", **attributes))
    assert names == []
    (text,) = failed["hats"]
    assert text.startswith(told)


def test_a_sound_plugin_is_built_with_its_village_and_config() -> None:
    (plugin,), failed = build("the village", {"hats": cls_of("hats", Physics=Sound)}, {})
    assert (failed, plugin.village, plugin.config, plugin.name) == ([], "the village", None, "hats")


def test_no_class_at_all_is_told() -> None:
    for thing in (5, dict, Plugin(None, None)):
        names, failed = built(hats=thing)  # type: ignore[arg-type]
        assert names == []
        assert "is not a subclass of Plugin" in failed["hats"][0]


@pytest.mark.parametrize("name", ["Hats", "", "9lives", "hats-on", "h" * 41, "hüte", "../x"])
def test_a_name_that_cannot_name_a_table_is_refused(name: str) -> None:
    _, failed = build(None, {name: cls_of(name)}, {})
    assert "is no name for a plugin" in str(failed[0])


# Config


@attrs.frozen
class Meter:
    per_day: int = attrs.field(default=3, validator=validators.ge(0))


@attrs.frozen
class HatsConfig:
    most: int = attrs.field(default=6, validator=validators.in_(range(10)))
    colours: tuple[str, ...] = ()
    meter: Meter = Meter()
    label: str = attrs.field(default="hat", validator=validators.max_len(5))
    ratio: float = 0.5


def test_every_error_of_a_config_is_told_at_once_with_its_path() -> None:
    config = {
        "hats": {
            "most": 40,
            "colors": ["red"],
            "colours": "red",
            "meter": {"per_day": -1, "per_week": 7},
            "label": "a long label",
            "ratio": "half",
        }
    }
    plugins, failed = build(None, {"hats": cls_of("hats", Config=HatsConfig), "other": cls_of("other")}, config)
    assert [plugin.name for plugin in plugins] == ["other"]
    paths = {error.definition for error in failed[0].errors}
    assert paths == {
        "plugins.hats.most",
        "plugins.hats.colors",
        "plugins.hats.colours",
        "plugins.hats.meter.per_day",
        "plugins.hats.meter.per_week",
        "plugins.hats.label",
        "plugins.hats.ratio",
    }
    assert all(str(error).count("; ") >= 1 and error.cure for error in failed[0].errors)


def test_a_sound_config_is_structured() -> None:
    (plugin,), failed = build(
        None,
        {"hats": cls_of("hats", Config=HatsConfig)},
        {"hats": {"most": 2, "colours": ["red"], "meter": {"per_day": 1}}},
    )
    assert failed == []
    assert plugin.config == HatsConfig(2, ("red",), Meter(1))
    (plugin,), _ = build(None, {"hats": cls_of("hats", Config=HatsConfig)}, {})
    assert plugin.config == HatsConfig()


def test_a_plugin_without_a_config_takes_no_keys() -> None:
    _, failed = build(None, {"hats": cls_of("hats")}, {"hats": {"most": 3}})
    assert str(failed[0]).startswith("plugins.hats.most: ")


# Hooks


class Misfits(Plugin):
    """Each method is wrong in one way; the comment above it is what must be told."""

    name = "misfits"
    TOLD: ClassVar[list[str]] = [
        "Misfits.enrch_prompt(resident): there is no hook enrch_prompt; enrch_prompt: did you mean enrich_prompt?",
        "Misfits.frobnicate(): there is no hook frobnicate; frobnicate: the hooks are startup, ",
        "Misfits.entitle(resident, vew): the hook has no argument vew; vew: did you mean view?",
        "Misfits.claim_filter(tasks): argument tasks has a default; write tasks alone: it is always given",
        "Misfits.claim_score(tasks): argument tasks is keyword-only; remove the * before it",
        "Misfits.propose_activity(anything): *anything takes whatever comes; name the arguments that it uses of "
        "propose_activity(resident, view)",
        "Misfits.check_safety(subject): the hook is a coroutine and this is not; write async def",
        "Misfits.end_attempt(task): the hook is a plain function and this is a coroutine; write def, "
        "and don't await in it",
        "Misfits.register_actions(): is a generator; return the answer, don't yield",
        "Misfits.around_execution(job): is a generator; write @contextlib.asynccontextmanager below @hookimpl",
        "Misfits.on_tick: has the name of a hook and is not marked, so that it would never be called; "
        "write @hookimpl above it",
        "Misfits.enrich_prompt(): hook wrappers are not run; wrap a job with around_execution",
        "Misfits.on_event(event): is both tryfirst and trylast; choose one",
    ]

    @hookimpl
    def enrch_prompt(self, resident): ...  # type: ignore[no-untyped-def]

    @hookimpl
    def frobnicate(self): ...  # type: ignore[no-untyped-def]

    @hookimpl
    def entitle(self, resident, vew): ...  # type: ignore[no-untyped-def]

    @hookimpl
    def claim_filter(self, tasks=()): ...  # type: ignore[no-untyped-def]

    @hookimpl
    def claim_score(self, *, tasks): ...  # type: ignore[no-untyped-def]

    @hookimpl
    def propose_activity(self, *anything): ...  # type: ignore[no-untyped-def]

    @hookimpl
    def check_safety(self, subject): ...  # type: ignore[no-untyped-def]

    @hookimpl
    async def end_attempt(self, task): ...  # type: ignore[no-untyped-def]

    @hookimpl
    def register_actions(self):  # type: ignore[no-untyped-def]
        yield

    @hookimpl
    async def around_execution(self, job):  # type: ignore[no-untyped-def]
        yield

    def on_tick(self, now): ...  # type: ignore[no-untyped-def]

    @hookimpl(wrapper=True)
    def enrich_prompt(self): ...  # type: ignore[no-untyped-def]

    @hookimpl(tryfirst=True, trylast=True)
    async def on_event(self, event): ...  # type: ignore[no-untyped-def]


def test_every_misfit_hook_is_told_with_definition_fault_and_cure() -> None:
    names, failed = built(misfits=Misfits)
    assert names == []
    found = failed["misfits"]
    for told in Misfits.TOLD:
        assert [text for text in found if text.startswith(told)], told
    assert len(found) == len(Misfits.TOLD)


def test_hooks_may_take_fewer_arguments_in_any_order_and_come_in_every_kind_of_method() -> None:
    class Fits(Plugin):
        name = "fits"

        @hookimpl
        def enrich_prompt(self, view: Any, resident: Resident) -> None: ...

        @staticmethod
        @hookimpl
        def claim_filter(tasks: Any) -> None: ...

        @classmethod
        @hookimpl
        def claim_score(cls, tasks: Any) -> None: ...

        @hookimpl
        @asynccontextmanager
        async def around_execution(self, job: Any) -> Any:
            yield

        @hookimpl(specname="end_attempt")
        def pay(self, task: Task) -> None: ...

        @hookimpl(optionalhook=True)
        def a_hook_of_tomorrow(self, whatever: Any) -> None: ...

    assert built(fits=Fits) == (["fits"], {})


# Order and failure


def test_plugins_are_built_in_the_order_of_the_graph_with_names_as_the_tie_break() -> None:
    names, failed = built(
        bee=cls_of("bee", after=("cat", "not_installed")),
        ant=cls_of("ant", requires=("bee",)),
        cat=cls_of("cat"),
        dog=cls_of("dog"),
    )
    assert (names, failed) == (["cat", "bee", "ant", "dog"], {})


def test_what_is_missing_is_named_and_takes_with_it_what_requires_it() -> None:
    names, failed = built(
        guilds=cls_of("guilds", requires=("wallet",)),
        feasts=cls_of("feasts", requires=("guilds",)),
        walks=cls_of("walks", after=("guilds",)),
    )
    assert names == ["walks"]
    assert failed["guilds"] == [
        "plugin 'guilds' requires 'wallet': which is not enabled; install or enable it: vivarium plugins enable wallet"
    ]
    assert failed["feasts"][0].startswith("plugin 'feasts' requires 'guilds': which failed: plugin 'guilds' requires")


def test_a_circle_is_named_and_only_what_lies_in_it_or_requires_it_is_left_out() -> None:
    names, failed = built(
        a=cls_of("a", requires=("b",)),
        b=cls_of("b", after=("c",)),
        c=cls_of("c", requires=("a",)),
        d=cls_of("d", requires=("a",)),
        e=cls_of("e", after=("a",)),
    )
    assert names == ["e"]
    assert set(failed) == {"a", "b", "c", "d"}
    assert "that is a circle: a → b → c → a" in failed["a"][0]
    with pytest.raises(Circle, match="a → a"):
        ordered([cls_of("a", after=("a",))(None, None)])


@pytest.mark.promise("faults-stay-with-their-plugin")
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_constructor_that_fails_takes_only_its_dependents_with_it(fault: Any) -> None:
    def init(self: Any, village: Any, config: Any) -> None:
        fault()

    names, failed = built(
        bad=cls_of("bad", __init__=init),
        needs_bad=cls_of("needs_bad", requires=("bad",)),
        well=cls_of("well", after=("bad",)),
    )
    assert names == ["well"]
    assert set(failed) == {"bad", "needs_bad"}
    assert failed["bad"][0].startswith("Bad: can't be built: ")
