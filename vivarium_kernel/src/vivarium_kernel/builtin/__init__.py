"""The room of the built-in plugins: the kernel's own behaviour, on the same path as anybody's."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from vivarium_kernel.plugins import Plugin
    from vivarium_kernel.settings import Settings


@frozen
class BuiltIn:
    """Where a built-in plugin is (``module:class`` below this package) and the hooks that it implements.

    ``speaks_for`` is the setting that it carries out: without it the plugin has nothing to say and is left out.
    """

    place: str
    hooks: tuple[str, ...]
    speaks_for: str = ""


def builtin_places() -> Mapping[str, BuiltIn]:
    """The plugins that every village has, by name, without importing any: a list of them must be quick."""
    return {
        "oldest_first": BuiltIn("oldest_first:OldestFirst", ("claim_score",)),
        "command_policy": BuiltIn("commands:CommandPolicy", ("check_safety",)),
        "text_policy": BuiltIn("text_policy:TextPolicy", ("check_safety",)),
        "command_execution": BuiltIn("commands:CommandExecution", ("execute_task", "shutdown")),
        "model_execution": BuiltIn("model_execution:ModelExecution", ("execute_task",)),
        "verifier": BuiltIn("verifier:Verifier", ("review_outcome",)),
        "background": BuiltIn("background:Background", ("enrich_prompt",)),
        "citations": BuiltIn("citations:Citations", ("enrich_prompt", "review_outcome")),
        "limits": BuiltIn("limits:Limits", ("entitle",), speaks_for="limits"),
        "task_reward": BuiltIn("rewards:TaskReward", ("end_attempt",)),
        "files": BuiltIn("files:Files", ("register_actions",)),
        "desk": BuiltIn("desk:Desk", ("register_actions", "register_panels")),
        "notes": BuiltIn("notes:Notes", ("enrich_prompt", "register_actions")),
    }


def builtin_plugins(settings: Settings | None = None) -> dict[str, type[Plugin]]:
    """The classes of those that a village with these settings has, or of all."""
    found: dict[str, type[Plugin]] = {}
    for name, one in builtin_places().items():
        if settings is not None and one.speaks_for and not getattr(settings, one.speaks_for):
            continue
        module, _, attribute = one.place.partition(":")
        found[name] = getattr(import_module(f"vivarium_kernel.builtin.{module}"), attribute)
    return found
