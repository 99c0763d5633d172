"""The room of the built-in plugins: the kernel's own behaviour, on the same path as anybody's."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from vivarium_kernel.plugins import Plugin


@frozen
class BuiltIn:
    """Where a built-in plugin is (``module:class`` below this package) and the hooks that it implements."""

    place: str
    hooks: tuple[str, ...]


def builtin_places() -> Mapping[str, BuiltIn]:
    """The plugins that every village has, by name, without importing any: a list of them must be quick."""
    return {
        "oldest_first": BuiltIn("oldest_first:OldestFirst", ("claim_score",)),
        "command_policy": BuiltIn("commands:CommandPolicy", ("check_safety",)),
        "text_policy": BuiltIn("text_policy:TextPolicy", ("check_safety",)),
        "command_execution": BuiltIn("commands:CommandExecution", ("execute_task", "shutdown")),
        "model_execution": BuiltIn("scripted:ModelExecution", ("execute_task",)),
        "verifier": BuiltIn("verifier:Verifier", ("review_outcome",)),
        "task_reward": BuiltIn("rewards:TaskReward", ("end_attempt",)),
    }


def builtin_plugins() -> dict[str, type[Plugin]]:
    """The same plugins' classes."""
    found: dict[str, type[Plugin]] = {}
    for name, one in builtin_places().items():
        module, _, attribute = one.place.partition(":")
        found[name] = getattr(import_module(f"vivarium_kernel.builtin.{module}"), attribute)
    return found
