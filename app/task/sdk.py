"""The one thread that calls the ClearML SDK, and the edge where the SDK's errors become ours.

The SDK blocks while its server is away; on a thread of its own it blocks nothing else. Calls run in
the order in which they came. A caller waits until its deadline, and gets the call's result or a
ClearMLError: no exception of the SDK leaves this module.
"""

from __future__ import annotations

import asyncio
import logging
import re
import sys
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from app import console
from app.errors import AppError, ConfigError
from app.machine import garbage, threads

logger = logging.getLogger(__name__)

T = TypeVar("T")
SILENCE = 60.0  # seconds; a call without a deadline that takes longer is told
FRAMES = 4  # the innermost ones, of a call that takes long
WAITING = 1000  # calls in the queue; an outage of hours must not fill the memory
LONGEST = 300  # characters of what the SDK or a server says
CREDENTIALS = re.compile(r"(?<=://)[^/\s]*@")


class ClearMLError(ConfigError):
    """A call of ClearML failed; the text is one line that names the call and says why."""


class NoAnswerError(ClearMLError):
    """The deadline passed without a result. A call that has begun goes on, and may still take
    effect; a call that has not begun is dropped."""


def said(text: object) -> str:
    """What the SDK or a server says, for people: one line of at most LONGEST characters, without
    credentials and control characters."""
    line = CREDENTIALS.sub("", " ".join(str(text).split()))
    return console.escape(line[:LONGEST])[:LONGEST]


def one_line(error: BaseException) -> str:
    """An exception's type and text for people, as `said`."""
    text = said(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def translated(call: str, error: BaseException) -> AppError:
    """An error that names the call; our own errors are returned as they are."""
    if isinstance(error, AppError):
        return error
    return ClearMLError(f"ClearML: {call}: {one_line(error)}")


class Complaints:
    """Logs a failure when it begins, and not again until the same thing has worked."""

    def __init__(self) -> None:
        self._failing: set[str] = set()

    def failed(self, what: str, text: object) -> None:
        if what not in self._failing:
            logger.warning("%s", text)
        self._failing.add(what)

    def worked(self, what: str) -> None:
        self._failing.discard(what)


class SdkThread:
    def __init__(self) -> None:
        self._calls: threads.Queue[tuple[Callable[[], Any], Future[Any]]] = threads.Queue(WAITING)
        self._thread = threads.daemon("clearml", self._run)

    def start(self) -> None:
        self._thread.start()

    def post(self, function: Callable[[], T]) -> Future[T]:
        """Call `function` in the thread; the future gets its result or its exception."""
        future: Future[T] = Future()
        try:
            self._calls.put_nowait((function, future))
        except threads.Full:
            future.set_exception(ClearMLError("ClearML: too many calls wait for an answer"))
        return future

    async def call(self, name: str, function: Callable[[], T], deadline: float | None) -> T:
        """Call `function` in the thread and wait for its result, at most `deadline` seconds (None:
        without limit). Raises ClearMLError that has the call's `name`: NoAnswerError at the
        deadline."""
        posted = self.post(function)
        future = asyncio.wrap_future(posted)
        try:
            patience = SILENCE if deadline is None else deadline
            done, _ = await asyncio.wait({future}, timeout=patience)
            if deadline is None and not done:
                waits = "" if posted.running() else ", it waits for the call before it"
                place = self.place()
                logger.warning("ClearML: %s: no answer in %g s%s: %s", name, SILENCE, waits, place)
                done, _ = await asyncio.wait({future})
        finally:  # its result is of no use any more
            future.cancel()
            posted.cancel()
        if not done:
            raise NoAnswerError(f"ClearML: {name}: no answer in {deadline or 0:g} s")
        error = future.exception()
        if error is not None:
            raise translated(name, error) from None
        return future.result()

    def place(self) -> str:
        """Where the thread is, for whoever has to find out what it waits for."""
        # A collection meanwhile would hang Python before 3.12 for good (gh-106883).
        with garbage.left_alone():
            frame = sys._current_frames().get(self._thread.ident or 0)
        if frame is None:
            return "the thread has ended"
        stack = list(traceback.walk_stack(frame))[:FRAMES]
        names = [f"{f.f_code.co_filename}:{line} {f.f_code.co_name}" for f, line in stack]
        return ", called by ".join(names)

    def _run(self) -> None:
        while True:
            function, future = self._calls.get()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(function())
            except BaseException as error:  # noqa: BLE001 the SDK's edge: handed to the caller
                logger.debug("a ClearML call failed", exc_info=error)
                future.set_exception(error)
