"""The room of conformance: what every plugin must hold, as tests that an author subclasses.

    from vivarium_kernel.testing import Conformance
    from vivarium_plugins_weather import Weather

    class TestWeather(Conformance):
        plugin = Weather

``vivarium plugins check DISTRIBUTION`` runs the same tests for what is installed. A check can't be skipped or written
anew. One that a plugin can't hold is marked, and still runs::

        @pytest.mark.xfail(reason="the maps take 300 ms to load")
        def test_it_loads_quickly_and_without_heavy_modules(self): ...
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from attrs import evolve

from vivarium_kernel.errors import Invalid, NotFound
from vivarium_kernel.installed import GROUP, Found
from vivarium_kernel.models import Provider
from vivarium_kernel.plugins import Plugin, PluginError, discover, load
from vivarium_kernel.testing import inspection, trial
from vivarium_kernel.testing.casting import cast_plugins
from vivarium_kernel.testing.stage import Opening, Stage, StagedVillage, Unsound
from vivarium_kernel.village import Village

_ONLY_XFAIL = "a check of the conformance suite may only be marked xfail(reason=…): it runs in any case"


class Conformance:
    """Every check that a plugin must hold. Set ``plugin``; the rest where it needs it.

    ``config`` is its table of vivarium.toml, ``others`` are plugins that live beside it (those that it requires and
    that are not installed), ``models`` make model providers; ``real_time`` is for a plugin that waits for processes,
    threads or sockets.
    """

    plugin: ClassVar[type[Plugin] | None] = None
    config: ClassVar[Mapping[str, Any]] = {}
    others: ClassVar[Sequence[type[Plugin] | str]] = ()
    models: ClassVar[Sequence[Callable[[Village], Provider]]] = ()
    real_time: ClassVar[bool] = False
    found: ClassVar[Found | None] = None

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        for name in [name for name in vars(cls) if name.startswith("test_") and hasattr(Conformance, name)]:
            marks = getattr(vars(cls)[name], "pytestmark", [])
            if not marks:
                raise TypeError(f"{cls.__name__}.{name}: {_ONLY_XFAIL}")
            setattr(cls, name, _marked(getattr(Conformance, name), marks))

    @classmethod
    def enforce_marks(cls, item: pytest.Item) -> None:
        """Let no mark keep a check from running, and an xfail that passes be told."""
        name = getattr(item, "originalname", item.name)
        if not hasattr(Conformance, name):
            return  # a test of the author's own
        for mark in list(item.iter_markers()):
            if mark.name in ("skip", "skipif"):
                raise pytest.UsageError(f"{item.nodeid}: {_ONLY_XFAIL}")
            if mark.name == "xfail":
                reason = str(mark.kwargs.get("reason", "")).strip()
                if mark.args or not reason or set(mark.kwargs) - {"reason", "strict"}:
                    raise pytest.UsageError(f"{item.nodeid}: {_ONLY_XFAIL}, with a reason and no condition")
                item.add_marker(pytest.mark.xfail(reason=reason, strict=True), append=False)

    @pytest.fixture
    def subject(self) -> type[Plugin]:
        """The plugin's class."""
        if self.plugin is not None:
            return self.plugin
        if self.found is None:
            pytest.fail(f'{type(self).__name__} says no plugin: write "plugin = YourPlugin" in it', pytrace=False)
        try:
            return load(self.found)
        except PluginError:
            pytest.skip("it can't be loaded: see its entry point")

    @pytest.fixture
    def opening(self, subject: type[Plugin], tmp_path: Path) -> Opening:
        """How a village with this plugin is opened."""
        plugins = cast_plugins([*self.others, subject])
        return Opening(tmp_path / "village", plugins, {subject.name: self.config}, models=self.models)

    @pytest.fixture
    def on_stage(self) -> Iterator[Stage]:
        """A loop and a clock, on which villages live."""
        stage = Stage(real_time=self.real_time)
        try:
            yield stage
        finally:
            stage.close()

    def test_its_entry_point_leads_to_it(self) -> None:
        _none(inspection.entry_point_problems(self.plugin, self.found))

    def test_its_names_are_its_own(self, subject: type[Plugin]) -> None:
        _none(inspection.name_problems(subject, self.found.name if self.found is not None else subject.name))

    def test_its_config_has_sound_defaults(self, subject: type[Plugin]) -> None:
        _none(inspection.config_problems(subject, subject.name, self.config))

    def test_its_hooks_fit(self, subject: type[Plugin]) -> None:
        given = {each.name: each for each in self.others if isinstance(each, type)}
        _none(inspection.hook_problems(subject, subject.name, given))

    def test_it_documents_itself(self, subject: type[Plugin]) -> None:
        _none(inspection.documentation_problems(subject, subject.name, self.found))

    def test_its_service_works_on_what_it_is_handed(self, subject: type[Plugin]) -> None:
        _none(inspection.service_problems(subject))

    def test_it_loads_quickly_and_without_heavy_modules(self, subject: type[Plugin]) -> None:
        _none(inspection.import_problems(subject.__module__))

    def test_its_migrations_run_from_scratch_and_again(self, subject: type[Plugin], opening: Opening) -> None:
        if subject.migrations is not None:
            _none(trial.migration_problems(opening, subject))

    def test_it_lives_without_a_fault(self, subject: type[Plugin], opening: Opening, on_stage: Stage) -> None:
        village = _opened(on_stage, opening)
        trial.live(on_stage, village)
        _none(trial.faults(village, subject.name))

    def test_it_lives_with_and_without_its_neighbours(
        self, subject: type[Plugin], opening: Opening, on_stage: Stage
    ) -> None:
        alone = cast_plugins([*(each for each in opening.plugins if each.name in _needs(opening, subject)), subject])
        asked = [*subject.after, *subject.asks]
        beside = [name for name in asked if name in discover()[0]]
        for number, plugins in enumerate((alone, cast_plugins([*opening.plugins, *beside]))):
            folder = opening.folder / str(number)
            village = _opened(on_stage, evolve(opening, plugins=plugins, folder=folder))
            trial.live(on_stage, village)
            _none(trial.faults(village, subject.name))

    def test_it_survives_two_villages_in_one_process(
        self, subject: type[Plugin], opening: Opening, on_stage: Stage
    ) -> None:
        name = subject.name
        one, two = (_opened(on_stage, evolve(opening, folder=opening.folder / each)) for each in ("one", "two"))
        before = trial.own_rows(two, name)
        trial.live(on_stage, one)
        _none(
            f"what happened in one village is in the table {table} of the other: keep nothing in the module"
            for table, count in trial.own_rows(two, name).items()
            if count > before[table] and not _ticks(subject)
        )
        one.close()
        trial.live(on_stage, two)
        _none(trial.faults(two, name))

    def test_it_unloads_cleanly(self, subject: type[Plugin], opening: Opening) -> None:
        try:
            _none(trial.leaving_problems(opening, subject, real_time=self.real_time))
        except Unsound as error:
            pytest.fail(str(error), pytrace=False)

    def test_its_actions_answer_or_refuse(self, subject: type[Plugin], opening: Opening, on_stage: Stage) -> None:
        try:
            _none(trial.action_problems(on_stage, opening, subject.name))
        except Unsound as error:
            pytest.fail(str(error), pytrace=False)

    def test_it_writes_to_its_own_tables_alone(self, subject: type[Plugin], opening: Opening, on_stage: Stage) -> None:
        found: list[str] = []
        with trial.watching_connections(found, opening.folder):
            village = _opened(on_stage, evolve(opening, connection=trial.watched(found)))
            trial.live(on_stage, village)
        refused = [fault for fault in trial.faults(village, subject.name) if "not authorized" in fault]
        _none([*dict.fromkeys(found), *refused])


def checks() -> list[str]:
    """The names of the checks, in their order."""
    return [name for name in vars(Conformance) if name.startswith("test_")]


def conformance_of(
    distribution: str, excused: Mapping[str, str] | None = None, *, real_time: bool = False
) -> dict[str, type[Conformance]]:
    """A test class for each plugin of an installed distribution; ``excused`` are reasons by check.

    Raises NotFound for a distribution that is not installed or has no plugin, Invalid for a check that there is not.
    """
    import importlib.metadata

    try:
        installed = importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        raise NotFound(
            "plugins.distribution", f"There is no installed distribution {distribution!r}.",
            "It may lie in a folder: pip install -e FOLDER. See what there is: vivarium plugins list.",
        ) from None  # fmt: skip
    points = [point for point in installed.entry_points if point.group == GROUP]
    if not points:
        raise NotFound(
            "plugins.distribution", f"{distribution} {installed.version} brings no plugin.",
            f'A plugin is an entry point of the group "{GROUP}" in pyproject.toml.',
        )  # fmt: skip
    for check in excused or {}:
        if check not in checks():
            raise Invalid("plugins.check", f"There is no check {check!r}.", f"The checks are {', '.join(checks())}.")
    marked = {
        check: _marked(getattr(Conformance, check), [pytest.mark.xfail(reason=reason).mark])
        for check, reason in (excused or {}).items()
    }
    return {
        f"Test_{point.name}": type(
            f"Test_{point.name}", (Conformance,),
            {"found": Found(point.name, installed.name, installed.version, point), "real_time": real_time, **marked},
        )
        for point in points
    }  # fmt: skip


def _marked(check: Callable[..., None], marks: Sequence[pytest.Mark]) -> Callable[..., None]:
    """The check itself under further marks, whatever body it was given."""
    copy = types.FunctionType(check.__code__, check.__globals__, check.__name__, check.__defaults__, check.__closure__)
    functools.update_wrapper(copy, check)
    del copy.__wrapped__  # type: ignore[attr-defined]
    copy.pytestmark = list(marks)  # type: ignore[attr-defined]
    return copy


def _opened(stage: Stage, opening: Opening) -> StagedVillage:
    try:
        return stage.open(opening)
    except Unsound as error:
        pytest.fail(str(error), pytrace=False)


def _needs(opening: Opening, subject: type[Plugin]) -> set[str]:
    """The plugins that this one can't live without, and those that they can't."""
    by_name = {each.name: each for each in opening.plugins}
    needs: set[str] = set()
    waiting = list(subject.requires)
    for name in waiting:
        if name not in needs and name in by_name:
            needs.add(name)
            waiting.extend(by_name[name].requires)
    return needs


def _ticks(subject: type[Plugin]) -> bool:
    """Whether the plugin writes by itself as time passes, which it does in every village."""
    return hasattr(getattr(subject, "on_tick", None), "vivarium_impl")


def _none(problems: Iterable[str]) -> None:
    found = list(dict.fromkeys(problems))
    if found:
        pytest.fail("\n".join(found), pytrace=False)
