"""The one clock: whatever measures time, or says when something happened, asks it.

They are variables, so that a simulation of the whole app can put its own time in their place;
call them as `clock.now()`, and import none by name.
"""

from __future__ import annotations

import time
from collections.abc import Callable

now: Callable[[], float] = time.monotonic  # seconds that only grow
wall: Callable[[], float] = time.time  # seconds since the epoch
sleep: Callable[[float], None] = time.sleep  # blocks its thread: never on the loop
