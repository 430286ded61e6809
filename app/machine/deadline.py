"""Wait for something, but not for ever.

`asyncio.wait_for` of Python 3.10 and 3.11 loses a cancellation that comes in the same moment as the
result: it returns the result, and whoever was cancelled goes on (github.com/python/cpython/issues/
86296). A request whose client had left went on to be served. So nothing else in the app may use it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def within(seconds: float | None, awaited: Awaitable[T]) -> T:
    """Its result. Raises asyncio.TimeoutError if there is none in time (None: no limit), and
    CancelledError whenever the caller is cancelled. In both cases it is cancelled, and has ended
    unless the caller is cancelled once more meanwhile."""
    task = asyncio.ensure_future(awaited)
    try:
        await asyncio.wait({task}, timeout=seconds)
    except asyncio.CancelledError:
        await _end(task)
        raise
    if not task.done():
        await _end(task)
        if task.cancelled():
            raise asyncio.TimeoutError
    return task.result()


async def _end(task: asyncio.Future[T]) -> None:
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()  # taken note of, or asyncio would complain
