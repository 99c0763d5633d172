"""Promises about bounties over HTTP: the same acts with real tokens, on a village that is really served."""

from __future__ import annotations

from pathlib import Path

import pytest
from kernel.api.scene import HUMAN, OPERATOR, OTHER, RESIDENT, WORKER, found_village, served, with_tokens
from vivarium_plugins_economy.bounties import Bounties

from .scene import AID, WORK


@pytest.mark.promise("role-on-every-route", "actor-is-the-credential")
def test_a_bounty_lives_its_whole_life_over_http(tmp_path: Path) -> None:
    with served(found_village(tmp_path / "village"), plugins=(Bounties,)) as found:
        scene = with_tokens(found)
        body = {"title": "A bridge", "text": "Over the brook.", "prize_micros": 40 * AID}
        scene.post("/actions/bounties.post", body, HUMAN).problem(403, "action.role")
        scene.post("/actions/bounties.post", body, WORKER).problem(403, "auth.role")
        scene.post("/actions/bounties.post", {**body, "poster": "ben"}, RESIDENT).problem(422, "input")
        scene.post("/actions/bounties.post", {**body, "prize_micros": -1}, RESIDENT).problem(422, "input")
        scene.post("/actions/bounties.post", body, OPERATOR).problem(409, "ledger.floor")
        first = scene.post("/actions/bounties.post", body, RESIDENT, key="k").ok()
        assert scene.post("/actions/bounties.post", body, RESIDENT, key="k").ok() == first
        offer = {"bounty": first["bounty"], "text": WORK}
        scene.post("/actions/bounties.submit", offer, RESIDENT).problem(403, "bounties.own")
        scene.post("/actions/bounties.submit", {**offer, "text": "x"}, OTHER).problem(422, "bounties.text")
        made = scene.post("/actions/bounties.submit", offer, OTHER).ok()
        scene.post("/actions/bounties.submit", offer, OTHER).problem(409, "bounties.same")
        choice = {"bounty": first["bounty"], "winner": [made["submission"]]}
        scene.post("/actions/bounties.complete", choice, OTHER).problem(403, "bounties.judge")
        done = scene.post("/actions/bounties.complete", choice, RESIDENT).ok()
        assert done["paid"] == [{"prize": 1, "submission": 1, "resident": "ben", "micros": 40 * AID}]
        assert scene.post("/actions/bounties.complete", choice, RESIDENT).ok() == done
        shown = scene.post("/actions/bounties.show", {"bounty": first["bounty"]}, HUMAN).ok()
        assert (shown["state"], shown["submissions"]) == ("completed", [])
        assert len(scene.events("bounties.paid")) == 1
