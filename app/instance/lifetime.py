"""The life of a process that is a ClearML task: start, run until a reason, stop.

What is begun is pushed onto one stack (`instance.ending`), with how it is stopped: whatever fails
or hangs, the end has all its parts.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Mapping
from typing import Any

from app import console
from app.errors import AppError, LoadError, LostError
from app.instance.ending import Ending, Reason, Stop
from app.instance.front import BookHandler
from app.instance.invocation import Invocation
from app.instance.keys import is_named
from app.instance.phases import Given
from app.task.clearml_task import END_BUDGET, END_PATIENCE, ClearMLTask
from app.task.outcome import Outcome
from app.task.route import Route
from app.task.sdk import ClearMLError
from app.telemetry.logs import LogBook

logger = logging.getLogger(__name__)

AGENT_INTERRUPTED = 254  # what clearml-agent takes for "stopped", not "failed"
GIVE_UP = 5.0  # seconds for a phase under way to heed that all ends


class Lifetime:
    """`_live` is what it does, until it has a reason to end by itself."""

    def __init__(
        self,
        invocation: Invocation,
        environment: Mapping[str, str],
        task: ClearMLTask | None = None,
    ) -> None:
        """`task` is the one to become, by default as the invocation and the environment say."""
        self._task = task or ClearMLTask(
            offline=invocation.offline, environment=environment, recorded=invocation.recorded
        )
        self._logs = LogBook()
        self._ending = Ending()
        self._given = Given(
            invocation, environment, self._task, Route(self._task), self._logs, self._ending
        )
        self._stop: asyncio.Future[Reason] = asyncio.get_running_loop().create_future()
        self._ended = asyncio.Event()

    async def run(self) -> int:
        """The exit status."""
        self._catch_signals()
        logging.getLogger("app").addHandler(BookHandler(self._logs))
        life = asyncio.create_task(self._live())
        await asyncio.wait({life, self._stop}, return_when=asyncio.FIRST_COMPLETED)
        if (
            life.done()
            and isinstance(life.exception(), ClearMLError)
            and await self._task.is_lost()
        ):
            self._taken()  # that is why
        reason = self._reason(life)
        return await self._shut_down(reason)

    async def _live(self) -> Reason:
        """Raises AppError."""
        raise NotImplementedError

    def _reason(self, life: asyncio.Task[Reason]) -> Reason:
        if self._stop.done():
            self._ending.push("the phase under way", lambda _: cancelled(life), GIVE_UP)
            return self._stop.result()
        try:
            return life.result()
        except AppError as error:
            if not isinstance(error, LoadError):  # the pool has said that
                logger.error("%s", error)
            return Reason(str(error), error.exit_status, Outcome.FAILED)
        except Exception as error:  # noqa: BLE001 a fault of ours must still leave nothing behind
            logger.exception("a fault in the app")
            text = f"a fault in the app: {type(error).__name__}: {error}"
            return Reason(text, LostError.exit_status, Outcome.FAILED)

    # The end.

    async def _shut_down(self, reason: Reason) -> int:
        """Stop everything, and tell ClearML of it last. Returns the exit status."""
        if reason.outcome is not Outcome.FAILED:  # that has been said
            console.plain(logger, f"stopping: {console.escape(reason.text)}")
        self._task.foresee(reason.outcome, reason.text)
        await self._ending.run()
        told: list[bool] = []

        async def end(seconds: float) -> None:
            told.append(await self._task.end(reason.outcome, reason.text, seconds))

        patience = 0.0 if self._stop.done() else END_PATIENCE  # whoever stopped us waits for it
        self._ending.push("the task in ClearML", self._unless_stopped(end), END_BUDGET + patience)
        await self._ending.run()
        self._ended.set()
        # A status other than 0 makes the agent write one over the reason of the failure.
        confirmed = told == [True] and reason.outcome is Outcome.FAILED
        return 0 if confirmed and self._task.under_agent else reason.exit_status

    def _unless_stopped(self, end: Stop) -> Stop:
        """`end`, which a signal cuts short if none was the reason to stop."""
        if self._stop.done():
            return end

        async def run(seconds: float) -> None:
            ending = asyncio.ensure_future(end(seconds))
            either: set[asyncio.Future[Any]] = {ending, self._stop}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if ending.done():
                ending.result()

        return run

    def _catch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(signum) is not signal.SIG_IGN:  # as nohup leaves it
                loop.add_signal_handler(signum, self._signalled, signum)
        if is_named(self._given.environment):
            loop.add_signal_handler(signal.SIGHUP, self._given.keys_due.set)

    def _signalled(self, signum: signal.Signals) -> None:
        if self._stop.done():
            self._end_at_once(signum)
        name = signal.Signals(signum).name
        self._ask_to_stop(f"stopped by {name}", 128 + signum)

    def _end_at_once(self, signum: signal.Signals) -> None:
        """A second signal: nothing is waited for, and nothing is left behind all the same."""
        self._ending.at_once()
        console.flush()
        os._exit(AGENT_INTERRUPTED if self._task.under_agent else 128 + signum)

    async def _aborted(self) -> None:
        self._ask_to_stop("aborted in ClearML", 143)
        await self._ended.wait()

    def _taken(self) -> None:
        self._ask_to_stop("another run has the task", 143, Outcome.MOVED)

    def _ask_to_stop(self, text: str, exit_status: int, outcome: Outcome = Outcome.STOPPED) -> None:
        if self._task.under_agent:
            exit_status = AGENT_INTERRUPTED
        if not self._stop.done():
            self._stop.set_result(Reason(text, exit_status, outcome))


async def cancelled(life: asyncio.Task[Reason]) -> None:
    """Whatever it was at, and however it took that."""
    life.cancel()
    await asyncio.wait({life})
