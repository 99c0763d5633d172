"""The room of the built-in plugins: the kernel's own behaviour, on the same path as anybody's."""

from __future__ import annotations

from vivarium_kernel.plugins import Plugin


def builtin_plugins() -> dict[str, type[Plugin]]:
    """The plugins that every village has, by name."""
    from vivarium_kernel.builtin.commands import CommandExecution, CommandPolicy
    from vivarium_kernel.builtin.oldest_first import OldestFirst
    from vivarium_kernel.builtin.rewards import TaskReward
    from vivarium_kernel.builtin.scripted import ModelExecution
    from vivarium_kernel.builtin.text_policy import TextPolicy
    from vivarium_kernel.builtin.verifier import Verifier

    found = (OldestFirst, CommandPolicy, TextPolicy, CommandExecution, ModelExecution, Verifier, TaskReward)
    return {plugin.name: plugin for plugin in found}
