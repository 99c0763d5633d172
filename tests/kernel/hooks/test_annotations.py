"""Promises about annotations: one that contradicts its hook is refused at registration, and no other one."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import pytest
from vivarium_kernel.annotations import agrees
from vivarium_kernel.plugins import build

import vivarium_kernel
from vivarium_kernel import (
    Action,
    Event,
    Job,
    Outcome,
    Plugin,
    PluginTx,
    PluginView,
    Resident,
    Review,
    Section,
    Task,
    hookimpl,
)

if TYPE_CHECKING:
    from elsewhere import Anything  # type: ignore[import-not-found]
    from elsewhere import PluginView as View


class Reads(Protocol):
    def read(self, sql: str) -> Any: ...


class Rich(Section):
    """More than a section."""


def told(cls: type[Plugin]) -> list[str]:
    _, failed = build(None, {cls.name: cls}, {})
    return [str(error) for each in failed for error in each.errors]


def test_a_wrong_annotation_is_refused_with_definition_fault_and_cure() -> None:
    class Wrong(Plugin):
        name = "wrong"

        @hookimpl
        def enrich_prompt(self, task: Resident, view: PluginView) -> Sequence[Section]:
            return []

        @hookimpl
        def claim_score(self, tasks: Sequence[Task]) -> Sequence[str]:
            return []

    first, second = told(Wrong)
    line = Wrong.enrich_prompt.__code__.co_firstlineno
    assert second.startswith(f"{__file__}:{line}: Wrong.enrich_prompt(self, task: Resident, view: PluginView) -> ")
    assert second.endswith(": argument task is annotated Resident; the hook enrich_prompt has Task; write Task")
    assert "its answer is annotated Sequence[str]; the hook claim_score has Sequence[float]; write Seq" in first


WRONG: dict[str, Callable[..., Any]] = {}
RIGHT: dict[str, Callable[..., Any]] = {}


def case(table: dict[str, Callable[..., Any]], hook: str) -> Callable[[Callable[..., Any]], None]:
    def keep(function: Callable[..., Any]) -> None:
        table[f"{hook}: {function.__name__}"] = function

    return keep


def cases() -> None:
    @case(WRONG, "end_attempt")
    def a_view_for_a_tx(self: Any, tx: PluginView) -> None: ...

    @case(WRONG, "entitle")
    def a_name_that_only_type_checkers_know(self: Any, view: Anything) -> None: ...

    @case(WRONG, "claim_filter")
    def a_list_for_a_sequence(self: Any, tasks: list[Task]) -> Any: ...

    @case(WRONG, "on_event")
    async def a_part_for_a_whole(self: Any, event: str) -> None: ...

    @case(WRONG, "review_outcome")
    async def another_answer(self: Any, outcome: Outcome) -> Outcome | None: ...

    @case(WRONG, "register_actions")
    def what_is_registered_elsewhere(self: Any) -> list[Section]: ...

    @case(WRONG, "on_tick")
    def text_for_a_number(self: Any, now: str) -> None: ...

    @case(RIGHT, "enrich_prompt")
    def nothing_annotated(self, task, view):  # type: ignore[no-untyped-def]
        ...

    @case(RIGHT, "enrich_prompt")
    def wider_arguments(self: Any, resident: object, task: Task | None, view: Any) -> list[Section]: ...

    @case(RIGHT, "enrich_prompt")
    def narrower_answers(self: Any, view: Reads) -> tuple[Rich, ...]: ...

    @case(RIGHT, "claim_filter")
    def iterables(self: Any, tasks: Iterable[Task]) -> list[Any]: ...

    @case(RIGHT, "claim_score")
    def whole_numbers(self: Any, tasks: Sequence[Task]) -> list[int]: ...

    @case(RIGHT, "register_actions")
    def a_list_of_actions(self: Any) -> list[Action[Any]]: ...

    @case(RIGHT, "review_outcome")
    async def always_an_answer(self: Any, task: Task) -> Review: ...

    @case(RIGHT, "end_attempt")
    def by_its_module(self: Any, tx: vivarium_kernel.PluginTx) -> None: ...

    @case(RIGHT, "end_attempt")
    def no_answer(self: Any, tx: PluginTx) -> None: ...

    @case(RIGHT, "on_event")
    async def an_event(self: Any, event: Event) -> None: ...

    @case(RIGHT, "around_execution")
    @contextlib.asynccontextmanager
    async def a_decorator_made_the_answer(self: Any, job: Job) -> AsyncIterator[None]:
        yield


cases()


@pytest.mark.parametrize("name", WRONG)
def test_what_contradicts_a_hook_is_refused(name: str) -> None:
    hook = name.partition(":")[0]
    (found,) = told(type("Case", (Plugin,), {"name": "case", hook: hookimpl(WRONG[name])}))
    assert f"the hook {hook} has" in found and "test_annotations.py:" in found


@pytest.mark.parametrize("name", RIGHT)
def test_what_may_be_true_is_taken(name: str) -> None:
    assert told(type("Case", (Plugin,), {"name": "case", name.partition(":")[0]: hookimpl(RIGHT[name])})) == []


def test_a_name_for_type_checkers_alone_is_told_to_be_one() -> None:
    def entitle(self: Any, view: View) -> None: ...

    (found,) = told(type("Case", (Plugin,), {"name": "case", "entitle": hookimpl(entitle)}))
    assert "argument view is annotated View, and is known to type checkers alone; the hook entitle has Plug" in found
    assert found.endswith("write PluginView, or import the name outside TYPE_CHECKING")


@pytest.mark.parametrize(
    ("narrow", "wide", "fits"),
    [
        (int, float, True), (float, int, False), (bool, int, True), (list[int], Sequence[float], True),
        (list[str], Sequence[float], False), (tuple[int, ...], Sequence[int], True),
        (tuple[int, str], Sequence[int], False),
        (int | None, int, False), (int, int | None, True), (dict[str, int], Sequence[str], False), ("Task", Task, True),
        ("a.b.Task", "Task", True), ("Sequence['Task']", "Sequence[x.Task]", True), ("Task", "Resident", False),
        (Any, int, True), (str, Callable[..., int], False),
    ],
)  # fmt: skip
def test_agreement_goes_one_way(narrow: Any, wide: Any, fits: bool) -> None:
    assert agrees(narrow, wide) is fits
