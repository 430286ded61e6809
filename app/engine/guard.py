"""Looks after one llama-server: one that is stuck is ended, so that the pool loads it again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from app.engine.http import Client
from app.engine.lifecycle import State
from app.engine.process import Process
from app.engine.stuck import Look, Patience, Suspicion
from app.errors import StuckError
from app.machine import activity, clock
from app.machine.activity import Activity, Standing

EVERY = 2.0  # seconds between two looks
ASKED = 10.0  # seconds of silence, from which on it is asked for its slots

ENDING = 1.0  # seconds for one that takes no connection to end by itself
# It was sent SIGTERM by somebody else: it stops at once, and then waits for its connections.
CLOSED = "it takes no connection any more"

RESTING = Activity(Standing.ASLEEP)  # not looked at: with many models that would cost a lot

Slots = Callable[[], Awaitable[object]]  # what /slots says; None: nothing


async def guard(process: Process, client: Client, slots: Slots, patience: Patience) -> None:
    """Return when the process has ended, or is being ended because it was stuck."""
    suspicion = Suspicion(patience)
    counted, then = client.progress, clock.now()
    shown: object = None
    while not await process.ends(EVERY):
        now, loading = clock.now(), process.state is State.STARTING
        owes = loading or client.owed > 0
        doing = activity.of(process.pid) if owes else RESTING
        moved = loading or client.progress != counted
        counted = client.progress
        deaf = doing.standing in (Standing.STOPPED, Standing.TRACED)
        if owes and not (moved or deaf) and suspicion.silent >= ASKED:
            told = await slots()
            moved = told is not None and shown is not None and told != shown
            shown = told or shown
        why = suspicion.look(Look(now - then, owes, moved, doing))
        then = now
        if process.state is State.READY:
            if client.doubtful or (owes and not moved):
                await client.knock()
            if client.refused and not await process.ends(ENDING):
                why = why or CLOSED
        if why:
            process.give_up(why)
            client.give_up(StuckError(f"llama-server was ended: {why}"))
            return
