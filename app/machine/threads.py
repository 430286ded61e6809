"""Work that blocks, off the loop: the only place that starts threads."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

Lock = threading.Lock
Condition = threading.Condition
Queue = queue.Queue
Full = queue.Full


async def run(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `function` returns or raises, called in a thread of the loop's pool. Who is cancelled
    meanwhile goes on at once; the thread ends when it ends."""
    return await asyncio.to_thread(function, *args, **kwargs)


def result(future: Future[T], timeout: float) -> T:
    """Wait in a thread for what another one makes. Raises what that raises, and
    concurrent.futures.TimeoutError."""
    return future.result(timeout)


def after(seconds: float, function: Callable[[], None]) -> Callable[[], None]:
    """Call it then, in a thread of its own, unless what is returned is called before."""
    timer = threading.Timer(seconds, function)
    timer.daemon = True
    timer.start()
    return timer.cancel


def daemon(name: str, target: Callable[[], None]) -> threading.Thread:
    """A thread that does not keep the process alive; the caller starts it."""
    return threading.Thread(target=target, name=name, daemon=True)
