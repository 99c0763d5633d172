"""The room of planning over HTTP: a goal becomes a plan that is shown, and tasks when that very plan is approved.

Plans are the plugin ``intent``'s. These routes do its actions, and let the plan be made within the request.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from attrs import evolve, frozen
from msgspec import Meta

from vivarium_kernel import actions, board
from vivarium_kernel.api.now import end_of, refuse_at_rest
from vivarium_kernel.api.operations import Answer, Call, Operation, key_of, replied
from vivarium_kernel.errors import NotFound
from vivarium_kernel.terms import ENDED_STATES

WAIT_SECONDS = 600.0


@frozen
class Approve:
    """The digest with which the plan was shown: what is posted is what was seen."""

    digest: Annotated[str, Meta(min_length=1, max_length=64)]


def operations() -> list[Operation]:
    """The routes of this room."""
    return [
        Operation("POST /plan", "Let a plan be made of a goal, and show it; it takes what intent.plan takes.", _plan,
                  body=dict, keyed=True),
        Operation("GET /plan/{task}", "Show a plan.", _show),
        Operation("POST /plan/{task}/approve", "Post the tasks of a plan as it was shown.", _approve, body=Approve,
                  keyed=True),
    ]  # fmt: skip


async def _plan(call: Call) -> Answer:
    refuse_at_rest(call.village.times())
    asked = await _do(call, "plan", call.body, key_of(call.request))
    name = msgspec.json.decode(asked.reply)["plan"]
    with call.village.store.view() as view:
        task = board.task(view, name)
    call.api.runtime.rounds.kick()
    await end_of(call.api, task, WAIT_SECONDS)
    shown = msgspec.json.decode((await _do(call, "show", {"plan": name})).reply)
    return Answer(shown, 200 if shown["state"] in ENDED_STATES else 202)


async def _show(call: Call) -> Any:
    done = await _do(call, "show", {"plan": call.path["task"]})
    return replied(done.reply, False)


async def _approve(call: Call) -> Any:
    done = await _do(call, "approve", {"plan": call.path["task"], "digest": call.body.digest}, key_of(call.request))
    call.api.runtime.rounds.kick()
    return replied(done.reply, done.repeated)


async def _do(call: Call, verb: str, body: Any, key: str | None = None) -> actions.Performed:
    try:
        action = actions.action_of(call.village, f"intent.{verb}")
    except NotFound as error:
        raise NotFound("plan.plugin", "This village makes no plans: the plugin intent is not on.",
                       "Install vivarium-plugins-intent, or `vivarium plugins enable intent`.") from error  # fmt: skip
    actor = call.caller.actor
    if actor.scope is not None and "plan" in actor.scope:
        # Who may plan may do what planning is made of, through these routes.
        actor = evolve(actor, scope=(*actor.scope, action.name))
    return await actions.perform(call.village, action, actor, body, key)
