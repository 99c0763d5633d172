"""A village whose resident thinks with a real vLLM: what it reads again and again comes from the server's cache."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from vivarium_kernel.runtime import Runtime
from vivarium_kernel.village import Village, With
from vivarium_plugins_vllm.plugin import VLLM
from vivarium_plugins_vllm.provider import provider

from vivarium_kernel import NewTask

from .conftest import RealServer

pytestmark = pytest.mark.vllm
CYCLES = 10
CACHED = 0.6


def test_most_of_what_one_resident_reads_in_ten_cycles_comes_from_the_prefix_cache(
    real_vllm: RealServer, tmp_path: Path
) -> None:
    (tmp_path / "vivarium.toml").write_text(
        'name = "cached"\nresidents = ["ada"]\nmodel = "vllm:tiny"\n[models]\nmax_tokens = 16\nsteps = 1\n'
        f'[plugins.vllm]\nservers = ["{real_vllm.root}"]\n'
    )
    how = With(threaded=True, installed=False, plugins=(VLLM,))
    with Village(tmp_path, how, environ={"VLLM_API_KEY": real_vllm.key}) as village:
        village.add_provider(provider(village))
        village.post([NewTask(prompt=f"What is {n} and {n}?", max_attempts=1) for n in range(CYCLES)])

        async def live() -> None:
            async with asyncio.timeout(120), Runtime(village, 1, until_done=True) as runtime:
                await runtime.run()

        asyncio.run(live())
        with village.store.view() as view:
            found = view.rows("SELECT result FROM steps WHERE kind = 'model' AND state = 'done'")
    usages = [json.loads(result)["usage"] for (result,) in found]
    assert len(usages) >= CYCLES
    read, cached = sum(usage[0] for usage in usages), sum(usage[2] for usage in usages)
    assert cached / read >= CACHED, f"{cached} of {read} tokens"
