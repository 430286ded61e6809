"""A bell: who waits for its next ring misses none from then on, whatever runs in between."""

from __future__ import annotations

import asyncio


class Bell:
    def __init__(self) -> None:
        self._next: asyncio.Future[None] | None = None

    def next(self) -> asyncio.Future[None]:
        """Done at the next ring. One waits at a time."""
        self._next = asyncio.get_running_loop().create_future()
        return self._next

    def ring(self) -> None:
        if self._next is not None and not self._next.done():
            self._next.set_result(None)
