"""Finds out when slots come free whose clients have left. Until then a request that is sent into
their place finds the KV cache full.

llama-server finds out by the next part of an answer, which it cannot send. While it has no part to
send, it checks whether the client is still there, but only once it has told nobody anything for a
second: neither a token, nor its slots. Who asks it for them more often keeps it from that, and it
works on for nobody.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Generic

from app.console import ModelLogger
from app.memory.kv_budget import KvBudget
from app.memory.ledger import Ledger, Model, ModelState, Upstream

POLL = 0.1  # seconds
FIRST_POLL = 0.01  # the same just after a client has left
HUSH = 1.2  # the same while llama-server needs a silent second
NOTICES = 0.3  # seconds until it has sent the next part of a stream, or tried to
SILENT = 60.0  # seconds without a word on its slots, after which a llama-server is not heeded

logger = logging.getLogger(__name__)


class Departures(Generic[Upstream]):
    def __init__(self, ledger: Ledger[Upstream], changed: Callable[[], None]) -> None:
        """`changed` is called when a seat may have become free."""
        self._ledger = ledger
        self._changed = changed
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._hurries: dict[str, asyncio.Event] = {}  # of those that rest: no longer

    def watch(self, model: Model[Upstream]) -> None:
        """Ask the model's llama-server until no more is to be found out."""
        watch = self._watches.get(model.name)
        if self._ledger.closed or model.state is not ModelState.READY:
            return
        if model.name in self._hurries and _just_cut(model.line.budget, self._ledger.now()):
            self._hurries[model.name].set()
        if (watch is None or watch.done()) and _unsure(model):
            watch = asyncio.get_running_loop().create_task(self._watch(model))
            self._watches[model.name] = watch

    def close(self) -> None:
        for watch in self._watches.values():
            watch.cancel()

    async def _watch(self, model: Model[Upstream]) -> None:
        # A model that is away is asked nothing; the pool has it watched again when it is back.
        told = self._ledger.now()
        while model.server is not None and model.state is ModelState.READY and _unsure(model):
            slots, now = await model.server.slots(), self._ledger.now()
            if slots is not None:
                told = now
                changed = model.line.budget.look(slots, now)
            else:
                changed = now - told > SILENT and self._give_up(model)
            if changed:
                self._changed()
            await self._rest(model, _pause(model.line.budget, now))

    async def _rest(self, model: Model[Upstream], seconds: float) -> None:
        """Until they are over, or somebody leaves a stream."""
        hurry = self._hurries[model.name] = asyncio.Event()
        timer = asyncio.get_running_loop().call_later(seconds, hurry.set)
        try:
            await hurry.wait()
        finally:
            timer.cancel()
            del self._hurries[model.name]

    def _give_up(self, model: Model[Upstream]) -> bool:
        freed = model.line.budget.forget_left()
        if freed:
            log = ModelLogger(logger, model.name)
            log.warning("does not say which of its slots are at work: those left count as free")
        return freed


def _pause(budget: KvBudget, now: float) -> float:
    if budget.needs_hush and not _just_cut(budget, now):
        return HUSH
    # Who has just left is likely to be found in a slot now, or there no more in a moment.
    return min(POLL, max(FIRST_POLL, now - budget.last_left))


def _just_cut(budget: KvBudget, now: float) -> bool:
    return now - budget.last_cut < NOTICES


def _unsure(model: Model[Upstream]) -> bool:
    return model.line.budget.unsure(waited_for=model.line.waiting > 0)
