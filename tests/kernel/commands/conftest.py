"""What the tests of commands share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from vivarium_kernel.commands import Runner, landlock

from .scene import Scene, build


@pytest.fixture(scope="session")
def read_only_scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return build(tmp_path_factory.mktemp("scene"))


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return build(tmp_path)


@pytest.fixture
def with_landlock() -> None:
    if not landlock.abi():
        pytest.skip("this kernel has no Landlock")


@pytest.fixture
def runner(scene: Scene) -> Iterator[Runner]:
    made = Runner(scene.village, sandbox="auto")
    yield made
    made.close()
