"""Looks after one llama-server: one that is stuck is ended, so that the pool loads it again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

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
CLOSED = "it takes no connection any more"
HANGS = "it hangs in the handler of a signal (SIGTERM or SIGINT) that somebody else has sent"

RESTING = Activity(Standing.ASLEEP)  # not looked at

Slots = Callable[[], Awaitable[list[dict[str, Any]] | None]]  # what /slots says; None: nothing


async def guard(
    process: Process, client: Client, slots: Slots, patience: Patience, ending: Ending
) -> None:
    """Return when the process has ended, or is being ended because it was stuck."""
    suspicion = Suspicion(patience)
    counted, beside, then = client.progress, client.aside, clock.now()
    shown = Shown(slots)
    pause = EVERY
    while not await process.ends(pause, _refusal(process, client)):
        now, loading = clock.now(), process.state is State.STARTING
        owes = loading or client.owed > 0
        doing = activity.of(process.pid) if owes else RESTING
        moved, aside = loading or client.progress != counted, client.aside != beside
        counted, beside = client.progress, client.aside
        deaf = doing.standing in (Standing.STOPPED, Standing.TRACED)
        works = loading or client.owes_work
        if owes and not (moved or deaf) and suspicion.silent >= ASKED:
            moved = await shown.moves(rests_well=aside and not works)
        why = suspicion.look(Look(now - then, owes, moved, doing, works, aside))
        then = now
        if not deaf:
            why = why or await ending.look(silent=owes and not moved)
        if why:
            process.give_up(why)
            client.give_up(StuckError(f"llama-server was ended: {why}"))
            return
        pause = EVERY
        if client.rests and process.state is State.READY:
            # With many models, looks at those that nobody asks would be most of what an idle app
            # does.
            await process.ends(None, client.stirs.next())  # nothing runs between the two lines
            then = clock.now()
            pause = 0.0 if client.refused or client.doubtful else EVERY


class Shown:
    """What /slots shows from look to look."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._last: list[dict[str, Any]] | None = None

    async def moves(self, *, rests_well: bool) -> bool:
        """Whether it shows progress: another state than before. `rests_well`: it owes nothing but
        what it answers beside its work, and does, so that slots which all rest show it, too: who
        hangs in work that nobody waits for any more does not let go of its slot."""
        before, told = self._last, await self._slots()
        self._last = told or before
        if told is None:
            return False
        rests = not any(slot.get("is_processing") for slot in told)
        return (rests_well and rests) or (before is not None and told != before)


def _refusal(process: Process, client: Client) -> asyncio.Future[None] | None:
    """The next one, whose request waits. One that loads refuses all the time."""
    return client.refuses.next() if process.state is State.READY else None


class Ending:
    """Whether somebody else has told one that serves to end. It then works on nothing: either it
    has closed its listener, and waits for its connections to close; or the signal's handler, which
    takes locks, has interrupted who has them, and waits for ever."""

    def __init__(self, process: Process, client: Client, masks: Callable[[], bool]) -> None:
        """`masks`: whether it blocked the signals when it was ready; then a mask tells nothing."""
        self._process = process
        self._client = client
        self._masks = masks
        self._hung = False

    async def look(self, *, silent: bool) -> str:
        """Why it is to be ended; "" if it is not. `silent`: it owes answers, and nothing came."""
        if self._process.state is not State.READY:
            return ""
        hung, self._hung = self._hung, self._in_handler(silent)
        if hung and self._hung:
            return HANGS
        if self._client.doubtful or silent:
            await self._client.knock()
        if self._client.refused and not await self._process.ends(ENDING):
            return CLOSED if self._still_refused() else ""
        return ""

    def _in_handler(self, silent: bool) -> bool:
        if not silent or self._masks():
            return False
        first = activity.first_thread(self._process.pid)
        return first.blocks and first.asleep  # one that computes, or dumps core, waits for no lock

    def _still_refused(self) -> bool:
        """After a while in which it may have been told to stop."""
        return self._process.state is State.READY and self._client.refused
