"""The table of docs/tools.md, held against the code: which place each tool reaches under which policy."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from vivarium_kernel.errors import VivariumError
from vivarium_kernel.testing import StagedVillage

from .scene import Hand

COLUMNS = ("read", "documents", "work")
ANY = ("note.md", "NOTE.MD", "data.csv", "deep/er/note.md", "run.sh", ".hidden")
MARKDOWN = tuple(name for name in ANY if name.lower().endswith(".md"))
MEANT = {"yes": ANY, "any": ANY, ".md": MARKDOWN, "no": ()}


def tables(repository: Path) -> tuple[list[list[str]], list[list[str]]]:
    """The rows of the table of tools, and of the table of places."""
    text = (repository / "docs" / "tools.md").read_text(encoding="utf-8")
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| `")
    ]
    tools = [row for row in rows if re.fullmatch(r"`[a-z]+\.[a-z]+`", row[0])]
    return tools, [row for row in rows if row not in tools]


@pytest.fixture
def place_rows(repository: Path) -> list[list[str]]:
    return tables(repository)[1]


def test_the_table_names_every_tool_with_its_effect(repository: Path, village: StagedVillage) -> None:
    from vivarium_kernel.actions import actions_of

    found, _ = actions_of(village)
    own = {name: action for name, action in found.items() if "resident" in action.roles}
    assert {row[0].strip("`"): (row[1], row[3]) for row in tables(repository)[0]} == {
        name: (action.plugin, action.effect) for name, action in own.items()
    }


@pytest.mark.parametrize("policy", ["documents", "work"])
def test_each_cell_of_the_table_is_what_the_tools_do(
    make_village: Callable[..., StagedVillage], place_rows: list[list[str]], policy: str, tmp_path: Path
) -> None:
    assert len(place_rows) == 12
    settings = {"write_policy": policy, "commands": {"sandbox": "auto", "read_roots": ["docs"]}}
    (tmp_path / "v" / "docs").mkdir(parents=True)
    village = make_village(folder=tmp_path / "v", settings=settings)
    hand = Hand(village)
    wrong = []
    for place, *cells in place_rows:
        name = place.strip("`")
        meant = dict(zip(COLUMNS, cells, strict=True))
        wrote = [each for each in ANY if allowed(hand, "write", f"{name}/{each}")]
        if wrote != list(MEANT[meant[policy]]):
            wrong.append(f"{policy}: {name}: wrote {wrote}, and the table says {meant[policy]}")
        for each in ANY:
            (village.folder / name / each).parent.mkdir(parents=True, exist_ok=True)
            (village.folder / name / each).write_text("x")
        read = [each for each in ANY if allowed(hand, "read", f"{name}/{each}")]
        listed = allowed(hand, "list", name), allowed(hand, "search", name)
        if read != list(MEANT[meant["read"]]) or listed != ((bool(read),) * 2):
            wrong.append(f"{name}: read {read}, listed and searched {listed}, and the table says {meant['read']}")
    assert not wrong


def allowed(hand: Hand, action: str, path: str) -> bool:
    try:
        hand.do(action, path=path, **({"text": "x"} if action in ("write", "search") else {}))
    except VivariumError as error:
        assert error.rule in ("files.write_policy", "files.place", "files.workspace"), str(error)
        return False
    return True


def test_the_policy_of_a_village_that_says_nothing_is_documents(village: StagedVillage) -> None:
    hand = Hand(village)
    hand.do("write", path="files/library/creative_works/poem.md", text="Sea.")
    with pytest.raises(VivariumError, match="write_policy = 'documents'") as found:
        hand.do("write", path="~/poem.md", text="Sea.")
    assert "resident_suggestions/ada" in found.value.next_step
    assert "An operator sets write_policy" in found.value.next_step
