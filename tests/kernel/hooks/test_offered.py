"""Promises about hooks that plugins offer: typed, documented, contained and named like the kernel's own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, assert_type

import pytest
from attrs import frozen
from sqlite_utils import Migrations
from vivarium_kernel.calls import Health, Hooks
from vivarium_kernel.health import FAILURES_IN_A_ROW
from vivarium_kernel.plugins import BadHook, build, waiting_for
from vivarium_kernel.switching import Switching
from vivarium_kernel.village import Village, With
from vivarium_kernel.watchdog import Mark

from vivarium_kernel import Plugin, PluginView, hookimpl, hookspec, registry

from .scene import FAULTS


@frozen
class Hat:
    name: str


@hookspec("register")
def register_hats() -> Sequence[Hat]:
    """Give hats that residents may wear."""


@hookspec("collect")
def praise_hat(hat: Hat, view: PluginView) -> Sequence[str]:
    """Say something good of a hat."""


@hookspec("first")
def price_of_hat(hat: Hat) -> int | None:
    """Say what a hat costs."""


@hookspec("first")
async def mend_hat(hat: Hat) -> str | None:
    """Mend a hat."""


@hookspec("notify")
async def on_hat_worn(hat: Hat) -> None:
    """Hear of a hat that is worn."""


class Hats(Plugin):
    """Offers hooks about hats."""

    name = "hats"
    hookspecs = (register_hats, praise_hat, price_of_hat, mend_hat, on_hat_worn)


HAT = Hat("bowler")
notes = Migrations("praiser")


@notes()
def m001_words(db: Any) -> None:
    db["praiser_words"].insert({"word": "fine"})


class Praiser(Plugin):
    """Praises hats, by words of its own table."""

    name = "praiser"
    after = ("hats",)
    migrations = notes

    @hookimpl
    def register_hats(self) -> Sequence[Hat]:
        return [Hat("straw"), Hat("top")]

    @hookimpl
    def praise_hat(self, view: PluginView, hat: Hat) -> Sequence[str]:
        return [f"{row[0]} {hat.name}" for row in view.read("SELECT word FROM praiser_words")]


def cls_of(name: str, /, **attributes: Any) -> type[Plugin]:
    hooks = {key: hookimpl(value) if callable(value) else value for key, value in attributes.items()}
    return type(name.title(), (Plugin,), {"name": name, "after": ("hats",), **hooks})


def opened(folder: Path, *plugins: type[Plugin], **more: Any) -> Village:
    folder.mkdir(exist_ok=True)
    (folder / "vivarium.toml").write_text("")
    return Village(folder, With(installed=False, plugins=plugins, **more), environ={})


@pytest.fixture
def open_with(tmp_path: Path) -> Iterator[Callable[..., Village]]:
    made: list[Village] = []

    def make(*plugins: type[Plugin]) -> Village:
        made.append(opened(tmp_path / str(len(made)), *plugins))
        return made[-1]

    yield make
    for village in made:
        village.close()


def told(*classes: type[Plugin]) -> dict[str, list[str]]:
    _, failed = build(None, {cls.name: cls for cls in classes}, {})
    return {each.name: [str(error) for error in each.errors] for each in failed}


# Each kind


def test_what_is_registered_comes_with_its_plugin_in_the_plugins_order(open_with: Callable[..., Village]) -> None:
    first = cls_of("zeal", after=("hats", "praiser"), register_hats=lambda self: [HAT])
    village = open_with(Hats, first, Praiser)
    assert village.plugins["hats"].call(register_hats) == [
        ("praiser", Hat("straw")), ("praiser", Hat("top")), ("zeal", HAT)
    ]  # fmt: skip


def test_tryfirst_and_trylast_hold_for_offered_hooks_too(open_with: Callable[..., Village]) -> None:
    class Last(Plugin):
        name = "abe"
        after = ("hats",)

        @hookimpl(trylast=True)
        def register_hats(self) -> Sequence[Hat]:
            return [HAT]

    village = open_with(Hats, Last, Praiser)
    assert [name for name, _ in village.plugins["hats"].call(register_hats)] == ["praiser", "praiser", "abe"]


def test_each_implementation_reads_with_its_own_rights(open_with: Callable[..., Village]) -> None:
    thief = cls_of("thief", praise_hat=lambda self, view: [view.read("SELECT word FROM praiser_words")[0][0]])
    village = open_with(Hats, Praiser, thief)
    with village.store.view() as view:
        said = village.plugins["hats"].call(praise_hat, HAT, view.plugin("hats"))
    assert said == [("praiser", "fine bowler")]
    assert "prohibited" in village.health.tally("thief", "praise_hat").last_error


def test_one_that_holds_a_tx_hands_it_over_for_reading_alone(open_with: Callable[..., Village]) -> None:
    seen: list[Any] = []
    village = open_with(Hats, cls_of("looker", praise_hat=lambda self, view: seen.append(view) or ["well"]))
    call = village.plugins["hats"].call
    assert village.store.call(lambda tx, _: call(praise_hat, HAT, tx.plugin("hats")), None) == [("looker", "well")]
    assert type(seen[0]) is PluginView and seen[0].now > 0


def test_the_first_answer_that_is_not_none_is_taken_and_who_fails_is_passed_over(
    open_with: Callable[..., Village],
) -> None:
    def fails(self: Any, hat: Hat) -> int:
        raise ValueError("no price")

    ant, bee = cls_of("ant", price_of_hat=fails), cls_of("bee", price_of_hat=lambda self: None)
    cat, dog = cls_of("cat", price_of_hat=lambda self, hat: 3), cls_of("dog", price_of_hat=lambda self: 4)
    village = open_with(Hats, ant, bee, cat, dog)
    assert village.plugins["hats"].call(price_of_hat, HAT) == ("cat", 3)
    assert village.health.tally("ant", "price_of_hat").last_error == "ValueError: no price"
    assert village.health.tally("dog", "price_of_hat").calls == 0


def test_coroutines_are_awaited_and_a_slow_one_is_cancelled(open_with: Callable[..., Village]) -> None:
    heard: list[str] = []

    async def mends(self: Any, hat: Hat) -> str:
        await asyncio.sleep(0)
        return f"a new {hat.name}"

    async def hears(self: Any, hat: Hat) -> None:
        heard.append(hat.name)

    async def hangs(self: Any, hat: Hat) -> None:
        await asyncio.Event().wait()

    plugins = [cls(None, None) for cls in (Hats, cls_of("ant", on_hat_worn=hangs), cls_of("bee", on_hat_worn=hears),
                                           cls_of("cat", mend_hat=mends))]  # fmt: skip
    health = Health()
    hooks = Hooks(plugins, health, timeout_seconds=0.01)

    async def both() -> Any:
        await hooks.offered.call(on_hat_worn, (HAT,), {})
        return await hooks.offered.call(mend_hat, (), {"hat": HAT})

    assert asyncio.run(both()) == ("cat", "a new bowler")
    assert heard == ["bowler"]
    assert "no answer within" in health.tally("ant", "on_hat_worn").last_error


def test_type_checkers_know_what_a_hook_takes_and_gives(open_with: Callable[..., Village]) -> None:
    hats = open_with(Hats).plugins["hats"]
    assert_type(hats.call(register_hats), list[tuple[str, Hat]])
    assert_type(hats.call(price_of_hat, HAT), tuple[str, int] | None)
    mended, heard = hats.call(mend_hat, HAT), hats.call(on_hat_worn, hat=HAT)
    assert_type(mended, Awaitable[tuple[str, str] | None])
    assert_type(heard, Awaitable[None])
    with pytest.raises(TypeError, match="missing a required argument: 'hat'"):
        hats.call(price_of_hat)  # type: ignore[call-arg]

    async def both() -> None:
        assert [await mended, await heard] == [None, None]

    asyncio.run(both())


# Faults


@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_an_implementation_raises_stays_with_it(open_with: Callable[..., Village], fault: str) -> None:
    def praise(self: Any, hat: Hat) -> Any:
        FAULTS[fault]()

    village = open_with(Hats, Praiser, cls_of("ant", praise_hat=praise))
    with village.store.view() as view:
        for _ in range(FAILURES_IN_A_ROW + 2):
            assert village.plugins["hats"].call(praise_hat, HAT, view.plugin("hats")) == [("praiser", "fine bowler")]
    tally = village.health.tally("ant", "praise_hat")
    assert tally.calls == tally.errors == FAILURES_IN_A_ROW  # then its breaker has opened
    assert list(village.health.switched_off["ant"]) == ["praise_hat"]


@pytest.mark.parametrize(
    ("answer", "fault"), [([3], "list with a int; every item is a str"), ("a", "a list or a tuple")]
)
def test_an_answer_of_a_wrong_type_is_the_answerers_fault(
    open_with: Callable[..., Village], answer: Any, fault: str
) -> None:
    village = open_with(Hats, cls_of("ant", praise_hat=lambda self: answer))
    with village.store.view() as view:
        assert village.plugins["hats"].call(praise_hat, HAT, view.plugin("hats")) == []
    assert fault in village.health.tally("ant", "praise_hat").last_error


def test_a_plugin_that_fails_to_register_is_failed_with_all_that_it_registers(
    open_with: Callable[..., Village],
) -> None:
    village = open_with(Hats, Praiser, cls_of("ant", register_hats=lambda self: ["no hat"]))
    assert [failed.name for failed in village.failed] == ["ant"]
    assert "Ant.register_hats" in str(village.failed[0]) and "every item is a Hat" in str(village.failed[0])
    assert "ant" not in village.plugins
    assert len(village.plugins["hats"].call(register_hats)) == 2


def test_a_plain_implementation_is_marked_on_the_thread_that_it_holds() -> None:
    mark = Mark()
    seen: list[Any] = []
    look = cls_of("ant", price_of_hat=lambda self: seen.append(mark.held()) or 3)
    try:
        hooks = Hooks([cls(None, None) for cls in (Hats, look)], Health(), mark=mark)
        for name in (None, "vivarium-commit", "a plugin's own"):
            ask = threading.Thread(target=hooks.offered.call, args=(price_of_hat, (HAT,), {}), name=name)
            (ask.run if name is None else ask.start)()
            if name is not None:
                ask.join()
        mine = ("ant", "price_of_hat")
        assert seen == [[("loop", *mine)], [("writer", *mine)], []]
        assert mark.held() == []
    finally:
        mark.close()


def test_a_plugin_calls_the_hooks_that_it_offers_and_no_others(open_with: Callable[..., Village]) -> None:
    village = open_with(Hats, Praiser)
    with pytest.raises(BadHook, match="register_hats called by praiser: is no hook of its own"):
        village.plugins["praiser"].call(register_hats)


# What may be offered and implemented


def one(kind: Any, function: Callable[..., Any]) -> list[str]:
    cls = type("Odd", (Plugin,), {"name": "odd", "hookspecs": (hookspec(kind)(function),)})
    return told(cls).get("odd", [])


def enrich_promt(hat: Hat) -> Sequence[str]:
    """Too like."""


def on_tick(now: int) -> Sequence[str]:
    """The kernel's."""


def with_tx(tx: Any) -> Sequence[str]:
    """Writes."""


def untyped(hat):  # type: ignore[no-untyped-def]
    """Says no types."""


def unsaid(hat: Hat) -> Sequence[str]:
    return ()


async def waits_with_view(view: PluginView) -> Sequence[str]:
    """Keeps a snapshot."""


def lax(*hats: Hat) -> Sequence[str]:
    """Takes all."""


def single(hat: Hat) -> int:
    """No sequence."""


@pytest.mark.parametrize(
    ("kind", "function", "fault"),
    [
        ("collect", enrich_promt, "is nearly called like the kernel's hook enrich_prompt"),
        ("collect", on_tick, "has the name of the kernel's hook on_tick"),
        ("collect", with_tx, "takes a tx"),
        ("collect", untyped, "has no annotation of hat, its answer"),
        ("collect", unsaid, "says nothing about itself"),
        ("collect", waits_with_view, "may wait and takes a view"),
        ("collect", lax, "takes *hats"),
        ("collect", single, "answers no sequence"),
        ("notify", single, "is of kind notify and has an answer"),
        ("register", unsaid, "registers, and takes arguments or waits"),
        ("strictest", single, "is of kind 'strictest'; the kinds are register, collect, first, notify"),
    ],
)
def test_a_hook_that_can_not_be_offered_is_told_with_its_place_and_the_cure(
    kind: str, function: Callable[..., Any], fault: str
) -> None:
    found = one(kind, function)
    assert any(fault in text and "test_offered.py:" in text and f"{function.__name__}(" in text for text in found)


def test_a_hook_that_two_plugins_offer_is_refused_with_both() -> None:
    milliner = type("Milliner", (Plugin,), {"name": "milliner", "hookspecs": (register_hats,)})
    found = told(Hats, milliner, Praiser)
    assert "milliner and hats both offer a hook register_hats; neither is taken" in found["milliner"][0]
    assert "hats and milliner both offer a hook register_hats; neither is taken" in found["hats"][0]
    assert "praiser" not in found


def test_a_slip_of_the_pen_is_told_with_the_plugin_that_was_meant() -> None:
    found = told(Hats, cls_of("ant", registr_hats=lambda self: []), cls_of("bee", register_hats=lambda self, hat: []))
    assert found["ant"] == ["Ant.registr_hats(): there is no hook registr_hats; registr_hats: did you mean "
                            "register_hats (of hats)?"]  # fmt: skip
    assert "the hook has no argument hat" in found["bee"][0]


def test_whose_hook_is_implemented_must_be_named_so_that_it_may_be_absent() -> None:
    silent = cls_of("ant", after=(), register_hats=lambda self: [])
    assert (
        'register_hats is a hook of hats, which the class does not name; write after = ("hats",)'
        in (told(Hats, silent)["ant"][0])
    )

    class Optional(Plugin):
        name = "optional"

        @hookimpl(optionalhook=True)
        def register_hats(self) -> Sequence[Hat]:
            return []

    assert told(Hats, Optional) == told(Optional) == {}


def test_an_implementation_waits_for_a_plugin_that_is_absent_and_says_so() -> None:
    assert told(Praiser) == {}
    assert waiting_for(Praiser, {}) == dict.fromkeys(("praise_hat", "register_hats"), "for hats, which is not on")
    assert waiting_for(Praiser, {"hats": Hats}) == {}
    # The kernel's hooks are there whoever is absent: a slip in one of them is told all the same.
    assert "did you mean enrich_prompt?" in told(cls_of("ant", enrch_prompt=lambda self: []))["ant"][0]


# Switching


def test_a_running_village_takes_up_and_lets_go_of_implementations_and_of_offers(tmp_path: Path) -> None:
    village = opened(tmp_path / "village", Hats, Praiser)
    hats = village.plugins["hats"]

    def switch(*off: str) -> None:
        registry.write(village.folder, registry.Registry(disabled=frozenset(off)))

    async def live() -> None:
        switching = Switching(village)
        await switching.begin()
        assert len(hats.call(register_hats)) == 2
        switch("praiser")
        await switching.look()
        assert hats.call(register_hats) == []
        switch("hats")
        await switching.look()
        assert village.failed == [] and "praiser" in village.plugins
        assert hats.call(register_hats) == []  # in flight, its own hooks are none any more
        assert hats.call(price_of_hat, HAT) is None
        switch()
        await switching.look()
        assert len(village.plugins["hats"].call(register_hats)) == 2
        await switching.end()

    with village:
        asyncio.run(live())
