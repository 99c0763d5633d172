"""What a plugin author imports, and no more.

The names are loaded when they are used: importing the package costs nothing, so that the command line is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vivarium_kernel.actions import Action as Action
    from vivarium_kernel.actions import Meta as Meta
    from vivarium_kernel.api.panels import Panel as Panel
    from vivarium_kernel.api.panels import Visit as Visit
    from vivarium_kernel.calls import Refuse as Refuse
    from vivarium_kernel.errors import Conflict as Conflict
    from vivarium_kernel.errors import Forbidden as Forbidden
    from vivarium_kernel.errors import Invalid as Invalid
    from vivarium_kernel.errors import NotFound as NotFound
    from vivarium_kernel.errors import OverBudget as OverBudget
    from vivarium_kernel.errors import VivariumError as VivariumError
    from vivarium_kernel.grants import PluginTx as PluginTx
    from vivarium_kernel.grants import PluginView as PluginView
    from vivarium_kernel.hookspecs import hookimpl as hookimpl
    from vivarium_kernel.jobs import Job as Job
    from vivarium_kernel.models import Catalog as Catalog
    from vivarium_kernel.models import Closing as Closing
    from vivarium_kernel.models import Message as Message
    from vivarium_kernel.models import ModelInfo as ModelInfo
    from vivarium_kernel.models import Place as Place
    from vivarium_kernel.models import Price as Price
    from vivarium_kernel.models import ProviderFault as ProviderFault
    from vivarium_kernel.models import Reply as Reply
    from vivarium_kernel.models import Request as Request
    from vivarium_kernel.models import Tool as Tool
    from vivarium_kernel.models import ToolCall as ToolCall
    from vivarium_kernel.models import count_tokens as count_tokens
    from vivarium_kernel.offering import hookspec as hookspec
    from vivarium_kernel.plugins import Plugin as Plugin
    from vivarium_kernel.records import Claim as Claim
    from vivarium_kernel.records import Ending as Ending
    from vivarium_kernel.records import Entitlement as Entitlement
    from vivarium_kernel.records import Event as Event
    from vivarium_kernel.records import NewTask as NewTask
    from vivarium_kernel.records import Outcome as Outcome
    from vivarium_kernel.records import Reject as Reject
    from vivarium_kernel.records import Resident as Resident
    from vivarium_kernel.records import Review as Review
    from vivarium_kernel.records import Section as Section
    from vivarium_kernel.records import Subject as Subject
    from vivarium_kernel.records import Task as Task
    from vivarium_kernel.records import Usage as Usage
    from vivarium_kernel.records import Verdict as Verdict
    from vivarium_kernel.terms import Actor as Actor
    from vivarium_kernel.thinking import think as think

_HOMES = {
    "actions": ("Action", "Meta"),
    "api.panels": ("Panel", "Visit"),
    "calls": ("Refuse",),
    "jobs": ("Job",),
    "errors": ("Conflict", "Forbidden", "Invalid", "NotFound", "OverBudget", "VivariumError"),
    "grants": ("PluginTx", "PluginView"),
    "hookspecs": ("hookimpl",),
    "models": (
        "Catalog", "Closing", "Message", "ModelInfo", "Place", "Price", "ProviderFault", "Reply", "Request", "Tool",
        "ToolCall", "count_tokens",
    ),
    "offering": ("hookspec",),
    "plugins": ("Plugin",),
    "records": (
        "Claim", "Ending", "Entitlement", "Event", "NewTask", "Outcome", "Reject", "Resident", "Review",
        "Section", "Subject", "Task", "Usage", "Verdict",
    ),
    "terms": ("Actor",),
    "thinking": ("think",),
}  # fmt: skip
__all__ = sorted(name for names in _HOMES.values() for name in names)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"vivarium_kernel.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
