"""The room of the role table: who may do what over HTTP, all of it in one place.

A caller is a role, or ``attempt``: the token of one running attempt, which acts for its resident and nothing else.
``anyone`` needs no credential. A route that is not here does not exist.
"""

from __future__ import annotations

from collections.abc import Mapping

CALLERS = ("operator", "human", "resident", "worker", "attempt")
ANYONE = "anyone"

_ALL = CALLERS
_VILLAGERS = ("operator", "human", "resident", "attempt")
_PEOPLE = ("operator", "human")
_RESIDENT = ("resident", "attempt")
_OPERATOR = ("operator",)
_WORKER = ("worker",)
_ATTEMPT = ("attempt",)

ROLES: Mapping[str, tuple[str, ...]] = {
    "GET /healthz": (ANYONE,),
    "GET /openapi.json": (ANYONE,),
    "GET /login": (ANYONE,),
    "POST /login": (ANYONE,),
    "POST /logout": _PEOPLE,
    # Panels are for people, and each says which: what it shows and does is asked of the routes below.
    "GET /": _PEOPLE,
    "GET /panels/{panel}": _PEOPLE,
    "GET /panels/{panel}/{file}": _PEOPLE,
    "GET /pages/{version}/{file}": (ANYONE,),
    "GET /status": _ALL,
    "POST /cycle": _PEOPLE,
    "POST /plan": _PEOPLE,
    "GET /plan/{task}": _PEOPLE,
    "POST /plan/{task}/approve": _PEOPLE,
    # A resident sees the tasks that are not another's alone, its own attempts, its own money, and what is public.
    "GET /tasks": _VILLAGERS,
    "POST /tasks": _PEOPLE,
    "GET /tasks/{task}": _VILLAGERS,
    "POST /tasks/{task}/cancel": _PEOPLE,
    "POST /tasks/{task}/requeue": _PEOPLE,
    "POST /tasks/{task}/approve": _PEOPLE,
    "POST /tasks/{task}/reject": _PEOPLE,
    "POST /tasks/{task}/acknowledge": _PEOPLE,
    "POST /tasks/{task}/answer": _PEOPLE,
    "POST /tasks/{task}/decline": _RESIDENT,
    "GET /attempts": _VILLAGERS,
    "GET /attempts/{attempt}": _VILLAGERS,
    "GET /residents": _VILLAGERS,
    "POST /residents": _OPERATOR,
    "GET /residents/{resident}": _VILLAGERS,
    "POST /residents/{resident}/state": _OPERATOR,
    "GET /ledger/balances": _VILLAGERS,
    "GET /ledger/history": _VILLAGERS,
    "GET /ledger/verify": _PEOPLE,
    "GET /costs": _PEOPLE,
    "GET /events": _VILLAGERS,
    "GET /events/stream": _VILLAGERS,
    "GET /events/verify": _PEOPLE,
    "GET /plugins": _PEOPLE,
    "GET /plugins/profile": _OPERATOR,
    "PUT /plugins/{name}": _OPERATOR,
    "GET /explain/claim": _OPERATOR,
    "GET /explain/prompt": _OPERATOR,
    "GET /actions": _VILLAGERS,
    "POST /actions/{action}": _VILLAGERS,  # then the action's own roles decide
    "POST /control/pause": _OPERATOR,
    "POST /control/resume": _OPERATOR,
    "POST /control/halt": _OPERATOR,
    "POST /control/unhalt": _OPERATOR,
    "POST /control/pace": _OPERATOR,
    "POST /control/residents": _OPERATOR,
    "GET /tokens": _OPERATOR,
    "POST /tokens": _OPERATOR,
    "POST /tokens/{token}/revoke": _OPERATOR,
    "POST /wire/workers": _WORKER,
    "POST /wire/workers/{worker}/renew": _WORKER,
    "POST /wire/workers/{worker}/leave": _WORKER,
    "GET /wire/workers/{worker}/stops": _WORKER,
    "POST /wire/claims": _WORKER,
    "POST /wire/attempts/{attempt}/renew": _ATTEMPT,
    "POST /wire/attempts/{attempt}/intent": _ATTEMPT,
    "POST /wire/attempts/{attempt}/result": _ATTEMPT,
    "POST /wire/attempts/{attempt}/act": _ATTEMPT,
    "POST /wire/attempts/{attempt}/distrust": _ATTEMPT,
    "POST /wire/attempts/{attempt}/park": _ATTEMPT,
    "POST /wire/attempts/{attempt}/release": _ATTEMPT,
    "POST /wire/attempts/{attempt}/settle": _ATTEMPT,
}


def scope_of(route: str) -> str:
    """The scope that a narrowed token needs for a route: ``read`` to look, else the first word of its path."""
    method, _, path = route.partition(" ")
    area = path.split("/")[1]
    return "read" if method == "GET" and area != "wire" else area


SCOPES = tuple(sorted({scope_of(route) for route, callers in ROLES.items() if ANYONE not in callers}))
