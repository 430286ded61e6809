"""Have a llama-server forget what its slots hold of requests before."""

from __future__ import annotations

import asyncio

from app.engine.exchange import Waits
from app.engine.http import Client
from app.errors import UpstreamError
from app.machine.deadline import within

TIMEOUT = 5.0  # seconds; a slot that has just been given a request erases later


async def clear(client: Client) -> None:
    """Every slot that rests is empty then. Raises UpstreamError: old llama-servers refuse it for
    models with a projector."""
    try:
        await within(TIMEOUT, _clear(client))
    except asyncio.TimeoutError:
        raise UpstreamError(f"slots cannot be cleared within {TIMEOUT:g} s") from None
    except (ValueError, LookupError, TypeError) as error:
        raise UpstreamError(f"slots cannot be cleared: /slots answers {error!r}") from None


async def _clear(client: Client) -> None:
    slots = (await client.get("/slots", TIMEOUT)).json()
    for number in [int(slot["id"]) for slot in slots if not slot["is_processing"]]:
        answer = await client.post(f"/slots/{number}?action=erase", {}, TIMEOUT, Waits.US)
        if answer.status != 200:
            raise UpstreamError(f"slots cannot be cleared: HTTP {answer.status}")
