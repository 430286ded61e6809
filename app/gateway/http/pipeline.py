"""The requests of one connection: answered one at a time, in the order in which they came."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol

from app.errors import RequestError, forget_frames
from app.gateway.http.request import Request
from app.gateway.http.turnstile import Step

logger = logging.getLogger(__name__)

Handler = Callable[[Request], Awaitable[None]]


class Enter(Protocol):
    """Calls a step of a request, now or later. `ends`: it ends the request."""

    def __call__(self, request: Request, step: Step, *, ends: bool = False) -> None: ...


class Pipeline:
    """Runs the handler for one request after another. Those that a client pipelines wait."""

    def __init__(self, handler: Handler, answered: Callable[[Request], None], enter: Enter) -> None:
        """`answered` is told of each request that has its answer, and may call `go_on`. All that
        begins a request, or ends one, goes through `enter`."""
        self.current: Request | None = None
        self.waiting: deque[Request] = deque()
        self._held = False
        self._handler = handler
        self._answered = answered
        self._enter = enter
        self._task: asyncio.Task[None] | None = None

    def add(self, request: Request) -> None:
        self.waiting.append(request)
        self.go_on()

    def go_on(self) -> None:
        """Answer the next request, if one waits and may be answered now."""
        if self.current is None and self.waiting and not self._held:
            self._start(self.waiting.popleft())

    def hold(self) -> None:
        """The client does not take its answers: begin no further one."""
        self._held = True

    def release(self) -> None:
        self._held = False
        self.go_on()

    @property
    def empty(self) -> bool:
        return self.current is None and not self.waiting

    def cancel(self) -> None:
        self.waiting.clear()
        if self._task is not None:
            self._task.cancel()
        else:
            self.current = None  # it has not begun

    def leave(self) -> None:
        """The connection is lost: nothing is told any more, and what is under way is cancelled in
        its turn, or a thousand that are lost at once would hold everybody up."""
        if self.current is None or self._task is None:
            self.cancel()
        else:
            self._enter(self.current, self._cancel, ends=True)
        self._answered, self._enter = _nobody, _never

    def _cancel(self) -> bool:
        self.cancel()
        self.current = self._task = None  # `_run` does that only where it has begun
        return True

    def _start(self, request: Request) -> None:
        self.current = request
        self._enter(request, partial(self._begin, request))

    def _begin(self, request: Request) -> bool:
        if self.current is not request:
            return False  # its client has left meanwhile
        self._task = asyncio.get_running_loop().create_task(self._run(request))
        return True

    async def _run(self, request: Request) -> None:
        try:
            await self._handler(request)
        except RequestError as error:
            _fail(request, error)
            forget_frames(error)
        except Exception:  # noqa: BLE001 a fault in one request must not end the others
            logger.exception(
                "%s %s, request %s", request.method, request.target, request.id.decode()
            )
            _fail(
                request, RequestError(500, "the instance failed to answer; its log has the cause")
            )
        finally:  # a cancelled task refers to its frames, and these to the body
            self.current = self._task = None
        self._answered(request)


def _nobody(request: Request) -> None: ...


def _never(request: Request, step: Step, *, ends: bool = False) -> None: ...


def _fail(request: Request, error: RequestError) -> None:
    """Say so, or break off an answer that has begun."""
    if request.started:
        request.abort()
    else:
        request.refuse(error)
