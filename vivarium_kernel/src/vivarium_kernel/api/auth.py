"""The room of the credentials: whose request this is, and whether its role and scope let it in."""

from __future__ import annotations

from urllib.parse import urlsplit

from attrs import frozen
from starlette.requests import HTTPConnection, Request

from vivarium_kernel import people
from vivarium_kernel.api.roles import ANYONE, ROLES, scope_of
from vivarium_kernel.claiming import token_digest
from vivarium_kernel.errors import Forbidden, Unauthorized
from vivarium_kernel.replies import TooOften
from vivarium_kernel.store import View
from vivarium_kernel.terms import Actor

SESSION_SECONDS = 7 * 86_400
_FULL = 10_000  # callers whose allowance is remembered


@frozen
class Caller:
    """Who calls: the actor of its credential, what it is in the role table, and that credential's digest."""

    actor: Actor
    kind: str
    digest: bytes
    by_cookie: bool = False

    @property
    def id(self) -> str:
        """What tells one credential from another."""
        return f"attempt:{self.actor.attempt}" if self.actor.attempt is not None else f"token:{self.actor.token}"

    @property
    def is_resident(self) -> bool:
        """Whether it acts for one resident, and so sees only what that one may."""
        return self.actor.role == "resident"


def cookie_name(request: HTTPConnection) -> str:
    """A browser shares its cookies between the ports of a host; several villages must not overwrite each other's."""
    port = urlsplit(f"//{request.headers.get('host', '')}").port
    return f"vivarium_{port or 80}"


def secret_of(request: HTTPConnection) -> tuple[str, bool] | None:
    """The credential of a request, and whether it came as a cookie; None without one."""
    header = request.headers.get("authorization")
    if header is not None:
        scheme, _, secret = header.partition(" ")
        if scheme.lower() != "bearer" or not secret.strip():
            raise Unauthorized("auth.scheme", "The Authorization header is not 'Bearer TOKEN'.", "Send it so.")
        return secret.strip(), False
    cookie = request.cookies.get(cookie_name(request))
    return (cookie, True) if cookie else None


def caller_of(view: View, request: HTTPConnection) -> Caller:
    """Who calls; raises Unauthorized without a credential that is valid now."""
    found = secret_of(request)
    if found is None:
        raise Unauthorized(
            "auth.none", "This needs a token.",
            "Send 'Authorization: Bearer TOKEN'; `vivarium token create` makes one.",
        )  # fmt: skip
    secret, by_cookie = found
    actor = people.actor_of(view, secret, ("session",) if by_cookie else ("bearer",))
    if actor is None or (by_cookie and actor.attempt is not None):
        raise Unauthorized(
            "auth.token", "This token is not valid: it was revoked, has expired, or its attempt has ended.",
            "Ask the operator for a new one; a worker claims again.",
        )  # fmt: skip
    kind = "attempt" if actor.attempt is not None else actor.role
    return Caller(actor, kind, token_digest(secret), by_cookie)


def let_in(caller: Caller, route: str, request: Request) -> None:
    """Refuse a role or scope that the route does not take, and a browser's request from nowhere."""
    callers = ROLES[route]
    if caller.kind not in callers:
        raise Forbidden(
            "auth.role", f"A token of the kind {caller.kind!r} may not {route}.",
            f"Use one of: {', '.join(callers)}.",
        )  # fmt: skip
    scope = scope_of(route)
    # An action's own name is a scope too; the action checks that.
    narrowed = caller.actor.scope is not None and scope != "actions"
    if narrowed and scope not in (caller.actor.scope or ()):
        raise Forbidden(
            "auth.scope", f"{route} needs the scope {scope}.",
            f"This token has: {', '.join(caller.actor.scope or ()) or 'none'}. Use one with that scope.",
        )  # fmt: skip
    if caller.by_cookie and request.method not in ("GET", "HEAD"):
        need_origin(request)


def need_origin(request: Request) -> None:
    """A form or script of this very server says where it comes from; one that doesn't is refused."""
    if "origin" not in request.headers:  # what it says was compared at the gate
        raise Forbidden(
            "request.origin", "A browser's request that changes something must say its Origin.",
            "Programs send a bearer token instead of a cookie.", field="Origin",
        )  # fmt: skip


def is_open(route: str) -> bool:
    """Whether the route takes requests without a credential."""
    return ANYONE in ROLES[route]


class Allowances:
    """How many requests each credential may still make: so many a minute, at once or spread."""

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._whole_at: dict[str, float] = {}  # when an allowance will be whole again

    def spend(self, who: str, now: float, *, share: float = 1.0) -> None:
        """Take one request (``share`` of one where more are allowed) from an allowance; raises TooOften."""
        if len(self._whole_at) > _FULL:
            self._whole_at = {other: at for other, at in self._whole_at.items() if at > now}
        whole_at = max(now, self._whole_at.get(who, 0.0)) + share * 60 / self._per_minute
        if whole_at - now > 60.0 + 1e-6:
            raise TooOften(
                "request.rate", f"This token may make {self._per_minute} requests a minute.", whole_at - now - 60.0
            )
        self._whole_at[who] = whole_at
