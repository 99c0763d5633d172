"""Promises about ``vivarium models``: what there is, whether it answers, what it costs, and that a test is paid too."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from vivarium_kernel.catalog import Listed, listing
from vivarium_kernel.village import Village, With

from vivarium_kernel import ModelInfo, NotFound, Price, ProviderFault, Reply, Request

from .running import Done, Here, started, village, vivarium

SETTINGS = """
model = "near:big"

[models]
allow = ["near:*", "far:*", "plain:one"]
small = "near:tiny"
large = "near:gone"

[models.prices]
"near:tiny" = { in_usd = "0.5", out_usd = "1" }
"plain:one" = { second_usd = "0.25" }
"""


class Plain:
    """A provider that does not tell what it has."""

    def __init__(self, name: str) -> None:
        self.name = name

    def price(self, model: str) -> Price | None:
        if model == "gone":
            raise NotFound("model.unknown", "There is no model near:gone.")
        return Price(150_000, 600_000, 75_000) if model == "big" else None

    async def complete(self, request: Request) -> Reply:
        raise AssertionError("listing models calls none")


class Telling(Plain):
    """A provider that tells, or does what a test wants instead."""

    def __init__(self, name: str, found: Sequence[ModelInfo] | Exception | float) -> None:
        super().__init__(name)
        self.found = found

    async def models(self) -> Sequence[ModelInfo]:
        if isinstance(self.found, float):
            await asyncio.sleep(self.found)
            return ()
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


def listed(folder: Path, *providers: Plain, seconds: float = 5.0, more: str = "") -> dict[str, Listed]:
    settings = SETTINGS + more
    with Village(
        village(folder, settings=settings), With(load_plugins=False), environ={"NEAR_API_KEY": "a-secret-key"}
    ) as made:
        for provider in providers:
            made.add_provider(provider)
        found = asyncio.run(listing(made, [provider.name for provider in providers], seconds))
    return {row.model or f"{row.provider}:": row for row in found}


SERVED = [ModelInfo("tiny", 2_048, 3, 1, 0.75), ModelInfo("big", 131_072), ModelInfo("odd", note="not active")]


def test_a_model_is_listed_with_what_is_known_of_it(tmp_path: Path) -> None:
    found = listed(tmp_path, Telling("near", SERVED))
    tiny, big, odd, gone = (found[f"near:{name}"] for name in ("tiny", "big", "odd", "gone"))
    assert (tiny.context_tokens, tiny.running, tiny.waiting, tiny.cached) == (2_048, 3, 1, 0.75)
    assert (tiny.classes, tiny.is_default, big.is_default) == (("small",), False, True)
    assert (tiny.price, tiny.price_from) == (Price(500_000, 1_000_000), "settings")
    assert (big.price, big.price_from) == (Price(150_000, 600_000, 75_000), "provider")
    assert (odd.price, odd.price_from, odd.note) == (None, "unknown", "not active")
    assert gone.classes == ("large",) and "is not served" in gone.problem


def test_a_provider_that_does_not_tell_is_listed_with_what_the_settings_name(tmp_path: Path) -> None:
    found = listed(tmp_path, Plain("plain"), Plain("far"))
    assert found["plain:one"].price == Price(0, 0, None, 250_000)
    assert found["far:"].note == "it does not tell which models it has"


def test_what_the_village_does_not_allow_is_marked(tmp_path: Path) -> None:
    found = listed(tmp_path, Telling("near", SERVED), Telling("plain", [ModelInfo("one"), ModelInfo("two")]))
    assert {name for name, row in found.items() if not row.allowed} == {"plain:two"}


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (ProviderFault("it can't be reached", started=False, kind="connection"), "it can't be reached"),
        (ProviderFault("401 for a-secret-key", started=False, kind="unauthorized"), "401 for [the key]"),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
        (30.0, "did not say within 0.1 s"),
    ],
)
def test_a_provider_that_is_down_is_a_row_and_the_others_are_listed(
    tmp_path: Path, fault: Exception | float, words: str
) -> None:
    found = listed(tmp_path, Telling("near", fault), Telling("far", [ModelInfo("one")]), seconds=0.1)
    assert words in found["near:tiny"].problem and words in found["near:big"].problem
    assert found["near:big"].price == Price(150_000, 600_000, 75_000)  # that needs no server
    assert (found["far:one"].problem, found["far:one"].allowed) == ("", True)
    assert "a-secret-key" not in repr(found)


def test_providers_are_asked_at_once(tmp_path: Path) -> None:
    slow = [Telling(f"p{number}", 0.3) for number in range(20)]
    began = time.monotonic()
    found = listed(tmp_path, *slow)
    assert len(found) == 20 and time.monotonic() - began < 3.0


def test_a_provider_that_is_not_there_or_not_set_up_is_a_row_too(tmp_path: Path) -> None:
    with Village(village(tmp_path), With(load_plugins=False)) as made:
        (row,) = asyncio.run(listing(made, ["nobody"]))
    assert row.provider == "nobody" and "There is no model provider" in row.problem


# The commands


def test_the_list_shows_the_village_s_own_model(here: Here) -> None:
    shown = here("models", "list")
    assert shown.status == 0 and "scripted:echo" in shown.out and "default" in shown.out
    row, *others = here("models", "list", "--json").document
    assert (row["model"], row["is_default"], row["allowed"], row["price"]["in_micros"]) == (
        "scripted:echo", True, True, 0,
    )  # fmt: skip
    assert [(other["model"], other["is_default"]) for other in others] == [
        ("scripted:tools", False), ("scripted:wait-1", False),
    ]  # fmt: skip


def test_a_name_of_the_scripted_model_is_wrong_only_where_it_has_no_such_model(here: Here) -> None:
    settings = here.folder / "vivarium.toml"
    settings.write_text(f'{settings.read_text()}\n[models]\nsmall = "scripted:wait-0"\nlarge = "scripted:wrong"\n')
    rows = {row["model"]: row for row in here("models", "list", "--json").document}
    assert (rows["scripted:wait-0"]["problem"], rows["scripted:wait-0"]["classes"]) == ("", ["small"])
    assert "There is no model scripted:wrong" in rows["scripted:wrong"]["problem"]


def test_a_price_is_shown_or_the_line_that_sets_it(here: Here) -> None:
    shown = here("models", "price", "scripted:echo")
    assert "its provider" in shown.out and "0 USD for a million tokens" in shown.out
    told = here("models", "price", "scripted:echo", "--in-usd", "0.1", "--out-usd", "2", "--second-usd", "0.000001")
    assert told.out == '"scripted:echo" = { in_usd = "0.10", out_usd = "2", second_usd = "0.000001" }\n'
    assert str(here.folder / "vivarium.toml") in told.err
    settings = here.folder / "vivarium.toml"
    settings.write_text(f"{settings.read_text()}\n[models.prices]\n{told.out}")
    document = here("models", "price", "scripted:echo", "--json").document
    assert (document["from"], document["price"]["in_micros"], document["price"]["second_micros"]) == (
        "settings", 100_000, 1,
    )  # fmt: skip
    again = here("models", "price", "scripted:echo", "--in-usd", "1", "--json").document
    assert again["replaces"] is True


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("echo",), "PROVIDER:MODEL"),
        (("nobody:x",), "There is no model provider 'nobody'"),
        (("a:b", "--in-usd", "-1"), "--in-usd: must not be negative"),
        (("a:b", "--second-usd", "1e-9"), "--second-usd: must be written without an exponent"),
    ],
)
def test_a_price_that_can_be_none_is_refused(here: Here, arguments: tuple[str, ...], words: str) -> None:
    done = here("models", "price", *arguments)
    assert done.status == 2 and words in done.err


def test_a_test_is_a_task_and_says_what_it_cost(here: Here) -> None:
    done = here("models", "test")
    assert done.status == 0 and "it answered" in done.out and "0 USD, recorded with task t1" in done.out
    assert "This posts one task for scripted:echo, which ada does now" in done.err and "reward" in done.err
    found = here("models", "test", "scripted:echo", "--json").document
    assert (found["answered"], found["calls"], found["spent_micros"]) == (True, 1, 0)
    assert [task["state"] for task in here("task", "list", "--json").document] == ["done", "done"]
    assert here("costs", "--json").document["total"]["calls"] == 2
    assert here("ledger", "verify").status == 0


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("scripted:nothing", "There is no model scripted:nothing"),
        ("nobody:x", "There is no model provider"),
        ("x", "PROVIDER"),
    ],
)
def test_a_model_that_is_not_there_is_refused_before_anything_is_posted(here: Here, model: str, words: str) -> None:
    done = here("models", "test", model)
    assert done.status == 2 and words in done.err and "This posts" not in done.err
    assert here("task", "list", "--json").document == []


def test_nothing_is_tested_while_the_village_is_halted(here: Here) -> None:
    here("halt")
    done = here("models", "test")
    assert done.status == 2 and "[village.halted]" in done.err


def test_a_model_is_tested_while_the_village_lives_too(here: Here) -> None:
    with started("up", "--port", "0", cwd=here.folder) as process:
        while process.poll() is None and here("status", "--json").document["state"] != "living":
            time.sleep(0.05)
        found = here("models", "test", "--json").document
    assert (found["answered"], found["resident"]) == (True, "ada")


def test_without_anybody_who_could_call_it_nothing_is_tested(here: Here) -> None:
    here("resident", "pause", "ada")
    done = here("models", "test")
    assert done.status == 2 and "[models.nobody]" in done.err
    assert here("task", "list", "--json").document == []


PROVIDER = """
from attrs import frozen
from vivarium_kernel import Plugin, Price, ProviderFault, Reply, Usage


class Shop(Plugin):
    "Sells words."

    name = "shop"


class Seller:
    name = "shop"

    def __init__(self, place):
        self.place = place

    def price(self, model):
        return None if model == "gift" else Price(2_000_000, 3_000_000)

    async def models(self):
        from vivarium_kernel import ModelInfo

        return [ModelInfo("dear", 4_096), ModelInfo("shut")]

    async def complete(self, request):
        if request.name == "shut":
            raise ProviderFault("the shop is shut", started=False, kind="overloaded")
        if self.place.key("shop") != "a-key-for-the-shop":
            raise ProviderFault("no key", started=False, kind="unauthorized")
        return Reply("ready", Usage(10, 4))


def provider(place):
    return Seller(place)
"""


@pytest.fixture
def shop(tmp_path: Path) -> Any:
    """A village beside which a provider is installed whose models cost something."""
    information = tmp_path / "site" / "shop-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: shop\nVersion: 1.0\n")
    points = "[vivarium.plugins]\nshop = shop_plugin:Shop\n[vivarium.models]\nshop = shop_plugin:provider\n"
    (information / "entry_points.txt").write_text(points)
    (tmp_path / "site" / "shop_plugin.py").write_text(PROVIDER)
    folder = village(tmp_path / "v", settings='[budgets]\ntask_usd = "0.10"\n')

    def call(*arguments: str, stdin: str = "") -> Done:
        return vivarium(*arguments, cwd=folder, env={"PYTHONPATH": str(tmp_path / "site")}, stdin=stdin)

    return call


def test_an_installed_provider_is_listed_tested_and_paid_from_the_ledger(shop: Any) -> None:
    rows = {row["model"]: row for row in shop("models", "list", "--json").document}
    assert rows["shop:dear"]["context_tokens"] == 4_096 and rows["shop:dear"]["price"]["out_micros"] == 3_000_000
    done = shop("models", "test", "shop:dear")
    assert done.status == 1 and "unauthorized" in done.out and "vivarium key set shop" in done.out
    assert "cost    0 USD" in done.out
    assert shop("key", "set", "shop", stdin="a-key-for-the-shop").err == ""
    found = shop("models", "test", "shop:dear", "--json").document
    assert (found["answered"], found["tokens_in"], found["tokens_out"], found["spent_micros"]) == (True, 10, 4, 32)
    costs = shop("costs", "--by", "model", "--json").document
    assert [(line["name"], line["spent_micros"]) for line in costs["lines"] if line["spent_micros"]] == [
        ("shop:dear", 32)
    ]
    assert shop("ledger", "verify").status == 0
    states = {task["state"] for task in shop("task", "list", "--json").document}
    assert states == {"done", "cancelled"}  # what could not be done now is not done later


def test_a_key_is_known_by_its_provider_and_by_the_table_of_its_server(shop: Any, tmp_path: Path) -> None:
    settings = tmp_path / "v" / "vivarium.toml"
    settings.write_text(
        f'{settings.read_text()}\n[plugins.shop.servers.mirror]\nbase_url = "http://127.0.0.1:9/v1"\n'
        '[plugins.shop.servers.second]\nkey = "shared"\n[plugins.nobody.servers.lost]\nkey = "nobodys"\n'
    )
    for name in ("shop", "mirror", "shared"):
        assert shop("key", "set", name, stdin="a-key-of-sixteen").err == ""
    for name in ("miror", "second", "nobodys"):
        done = shop("key", "set", name, stdin="a-key-of-sixteen")
        assert done.status == 0 and f"[plugins.PROVIDER.servers.{name}]" in done.err and "(there are: " in done.err


def test_a_fault_is_told_with_its_kind_and_the_next_step(shop: Any) -> None:
    done = shop("models", "test", "shop:shut")
    assert done.status == 1
    assert "overloaded" in done.out and "the shop is shut" in done.out and "choose another model" in done.out


@pytest.mark.promise("exit-status")
def test_a_test_that_failed_is_no_blot_on_later_runs(shop: Any) -> None:
    assert shop("models", "test", "shop:shut").status == 1
    done = shop("run")
    assert done.status == 0 and "not as expected" not in done.out, done.out


def test_what_waits_for_a_key_goes_on_when_one_is_set_and_at_the_next_start(shop: Any) -> None:
    for _ in range(7):  # more than the failures that make a model be left alone
        shop("task", "add", "--prompt", "Say ready.", "--model", "shop:dear")
    done = shop("run")
    assert done.status == 3 and "left alone" not in done.out
    assert done.out.count("(no key)") == 1 and done.out.count("(as above)") >= 4
    assert {task["parked_for"] for task in shop("task", "list", "--json").document} == {"key"}
    assert shop("run").status == 3  # it was tried again, and still there is none
    assert [task["attempts"] for task in shop("task", "list", "--json").document] == [2] * 7
    assert "7 tasks that waited for a key are open again" in shop("key", "set", "shop", stdin="a-key-for-the-shop").out
    assert {task["state"] for task in shop("task", "list", "--json").document} == {"open"}
    assert shop("run").status == 0


def test_a_task_whose_model_nobody_provides_is_kept_until_somebody_does(shop: Any) -> None:
    shop("key", "set", "shop", stdin="a-key-for-the-shop")
    shop("task", "add", "--id", "far", "--prompt", "Say.", "--model", "nowhere:x")
    shop("task", "add", "--id", "near", "--prompt", "Say.", "--model", "shop:dear")
    shop("plugins", "disable", "shop")
    done = shop("run")
    assert done.status == 1
    assert "There is no model provider 'nowhere'" in done.out
    assert "the plugin shop, which brings its model, is switched off: vivarium plugins enable shop" in done.out
    explained = shop("explain", "claim", "near", "--json").document["now"][0]["reasons"]
    assert [reason["kind"] for reason in explained] == ["model"]
    shop("plugins", "enable", "shop")
    assert shop("run").status == 1
    assert {task["id"]: (task["state"], task["attempts"]) for task in shop("task", "list", "--json").document} == {
        "far": ("open", 0), "near": ("done", 1)
    }  # fmt: skip


def test_a_model_without_a_price_is_not_called(shop: Any) -> None:
    shop("key", "set", "shop", stdin="a-key-for-the-shop")
    done = shop("models", "test", "shop:gift")
    assert done.status == 1 and "price of shop:gift is not known" in done.out
    assert "unknown, so it can't be called" in shop("models", "price", "shop:gift").out
