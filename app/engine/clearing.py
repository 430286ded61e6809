"""Have a llama-server forget what its slots hold of requests before."""

from __future__ import annotations

import asyncio

from app.engine.exchange import Waits
from app.engine.http import Client
from app.errors import UpstreamError
from app.machine.deadline import within

# Seconds: llama-server erases between two steps, and some take seconds.
LEAST, LONGEST = 5.0, 60.0
LOOK = 2.0  # seconds without an answer, after which we look whether the slot still rests


def patience(left: float) -> float:
    """Seconds for which a request that may wait for `left` seconds waits for its slots: at least
    LEAST, for llama-server mostly clears them at once."""
    return min(LONGEST, max(LEAST, left))


async def clear(client: Client, longest: float = LONGEST) -> None:
    """Every slot that rests is empty then. Raises UpstreamError, also after `longest` seconds: old
    llama-servers refuse it for models with a projector."""
    try:
        await within(longest, _clear(client))
    except asyncio.TimeoutError:
        raise UpstreamError(f"slots cannot be cleared within {longest:.3g} s") from None
    except (ValueError, LookupError, TypeError) as error:
        raise UpstreamError(f"slots cannot be cleared: /slots answers {error!r}") from None


async def _clear(client: Client) -> None:
    for number in await _resting(client):
        await _erase(client, number)


async def _resting(client: Client) -> list[int]:
    slots = (await client.get("/slots", LONGEST)).json()
    return [int(slot["id"]) for slot in slots if not slot["is_processing"]]


async def _erase(client: Client, number: int) -> None:
    """A slot that has just been given a request erases after that: nobody waits for it."""
    path = f"/slots/{number}?action=erase"
    erasing = asyncio.ensure_future(client.post(path, {}, LONGEST, Waits.US))
    try:
        while not (await asyncio.wait({erasing}, timeout=LOOK))[0]:
            if number not in await _resting(client):
                return
        if erasing.result().status != 200:
            raise UpstreamError(f"slots cannot be cleared: HTTP {erasing.result().status}")
    finally:
        erasing.cancel()
