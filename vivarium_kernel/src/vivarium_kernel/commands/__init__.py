"""The room where commands run: which are allowed, how they are confined, and the processes themselves."""

from vivarium_kernel.commands.limits import Limits
from vivarium_kernel.commands.policy import Allowed, BadAllow, Refused, check, resolve_allowed, shipped
from vivarium_kernel.commands.runner import Finished, Runner, Sandbox
from vivarium_kernel.commands.spawner import Unavailable

__all__ = [
    "Allowed",
    "BadAllow",
    "Finished",
    "Limits",
    "Refused",
    "Runner",
    "Sandbox",
    "Unavailable",
    "check",
    "resolve_allowed",
    "shipped",
]
