"""Who wrote which section of a prompt, what was dropped, and that private text is shown to nobody."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from kernel.cli.running import Here
from vivarium_kernel.cycle import PROMPT_TOKENS
from vivarium_kernel.errors import NotFound
from vivarium_kernel.records import NewTask, Section

from vivarium_kernel import explaining

from .scene import folder, opened, plugin, prompts, run

DREAM = "I dreamt of the sea"


def diary(self: Any, resident: Any, task: Any) -> list[Section]:
    return [Section("memory", DREAM, 50, private=True), Section("rules", "Be kind.\nBe brief.", 90)]


def novel(self: Any) -> list[Section]:
    return [Section("situation", "word " * PROMPT_TOKENS, -1), Section("situation", "It rains.", 10)]


@pytest.fixture
def lived(tmp_path: Path) -> Path:
    path = folder(tmp_path / "v")
    with opened(path, plugin("diary", enrich_prompt=diary), plugin("novel", enrich_prompt=novel)) as village:
        village.post(prompts("a"))
        village.post([NewTask(id="c", command=("ls",))])
        run(village, 1)
    return path


@pytest.mark.promise("explained-prompts")
def test_each_section_names_its_plugin_its_tokens_and_what_became_of_it(lived: Path) -> None:
    with opened(lived) as village, village.store.view() as view:
        (attempt,) = (row[0] for row in view.rows("SELECT id FROM attempts WHERE task = 'a'"))
        found = explaining.prompt(view, attempt)
    assert [(each.slot, each.plugin, each.dropped, each.text) for each in found.sections] == [
        ("rules", "diary", False, "Be kind.\nBe brief."),
        ("memory", "diary", False, None),
        ("situation", "novel", True, "word " * PROMPT_TOKENS),
        ("situation", "novel", False, "It rains."),
        ("task", "kernel", False, "Do a."),
    ]
    assert found.sections[1].private
    assert found.sections[1].tokens == -(-len(DREAM) // 4)
    assert found.tokens == sum(each.tokens for each in found.sections if each.slot != "situation") + 3
    assert found.tokens <= found.limit == PROMPT_TOKENS


@pytest.mark.promise("explained-prompts")
def test_private_text_is_on_no_page_and_in_no_document(lived: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Here(lived, monkeypatch)
    page, document = here("explain", "prompt", "a"), here("explain", "prompt", "a", "--json")
    assert (page.status, document.status) == (0, 0)
    assert DREAM not in page.out + document.out
    assert "memory     diary        5  yes      (private)" in page.out
    assert "  dropped  word word" in page.out
    assert document.document["sections"][1]["text"] is None
    assert here("explain", "prompt", str(document.document["attempt"]), "--json").document == document.document


def test_an_attempt_without_a_prompt_says_why(lived: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Here(lived, monkeypatch)
    refused = here("explain", "prompt", "c")
    assert refused.status == 2
    assert "has no recorded prompt: a command has none" in refused.err
    unknown = here("explain", "prompt", "77")
    assert unknown.status == 2
    assert "There is no attempt 77" in unknown.err
    with opened(lived) as village, village.store.view() as view, pytest.raises(NotFound):
        explaining.prompt(view, 77)
