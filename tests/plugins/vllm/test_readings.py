"""Promises about what is read and reckoned without any server: the context, the metrics, the command line."""

from __future__ import annotations

import time

import pytest
from vivarium_plugins_vllm.commands import advice, command_line
from vivarium_plugins_vllm.fitting import fitted
from vivarium_plugins_vllm.metrics import Metrics, read

from vivarium_kernel import Invalid

from .scene import PAGE


@pytest.mark.parametrize(
    "asked, prompt, context, expected",
    [(512, 100, 4096, 512), (512, 3584, 4096, 512), (512, 3585, 4096, 511), (512, 4032, 4096, 64), (5, 4091, 4096, 5)],
)
def test_an_answer_has_what_its_prompt_leaves(asked: int, prompt: int, context: int, expected: int) -> None:
    assert fitted(asked, prompt, context, "m") == expected


@pytest.mark.parametrize("asked, prompt, context", [(512, 4033, 4096), (5, 4092, 4096), (512, 9000, 4096)])
def test_a_prompt_without_room_for_an_answer_is_refused(asked: int, prompt: int, context: int) -> None:
    with pytest.raises(Invalid, match="together with its answer"):
        fitted(asked, prompt, context, "m")


def test_metrics_of_all_engines_are_added_up() -> None:
    assert read(PAGE) == Metrics(3, 5, 1200, 900)
    assert read(PAGE).cached == 0.75


@pytest.mark.parametrize("page", ["", "<html>no</html>", "vllm:num_requests_running{} 1.2.3\n", "other 1.0\n"])
def test_a_page_without_metrics_says_nothing(page: str) -> None:
    assert read(page) == Metrics()
    assert read(page).cached is None


def test_a_server_is_started_as_a_village_wants_it_unless_told_otherwise() -> None:
    plain = command_line("vllm", "/m", 8000, "tiny", ())
    assert plain[:3] == ["vllm", "serve", "/m"]
    assert plain[plain.index("--scheduling-policy") + 1] == "priority"
    assert plain[plain.index("--host") + 1] == "127.0.0.1"
    assert 'servers = ["http://127.0.0.1:8000"]\nscheduling_policy = "priority"' in advice(8000, "tiny", plain)
    for extra in (("--scheduling-policy", "fcfs"), ("--scheduling-policy=fcfs",)):
        other = command_line("vllm", "/m", 8000, "tiny", (*extra, "--tool_call_parser", "llama3_json"))
        assert "priority" not in other and "hermes" not in other
        assert tuple(other[-len(extra) - 2 : -2]) == extra
        assert 'scheduling_policy = "fcfs"' in advice(8000, "tiny", other)


@pytest.mark.parametrize("line", ["vllm:a{\n", "vllm:a 1 \t x\n", 'vllm:a{x="1"} 1' + " " * 100 + "x\n"])
def test_a_page_is_gone_through_once_whatever_is_on_it(line: str) -> None:
    began = time.process_time()
    assert read(line * 200_000 + 'vllm:num_requests_running{a="b"} 3.0\r\n').running == 3
    assert time.process_time() - began < 20.0  # a second at the most, or hours
