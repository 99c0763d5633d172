"""The plugin: tells residents the weather, lets them ask and write it down, and keeps them in when it storms."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from attrs import field, frozen
from attrs.validators import ge, le, lt, max_len, min_len
from sqlite_utils import Migrations

from vivarium_kernel import (
    Action,
    Actor,
    Meta,
    Panel,
    Plugin,
    PluginTx,
    PluginView,
    Reject,
    Resident,
    Section,
    Task,
    Visit,
    hookimpl,
)
from vivarium_plugins_weather.sky import Sky, sky

OUTDOORS = "outdoors"  # the label of tasks that nobody takes in a storm

migrations = Migrations("weather")


@migrations()
def m001_observations(db: Any) -> None:
    """What residents saw. A migration that was published never changes: add another one."""
    db["weather_observations"].create(
        {"id": int, "hour": int, "resident": str, "text": str}, pk="id", not_null={"hour", "resident", "text"}
    )


@frozen
class WeatherConfig:
    """``[plugins.weather]``."""

    seed: int = field(default=1, metadata={"doc": "Villages with the same seed have the same weather."})
    place: str = field(
        default="the village",
        validator=[min_len(1), max_len(60)],
        metadata={"doc": "What the place is called in prompts."},
    )
    storm_chance: float = field(
        default=0.05, validator=[ge(0.0), lt(1.0)], metadata={"doc": "The part of all hours in which it storms."}
    )
    forecast_hours: int = field(
        default=24, validator=[ge(1), le(240)], metadata={"doc": "How many hours ahead residents can ask for."}
    )


@frozen
class Ahead:
    """How many village hours ahead to look."""

    hours: Annotated[int, Meta(ge=1, le=240)] = 6


@frozen
class Observation:
    """What you see of the weather, in your own words."""

    text: Annotated[str, Meta(min_length=1, max_length=280)]


class Weather(Plugin):
    """Weather: a section in each prompt, a forecast to ask for, and storms that keep residents in."""

    name = "weather"
    Config = WeatherConfig
    migrations = migrations
    config: WeatherConfig

    def at(self, hour: int) -> Sky:
        return sky(self.config.seed, hour, self.config.storm_chance)

    @hookimpl
    def enrich_prompt(self, resident: Resident, task: Task, view: PluginView) -> Sequence[Section]:
        return [Section("situation", f"The weather in {self.config.place}: {self.at(view.hour)}.", priority=1)]

    @hookimpl
    def claim_filter(self, resident: Resident, tasks: Sequence[Task], view: PluginView) -> Sequence[Reject]:
        if not self.at(view.hour).storms:
            return []
        return [Reject(task.id, "it storms") for task in tasks if OUTDOORS in task.labels]

    @hookimpl
    def register_actions(self) -> Sequence[Action[Any]]:
        return [
            Action(name="weather.forecast", doc="Say what the weather will be, hour by hour.", Input=Ahead,
                   roles=("resident", "human", "operator"), effect="pure", run=self._forecast),
            Action(name="weather.observe", doc="Write down what you see of the weather.", Input=Observation,
                   rate_per_minute=6, run=self._observe),
        ]  # fmt: skip

    def _forecast(self, tx: PluginTx, actor: Actor, asked: Ahead) -> list[dict[str, Any]]:
        hours = min(asked.hours, self.config.forecast_hours)
        skies = [self.at(hour) for hour in range(tx.hour + 1, tx.hour + 1 + hours)]
        return [{"hour": each.hour, "weather": each.word, "celsius": each.celsius} for each in skies]

    def _observe(self, tx: PluginTx, actor: Actor, asked: Observation) -> dict[str, Any]:
        rows = tx.execute(
            "INSERT INTO weather_observations (hour, resident, text) VALUES (?, ?, ?) RETURNING id",
            (tx.hour, actor.name, asked.text),
        )
        number = rows[0][0]
        tx.emit("observed", resident=actor.name, observation=number)  # events carry ids, never the text itself
        return {"observation": number}

    @hookimpl
    def register_panels(self) -> Sequence[Panel]:
        template = Path(__file__).with_name("weather.html")
        return [Panel(name="weather", title="Weather", template=template, context=self._page)]

    def _page(self, visit: Visit) -> Mapping[str, Any]:
        hour = visit.view.hour
        seen = visit.view.read("SELECT hour, resident, text FROM weather_observations ORDER BY id DESC LIMIT 20")
        return {
            "place": self.config.place,
            "now_is": self.at(hour),
            "ahead": [self.at(each) for each in range(hour + 1, hour + 13)],
            "seen": [{"hour": row[0], "resident": row[1], "text": row[2]} for row in seen],
        }
