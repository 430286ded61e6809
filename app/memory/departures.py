"""Finds out when slots come free whose clients have left: llama-server looks for them once a
second, and until then a request that is sent into their place finds the KV cache full."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic

from app.memory.ledger import Ledger, Model, ModelState, Upstream

POLL = 0.1  # seconds


class Departures(Generic[Upstream]):
    def __init__(self, ledger: Ledger[Upstream], changed: Callable[[], None]) -> None:
        """`changed` is called when a seat may have become free."""
        self._ledger = ledger
        self._changed = changed
        self._watches: dict[str, asyncio.Task[None]] = {}

    def watch(self, model: Model[Upstream]) -> None:
        """Ask the model's llama-server until no more is to be found out."""
        watch = self._watches.get(model.name)
        if (watch is None or watch.done()) and _unsure(model):
            watch = asyncio.get_running_loop().create_task(self._watch(model))
            self._watches[model.name] = watch

    def close(self) -> None:
        for watch in self._watches.values():
            watch.cancel()

    async def _watch(self, model: Model[Upstream]) -> None:
        # A model that is away is asked nothing; the pool has it watched again when it is back.
        while model.server is not None and model.state is ModelState.READY and _unsure(model):
            at_work = await model.server.at_work()
            if at_work is not None and model.line.budget.look(at_work, self._ledger.now()):
                self._changed()
            await asyncio.sleep(POLL)


def _unsure(model: Model[Upstream]) -> bool:
    return model.line.budget.unsure(waited_for=model.line.waiting > 0)
