"""Have a llama-server forget what its slots hold of requests before."""

from __future__ import annotations

from app.engine.http import Client
from app.errors import UpstreamError

TIMEOUT = 5.0  # seconds for each slot: one that has just been given a request erases later


async def clear(client: Client) -> bool:
    """Whether every slot that rests is empty now."""
    try:
        slots = (await client.get("/slots", TIMEOUT)).json()
        resting = [int(slot["id"]) for slot in slots if not slot["is_processing"]]
        answers = [
            await client.post(f"/slots/{number}?action=erase", {}, TIMEOUT) for number in resting
        ]
    except (UpstreamError, ValueError, LookupError, TypeError):
        return False
    return all(answer.status == 200 for answer in answers)
