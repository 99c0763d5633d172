"""The room of the route about costs: what models cost, as the ledger has it."""

from __future__ import annotations

import asyncio

from attrs import frozen

from vivarium_kernel import costing
from vivarium_kernel.api.operations import Call, Operation
from vivarium_kernel.api.shapes import Limit
from vivarium_kernel.costing import By, Costs
from vivarium_kernel.village import Village


@frozen
class CostsQuery:
    """By what the costs are told apart."""

    by: By = "resident"
    limit: Limit = 100


def operations() -> list[Operation]:
    """The routes of this room."""
    return [
        Operation(
            "GET /costs",
            "Say what models cost: spent, reserved, the rate, and when a cap is reached.",
            _costs,
            query=CostsQuery,
            reply=Costs,
        )
    ]


async def _costs(call: Call) -> Costs:
    query: CostsQuery = call.query
    return await asyncio.to_thread(_counted, call.village, query)


def _counted(village: Village, query: CostsQuery) -> Costs:
    with village.store.view() as view:
        return costing.costs(view, query.by, query.limit)
