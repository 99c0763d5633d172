"""Promises about the kernel's rooms: imports run one way, and docs/architecture.md draws them as they are."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = "vivarium_kernel"

# The layers from the top down, with the files and folders of each. A room imports from its own layer and from those
# below it. `__init__` is in no layer: it is the plugin author's door to all of them.
LAYERS: dict[str, tuple[str, ...]] = {
    layer: tuple(rooms.split())
    for layer, rooms in {
        "doors": "api cli testing scaffold explaining remote remote_link remote_http",
        "runtime": "runtime rounds weighing switching keeping links hosting checking",
        "village": "village composing migrating catalog enabling inspecting standing",
        "cycle": "cycle thinking builtin",
        "guests": """
            plugins offering offers annotations fitting services calls around runs answers health watchdog
            grants actions models model_calls routing circuit prompting jobs
        """,
        "state": """
            board claiming stepping settling deciding meters people processes control ledger audit
            village_time replies breakers timings holds budgets costing waiting written
        """,
        "ground": """
            store writer committing transaction schema commands inputs registry installed installing
            settings settings_record settings_text structuring documents checks posting taskfile keys
        """,
        "words": "terms records clock errors problems amounts hookspecs wording",
    }.items()
}
# These live on the author's side of that door, as a stranger's plugin would.
AUTHORS = ("builtin", "testing", "scaffold")


@pytest.fixture(scope="session")
def kernel(repository: Path) -> Path:
    return repository / "vivarium_kernel" / "src" / PACKAGE


def room(module: str) -> str:
    """The room of a dotted module below the package: `store` of `store`, `api` of `api.routes`, "" of the package."""
    return module.partition(".")[0]


def modules(kernel: Path) -> dict[str, Path]:
    """Every module of the package by its dotted name below it."""
    found = {}
    for file in sorted(kernel.rglob("*.py")):
        parts = file.relative_to(kernel).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imports(module: str, file: Path, known: set[str]) -> Iterator[str]:
    """The package's modules that ``file`` imports, also inside functions, but not for type checkers alone."""
    base = [PACKAGE, *module.split(".")] if module else [PACKAGE]
    package = base if file.name == "__init__.py" else base[:-1]
    for node in runtime_nodes(ast.parse(file.read_text(encoding="utf-8"))):
        names: list[tuple[str, list[str]]] = []
        if isinstance(node, ast.Import):
            names = [(alias.name, []) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            names = [
                (".".join([*above, *([node.module] if node.module else [])]), [alias.name for alias in node.names])
            ]
        for target, members in names:
            if target.split(".")[0] != PACKAGE:
                continue
            inner = target.removeprefix(PACKAGE).removeprefix(".")
            # `from package import store` imports the module store; `from store import Tx` the module store too.
            inside = {f"{inner}.{member}".removeprefix(".") for member in members} & known
            yield from inside
            if len(inside) < len(members) or not members:
                yield inner


def runtime_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for otherwise in node.orelse:
                yield from (otherwise, *runtime_nodes(otherwise))
            continue
        yield node
        yield from runtime_nodes(node)


def graph(kernel: Path) -> dict[str, set[str]]:
    """Which module imports which."""
    files = modules(kernel)
    return {module: set(imports(module, file, set(files))) - {module} for module, file in files.items()}


def upward(edges: dict[str, set[str]]) -> list[str]:
    """Imports that run the wrong way, in words."""
    height = {name: -index for index, layer in enumerate(LAYERS.values()) for name in layer}
    wrong = []
    for module, targets in edges.items():
        here = room(module)
        for target in sorted(targets):
            there = room(target)
            if not here or here == there or {here, there} - {"", *height}:
                continue  # a room without a layer is what another test names
            if not there:
                if here not in AUTHORS:
                    wrong.append(f"{module} imports the package's own exports: import from the room that defines them")
            elif height[there] > height[here]:
                wrong.append(f"{module} imports {target}, which is above it")
    return wrong


def drawn() -> str:
    """The diagram of docs/architecture.md, as the table above draws it."""
    lines: list[str] = []
    for name, rooms in LAYERS.items():
        if lines:
            lines.append(f"{'':>9}▼")
        rows = [rooms[start : start + 6] for start in range(0, len(rooms), 6)]
        lines += [f"{name if not index else '':>8} │ {'  '.join(row)}" for index, row in enumerate(rows)]
    return "\n".join(lines)


def test_every_room_has_its_layer(kernel: Path) -> None:
    placed = {name for layer in LAYERS.values() for name in layer}
    there = {room(module) for module in modules(kernel)} - {""}
    assert there - placed == set(), "place these rooms in LAYERS and in docs/architecture.md"
    assert placed - there == set(), "these rooms are gone: take them out of LAYERS and of docs/architecture.md"


@pytest.mark.promise("imports-run-one-way")
def test_imports_run_one_way(kernel: Path) -> None:
    assert upward(graph(kernel)) == []


@pytest.mark.promise("imports-run-one-way")
def test_no_imports_run_in_a_circle(kernel: Path) -> None:
    edges = {module: targets - {""} for module, targets in graph(kernel).items() if module}
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as fault:
        pytest.fail(f"a circle of imports: {' -> '.join(reversed(fault.args[1]))}", pytrace=False)


@pytest.mark.promise("imports-run-one-way")
def test_the_architecture_page_draws_the_imports(repository: Path) -> None:
    page = (repository / "docs" / "architecture.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```text\n(.*?)\n```$", page, re.MULTILINE | re.DOTALL)
    assert drawn() in blocks, f"docs/architecture.md should hold this text block:\n{drawn()}"


@pytest.mark.promise("harnesses-find-planted-bugs")
@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from vivarium_kernel.cycle import Job", ["store imports cycle, which is above it"]),
        ("from .cycle import Job", ["store imports cycle, which is above it"]),
        ("def late():\n    import vivarium_kernel.api.app", ["store imports api.app, which is above it"]),
        ("from vivarium_kernel import runtime", ["store imports runtime, which is above it"]),
        ("from vivarium_kernel import Task", ["store imports the package's own exports: import from the room"]),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from vivarium_kernel.cycle import Job", []),
        ("from vivarium_kernel.records import Task\nimport sqlite3", []),
    ],
)
def test_an_import_that_runs_the_wrong_way_is_found(tmp_path: Path, source: str, found: list[str]) -> None:
    (tmp_path / "api").mkdir()
    for name in ("__init__", "records", "cycle", "runtime", "api/__init__", "api/app"):
        (tmp_path / f"{name}.py").write_text("")
    (tmp_path / "store.py").write_text(source)
    said = upward(graph(tmp_path))
    assert len(said) == len(found)
    assert all(line.startswith(start) for line, start in zip(said, found, strict=True))
