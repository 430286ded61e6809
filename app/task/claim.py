"""Whether the task is still this run's. A machine that was cut off from the network may come back
when the task already runs elsewhere: from then on nothing of this run may be written into it.

So the task is looked at before anything is written, at most once a minute, and at once after an
outage. Looks and what is written (`ask`) are one try each, past the SDK, which would wait for its
server as long as it is away, and then write. `holds` and `ask` run in the SDK's thread.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from app.machine import clock
from app.task.api import RefusedError
from app.task.outcome import AWAY, TAKEN, Ask, Run, is_taken

logger = logging.getLogger(__name__)

LOOK = 60.0  # seconds between two looks
TIMEOUT = 3.0  # seconds of silence, for one look
WRITE = 10.0  # the same, for what is written
SLOW = 10.0  # seconds: a request that takes longer has waited for its server


class Claim:
    def __init__(self, run: Run, ask: Ask) -> None:
        self._run, self._ask = run, ask
        self._due = clock.now() + LOOK
        self._tell: Callable[[], object] = lambda: None
        self.lost = False

    def on_loss(self, tell: Callable[[], object]) -> None:
        """Call `tell` once, when another run has the task, or is to have it."""
        self._tell = tell

    def doubt(self) -> None:
        """Look before anything else is written."""
        self._due = 0.0

    def ask(self, service: str, action: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Send a request; the data of the answer. Raises what `Direct.ask` raises."""
        return self._ask(service, action, fields, WRITE)

    def holds(self) -> bool:
        """Whether the task may be written into. Raises what `ask` raises where the server does not
        say: then it may not."""
        if not self.lost and clock.now() >= self._due:
            self.lost = self._is_taken()
            self._due = clock.now() + LOOK
            if self.lost:
                logger.warning("%s", TAKEN)
                self._tell()
        return not self.lost

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """What is written inside; if it has met an outage, the task may be another run's by now."""
        begun, done = clock.now(), False
        try:
            yield
            done = True
        finally:
            if not done or clock.now() - begun > SLOW:
                self.doubt()

    def _is_taken(self) -> bool:
        try:
            return is_taken(self._run, self._ask, TIMEOUT)
        except RefusedError as error:
            if error.status >= AWAY:
                raise
            return False  # as for the last words: then it is written all the same
