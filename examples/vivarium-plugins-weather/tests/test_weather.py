"""What the plugin promises to whoever runs a village with it."""

import pytest
from vivarium_kernel.testing import (
    RunCycles,
    StagedVillage,
    VirtualClock,
    assert_event,
    assert_section,
    assert_sound,
    draw_panel,
    rows,
)
from vivarium_plugins_weather.plugin import Weather
from vivarium_plugins_weather.sky import sky

from vivarium_kernel import Invalid

STORMY, CALM = 0.99, 0.0

pytestmark = pytest.mark.village(plugins=[Weather])


def test_the_same_seed_gives_the_same_weather() -> None:
    days = [[sky(seed, hour, 0.05) for hour in range(240)] for seed in (1, 1, 2)]
    assert days[0] == days[1] != days[2]


def test_it_storms_about_as_often_as_was_asked_for() -> None:
    storms = sum(sky(1, hour, 0.25).storms for hour in range(10_000))
    assert 2_300 < storms < 2_700
    assert not any(sky(1, hour, CALM).storms for hour in range(10_000))


@pytest.mark.village(config={"weather": {"place": "Fernhill", "storm_chance": CALM}})
def test_a_resident_is_told_the_weather(village: StagedVillage, run_cycles: RunCycles) -> None:
    task = village.task("Write to your aunt.")
    run_cycles(1)
    assert_section(village, task, plugin="weather", slot="situation", containing="The weather in Fernhill: ")


@pytest.mark.village(config={"weather": {"storm_chance": STORMY}})
def test_nobody_works_outdoors_in_a_storm(village: StagedVillage, run_cycles: RunCycles) -> None:
    outdoors = village.task("Mend the roof.", labels=("outdoors",))
    indoors = village.task("Read.")
    run_cycles(1)
    assert (village.state(outdoors), village.state(indoors)) == ("open", "done")


def test_a_forecast_comes_true(village: StagedVillage, virtual_clock: VirtualClock) -> None:
    (first, *more) = village.do("weather.forecast", {"hours": 3}, by="ada")
    assert len(more) == 2
    virtual_clock.pass_time(hours=1)
    plugin = village.plugins["weather"]
    assert isinstance(plugin, Weather)
    hour = village.times().hour(virtual_clock.now())
    assert {"hour": hour, "weather": plugin.at(hour).word, "celsius": plugin.at(hour).celsius} == first


def test_what_was_seen_is_kept_over_a_restart(village: StagedVillage) -> None:
    assert village.do("weather.observe", {"text": "A rainbow!"}, by="ada") == {"observation": 1}
    assert_event(village, "weather.observed", resident="ada", observation=1)
    again = village.reopened()
    assert rows(again, "SELECT resident, text FROM weather_observations") == [("ada", "A rainbow!")]
    assert_sound(again)


def test_an_empty_observation_is_refused_with_its_path(village: StagedVillage) -> None:
    with pytest.raises(Invalid, match="text"):
        village.do("weather.observe", {"text": ""}, by="ada")


@pytest.mark.village(config={"weather": {"place": "Fern & Hill"}})
def test_the_panel_shows_what_was_seen_as_text(village: StagedVillage) -> None:
    assert "Nobody has written down anything yet." in draw_panel(village, "weather")
    village.do("weather.observe", {"text": "<b>hail</b>"}, by="ben")
    html = draw_panel(village, "weather")
    assert "Fern &amp; Hill" in html and "ben: &lt;b&gt;hail&lt;/b&gt;" in html
