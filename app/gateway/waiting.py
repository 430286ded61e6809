"""How long a request waits for its model, and how its connection is kept open meanwhile.

A caller that asked for a stream gets its head (200) and `: ping` comments, before any proxy on the
way gives up. Clients ignore comments: they are not events (WHATWG HTML, 9.2.6).
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Iterator

from app.errors import RequestError
from app.gateway.relay import Relay

HEADER = b"x-wait-timeout"
LONGEST = 3600.0  # seconds that a caller may ask for
FIRST_PING = 5.0
PING_INTERVAL = 8.0
PING = b": ping\n\n"


def wait_timeout(given: bytes | None, default: float) -> float:
    """Seconds that a request may wait for its model. Raises RequestError 400."""
    if given is None:
        return default
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= LONGEST:
        raise RequestError(400, f"X-Wait-Timeout must be 0 to {LONGEST:.0f} seconds")
    return seconds


@contextlib.contextmanager
def kept_alive(relay: Relay, *, streams: bool) -> Iterator[None]:
    """Send pings to the caller of a stream until the relay's answer begins or the block ends."""
    if not streams:
        yield
        return
    pinging = asyncio.create_task(_ping(relay))
    try:
        yield
    finally:
        pinging.cancel()


async def _ping(relay: Relay) -> None:
    pause = FIRST_PING
    while True:
        await asyncio.sleep(pause)
        if not relay.ping(PING):
            return
        pause = PING_INTERVAL
