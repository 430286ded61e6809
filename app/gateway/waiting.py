"""How long a request waits for its model, and how its connection is kept open meanwhile.

A caller that asked for a stream gets its head (200) and `: ping` comments, before any proxy on the
way gives up. Clients ignore comments: they are not events (WHATWG HTML, 9.2.6).
"""

from __future__ import annotations

import asyncio
import math

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


class KeptAlive:
    """Sends pings to the caller of a stream until the relay's answer begins or the block ends."""

    def __init__(self, relay: Relay, *, streams: bool) -> None:
        self._relay = relay
        self._streams = streams
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        if self._streams:
            self._timer = asyncio.get_running_loop().call_later(FIRST_PING, self._ping)

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _ping(self) -> None:
        again = self._relay.ping(PING)
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(PING_INTERVAL, self._ping) if again else None
