"""The end of an instance: a stack of what has to be stopped. What was begun last is stopped first.

Each stop has its own part of the time, and is guarded: one that fails is logged, one that hangs is
left behind, and neither costs the stops below it anything.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from app.task.outcome import Outcome

logger = logging.getLogger(__name__)

Stop = Callable[[float], Awaitable[None]]  # is given its seconds
MARGIN = 0.5  # seconds beyond its own that a stop has before it is left behind


@dataclass(frozen=True)
class Reason:
    """Why an instance ends, and what is told to whom."""

    text: str
    exit_status: int
    outcome: Outcome


@dataclass(frozen=True)
class Step:
    name: str
    stop: Stop
    seconds: float
    at_once: Callable[[], None] | None


class Ending:
    def __init__(self) -> None:
        self._steps: list[Step] = []

    def push(
        self,
        name: str,
        stop: Stop,
        seconds: float = 0.0,
        at_once: Callable[[], None] | None = None,
    ) -> Step:
        """`stop` takes at most `seconds`, 0 if it waits for nothing. At a second signal nothing is
        waited for: then `at_once` is all that is done."""
        self._steps.append(Step(name, stop, seconds, at_once))
        return self._steps[-1]

    def withdraw(self, step: Step) -> None:
        """Another step stops that, too."""
        self._steps.remove(step)

    async def run(self) -> None:
        """Stop everything. Never raises, but for a cancellation of the caller."""
        while self._steps:
            await _guarded(self._steps.pop())

    def at_once(self) -> None:
        """Only what nobody may leave behind, without waiting. Never raises."""
        for step in reversed(self._steps):
            if step.at_once is None:
                continue
            try:
                step.at_once()
            except Exception:  # noqa: BLE001 the steps below must have their turn
                logger.exception("%s: cannot be ended at once", step.name)


async def _guarded(step: Step) -> None:
    stopping = asyncio.ensure_future(step.stop(step.seconds))
    # Not wait_for: that would wait for a stop that does not heed its cancellation.
    done, _ = await asyncio.wait({stopping}, timeout=step.seconds + MARGIN)
    if not done:
        stopping.cancel()
        logger.warning("%s: not stopped after %g s, left behind", step.name, step.seconds)
    elif not stopping.cancelled() and (error := stopping.exception()) is not None:
        logger.error("%s: cannot be stopped", step.name, exc_info=error)


def simply(stop: Callable[[], None]) -> Stop:
    """A stop that waits for nothing."""

    async def run(_: float) -> None:
        stop()

    return run
