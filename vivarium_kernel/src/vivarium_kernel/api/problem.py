"""The room of refusals over HTTP: every error is an ``application/problem+json`` page (RFC 9457)."""

from __future__ import annotations

import logging
from http import HTTPStatus

import msgspec
from attrs import frozen
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from vivarium_kernel.errors import StoreError, VivariumError
from vivarium_kernel.problems import SHOWN_PROBLEMS, InputError
from vivarium_kernel.problems import Problem as InputProblem
from vivarium_kernel.replies import TooOften

MEDIA = "application/problem+json"
log = logging.getLogger("vivarium.api")
_encode = msgspec.json.Encoder().encode


@frozen
class Fault:
    """One thing that is wrong with the input: where, what stands there, and what to do about it."""

    path: str
    value: str
    message: str
    next_step: str


@frozen
class Problem:
    """Why a request was refused. Nothing was changed."""

    type: str
    title: str
    status: int
    detail: str
    rule: str
    next_step: str
    field: str | None = None
    problems: tuple[Fault, ...] = ()


class TooLarge(VivariumError):
    """The body is larger than this village takes."""

    status = 413


class WrongMedia(VivariumError):
    """The body is not of the kind that the route takes."""

    status = 415


class Misdirected(VivariumError):
    """The request names a host that this is not."""

    status = 421


def page_of(error: VivariumError) -> Problem:
    """The error as a problem page."""
    found: tuple[InputProblem, ...] = error.problems if isinstance(error, InputError) else ()
    return Problem(
        type=f"urn:vivarium:problem:{error.rule}",
        title=HTTPStatus(error.status).phrase,
        status=error.status,
        detail=error.message,
        rule=error.rule,
        next_step=error.next_step,
        field=error.field,
        problems=tuple(Fault(p.path, p.value, p.message, p.next_step) for p in found[:SHOWN_PROBLEMS]),
    )


def answer(error: Exception) -> Response:
    """The response for any error; one that nobody foresaw is logged, and tells nothing of the inside."""
    if isinstance(error, VivariumError):
        headers = {}
        if error.status == HTTPStatus.UNAUTHORIZED:
            headers["WWW-Authenticate"] = 'Bearer realm="vivarium"'
        if isinstance(error, TooOften):
            headers["Retry-After"] = str(max(1, round(error.seconds)))
        elif isinstance(error, StoreError):
            headers["Retry-After"] = "1"
        return Response(_encode(page_of(error)), error.status, headers, MEDIA)
    log.error("a request met a fault of the kernel", exc_info=error)
    page = Problem(
        "urn:vivarium:problem:kernel.fault",
        "Internal Server Error",
        500,
        "The village met a fault of its own.",
        "kernel.fault",
        "Its operator finds it in the server's log; the request may be tried again.",
    )
    return Response(_encode(page), 500, media_type=MEDIA)


async def no_route(request: Request, error: Exception) -> Response:
    """Paths and methods that do not exist."""
    status = error.status_code if isinstance(error, HTTPException) else 404
    what = f"{request.method} {request.url.path}"
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        page = Problem("urn:vivarium:problem:request.method", "Method Not Allowed", 405, f"There is no {what}.",
                       "request.method", "See /openapi.json for what there is.")  # fmt: skip
    else:
        page = Problem("urn:vivarium:problem:request.path", HTTPStatus(status).phrase, status, f"There is no {what}.",
                       "request.path", "See /openapi.json for what there is.")  # fmt: skip
    headers = error.headers if isinstance(error, HTTPException) else None
    return Response(_encode(page), status, headers, MEDIA)
