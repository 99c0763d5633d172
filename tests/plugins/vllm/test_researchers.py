"""The researchers on a real but tiny model of random weights: what it says is noise, and the machinery must hold."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from end_to_end.newcomer import copied, installed, typed
from vivarium_kernel.village import Village, With

from vivarium_kernel import audit, ledger

from .conftest import RealServer

pytestmark = pytest.mark.vllm
CAP_MICROS = 500_000  # village_day_usd of the example


@pytest.mark.promise("The researchers run end to end on a real model, within their budget, whatever it says")
def test_researchers_run_to_their_end_on_a_real_model_whatever_it_says(real_vllm: RealServer, tmp_path: Path) -> None:
    village = copied("researchers", tmp_path)
    settings = village / "vivarium.toml"
    text = settings.read_text(encoding="utf-8").replace('model = "auto"', 'model = "vllm:tiny"')
    text = text.replace("max_tokens = 800", "max_tokens = 48")
    settings.write_text(
        f'{text}\n[models.prices]\n"vllm:tiny" = {{ second_usd = "0.00001" }}\n'
        f'\n[plugins.vllm]\nservers = ["{real_vllm.root}"]\n',
        encoding="utf-8",
    )
    env = installed(tmp_path / "site", "vivarium_plugins_openai", "vivarium_plugins_vllm")
    env["VLLM_API_KEY"] = real_vllm.key
    done = typed("run", village, "--json", place=tmp_path, env=env)
    assert done.status in (0, 1), done.err
    assert real_vllm.key not in done.out + done.err
    found = json.loads(done.out)

    # Each question was thought about and has ended, by its own fault if by any: none of it was the server's.
    assert found["left"] == []
    assert found["counts"]["done"] + found["counts"]["failed"] == len(found["tasks"]) == 9
    thoughts = {one["task"]: one for one in found["thoughts"]}
    assert {*thoughts} >= {one["task"] for one in found["tasks"]} - {"guide"}
    for one in thoughts.values():
        assert one["model"] == "vllm:tiny" and one["calls"] and one["tokens_in"] and one["tokens_out"], one
        assert one["verified"] <= one["citations"]
    with closing(sqlite3.connect(village / "vivarium.db")) as db:
        failed = db.execute("SELECT count(*) FROM events WHERE kind = 'API_CALL_FAILURE'").fetchone()
        states = {state for (state,) in db.execute("SELECT DISTINCT state FROM steps")}
    assert (failed, states) == ((0,), {"done"})

    # It stayed within its budget, to the unit, and the books and the log are whole.
    spent = found["totals"]["spent_micros"]
    assert 0 < spent <= CAP_MICROS
    assert spent == sum(one["spent_micros"] for one in thoughts.values())
    with Village(village, With(load_plugins=False), environ={}) as opened, opened.store.view() as view:
        assert audit.verify(view)[2] is None
        assert ledger.verify(view).problems == ()
        (paid,) = view.row("SELECT sum(micros) FROM transfers WHERE currency = 'usd'") or (0,)
    assert paid == spent
