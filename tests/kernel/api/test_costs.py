"""Promises about GET /costs: what models cost, for people alone."""

from __future__ import annotations

import pytest

from .scene import HUMAN, OPERATOR, RESIDENT, Served


@pytest.mark.parametrize("by", ["resident", "task", "model", "day"])
def test_people_are_told_what_models_cost(scene: Served, by: str) -> None:
    assert scene.post("/cycle", {"prompt": "Say it.", "resident": "ada"}).ok()["status"] == "done"
    for who in (OPERATOR, HUMAN):
        page = scene.get(f"/costs?by={by}", who).ok()
        assert page["by"] == by and page["more"] == 0
        assert (page["total"]["calls"], page["total"]["spent_micros"]) == (1, 0)
        (line,) = page["lines"]
        assert line["calls"] == 1 and line["tokens_in"] > 0
        assert by != "resident" or line["name"] == "ada"


def test_residents_are_not_told_what_others_cost(scene: Served) -> None:
    scene.get("/costs", RESIDENT).problem(403, "auth.role")


def test_an_unknown_grouping_is_refused(scene: Served) -> None:
    assert scene.get("/costs?by=weather", OPERATOR).status == 422
