"""Have a llama-server forget what its slots hold of requests before."""

from __future__ import annotations

import asyncio

from app.engine.http import Client
from app.errors import UpstreamError
from app.machine.deadline import within

TIMEOUT = 5.0  # seconds; a slot that has just been given a request erases later


async def clear(client: Client) -> bool:
    """Whether every slot that rests is empty now. Old llama-servers refuse it for models with a
    projector."""
    try:
        return await within(TIMEOUT, _clear(client))
    except (UpstreamError, asyncio.TimeoutError, ValueError, LookupError, TypeError):
        return False


async def _clear(client: Client) -> bool:
    slots = (await client.get("/slots", TIMEOUT)).json()
    resting = [int(slot["id"]) for slot in slots if not slot["is_processing"]]
    paths = [f"/slots/{number}?action=erase" for number in resting]
    return all([(await client.post(path, {}, TIMEOUT)).status == 200 for path in paths])
