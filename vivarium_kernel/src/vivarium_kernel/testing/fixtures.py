"""The room of the fixtures: what pytest gives plugin authors. It loads nothing of the kernel until one is used.

``@pytest.mark.village(plugins=[Weather], config={"weather": {"city": "Bern"}})`` says how the test's village is
opened; further words are ``settings``, ``residents``, ``models``, ``real_time`` and ``seed``. Of several marks (a
test's, its class's, its module's ``pytestmark``) the nearest that says a word counts for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from vivarium_kernel.testing.planting import Failing
    from vivarium_kernel.testing.script import ScriptedModel
    from vivarium_kernel.testing.stage import RunCycles, Stage, StagedVillage, VirtualClock

_OF_THE_STAGE = ("real_time", "seed")
_OF_A_VILLAGE = ("plugins", "config", "settings", "residents", "models")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "village(plugins, config, settings, residents, models, real_time, seed): how the fixture `village` is opened",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        enforce = getattr(getattr(item, "cls", None), "enforce_marks", None)
        if enforce is not None:
            enforce(item)


def _asked(request: pytest.FixtureRequest) -> dict[str, Any]:
    asked: dict[str, Any] = {}
    for mark in request.node.iter_markers("village"):
        unknown = set(mark.kwargs) - {*_OF_THE_STAGE, *_OF_A_VILLAGE}
        if mark.args or unknown:
            words = ", ".join((*_OF_A_VILLAGE, *_OF_THE_STAGE))
            wrong = ", ".join(sorted(unknown)) or "a word without its name"
            raise pytest.UsageError(f"{request.node.nodeid}: the mark village has {wrong}; its words are {words}")
        asked = {**mark.kwargs, **asked}
    return asked


@pytest.fixture
def vivarium_stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    """The loop and the clock on which this test's villages live; closed with all of them."""
    from vivarium_kernel.testing.stage import Stage

    stage = Stage(**{word: value for word, value in _asked(request).items() if word in _OF_THE_STAGE})
    try:
        yield stage
    finally:
        stage.close()


@pytest.fixture
def make_village(request: pytest.FixtureRequest, vivarium_stage: Stage, tmp_path: Path) -> Callable[..., StagedVillage]:
    """Open villages, each in a folder of its own: ``make_village(plugins=[Weather], config={…})``.

    Words that are not given are those of the test's mark. ``sound=False`` lets plugins be that can't live: they are
    then in ``village.failed``.
    """
    from vivarium_kernel.testing.casting import cast_plugins
    from vivarium_kernel.testing.stage import Opening

    marked = {word: value for word, value in _asked(request).items() if word in _OF_A_VILLAGE}

    def make(**asked: Any) -> StagedVillage:
        words = {**marked, **asked}
        folder = words.pop("folder", tmp_path / f"village-{len(vivarium_stage.villages) + 1}")
        words["plugins"] = cast_plugins(words.get("plugins", ()))
        return vivarium_stage.open(Opening(folder, **words))

    return make


@pytest.fixture
def village(make_village: Callable[..., StagedVillage]) -> StagedVillage:
    """A real village in a temporary folder, with the plugins of the test's mark; closed when the test ends."""
    return make_village()


@pytest.fixture
def scripted_model(vivarium_stage: Stage) -> ScriptedModel:
    """The model of this test's villages: it answers what ``scripted_model.says(…)`` was told."""
    return vivarium_stage.model


@pytest.fixture
def virtual_clock(vivarium_stage: Stage) -> VirtualClock:
    """The clock of this test's villages: ``virtual_clock.pass_time(hours=5)`` takes milliseconds."""
    from vivarium_kernel.testing.stage import VirtualClock

    clock = vivarium_stage.clock
    if not isinstance(clock, VirtualClock):
        raise pytest.UsageError("the village of this test goes by the real clock: take real_time out of its mark")
    return clock


@pytest.fixture
def run_cycles(request: pytest.FixtureRequest, vivarium_stage: Stage) -> RunCycles:
    """Let residents live: ``run_cycles(3)`` exactly three cycles, one after the other; ``run_cycles()`` all at once
    until nothing is left to do. Answers the attempts."""

    def run(
        count: int | None = None, *, within_seconds: float = 60.0, village: StagedVillage | None = None
    ) -> list[Any]:
        chosen = request.getfixturevalue("village") if village is None else village
        return vivarium_stage.cycles(chosen, count, within_seconds=within_seconds)

    return run


@pytest.fixture
def failing(request: pytest.FixtureRequest) -> Failing:
    """Plant a fault: ``with failing("end_attempt"):`` lets the plugin under test raise in that hook.

    Words: ``plugin`` by name (else every plugin of the mark), ``error``, ``times``, and ``after=True`` to fail only
    when its work is done.
    """
    from vivarium_kernel.testing import planting

    def plant(hook: str, plugin: str | None = None, *, village: Any = None, **words: Any) -> Any:
        chosen = request.getfixturevalue("village") if village is None else village
        names = [plugin] if plugin is not None else [each.name for each in chosen.opening.plugins]
        return planting.failing(chosen.hooks, hook, names, **words)

    return plant
