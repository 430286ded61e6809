"""The one thread that calls the ClearML SDK.

The SDK blocks for as long as its server is away; here it blocks nobody else. Calls run in the
order in which they came, and each has a deadline for whoever waits for it.
"""

from __future__ import annotations

import asyncio
import logging
import queue
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from app.machine import threads

logger = logging.getLogger(__name__)

T = TypeVar("T")
WAITING = 1000  # calls; a server that is away for hours must not fill our memory


class SdkTimeoutError(Exception):
    """The SDK did not answer in time; the call goes on, and may still have its effect."""


class SdkThread:
    def __init__(self) -> None:
        self._calls: queue.Queue[tuple[Callable[[], Any], Future[Any]]] = queue.Queue(WAITING)
        self._thread = threads.daemon("clearml", self._run)

    def start(self) -> None:
        self._thread.start()

    def post(self, function: Callable[[], T]) -> Future[T]:
        """Let the thread call `function`; its failure is logged, and lies in the future."""
        future: Future[T] = Future()
        try:
            self._calls.put_nowait((function, future))
        except queue.Full:
            future.set_exception(SdkTimeoutError("too many calls wait for ClearML"))
        return future

    async def call(self, function: Callable[[], T], deadline: float | None) -> T:
        """Raises SdkTimeoutError after `deadline` seconds, else what `function` raises; None
        waits for as long as it takes."""
        future = asyncio.wrap_future(self.post(function))
        done, _ = await asyncio.wait({future}, timeout=deadline)
        if not done:
            raise SdkTimeoutError(f"ClearML did not answer in {deadline or 0:g} s")
        return future.result()

    def _run(self) -> None:
        while True:
            function, future = self._calls.get()
            try:
                result = function()
            except BaseException as error:  # noqa: BLE001 handed to whoever waits
                logger.debug("a ClearML call failed", exc_info=error)
                if not future.cancelled():
                    future.set_exception(error)
            else:
                if not future.cancelled():
                    future.set_result(result)
