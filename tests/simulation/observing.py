"""Looks at an instance from outside: why it ends, what it opens, what it logs."""

import contextlib
import logging

from app.instance import phases
from app.instance.life import Instance


class Observed(Instance):
    """An instance of which we know why it ends."""

    def __init__(self, world, *given):
        super().__init__(*given)
        self._world = world

    def _reason(self, life):
        self._world.reason = super()._reason(life)
        self._world.reason_at = self._world.loop.time()
        self._world.trace(f"the end: {self._world.reason}")
        return self._world.reason


class Told(logging.Handler):
    """What the app logs goes into the trace."""

    def __init__(self, world):
        super().__init__()
        self.world = world

    def emit(self, record):
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            self.world.violated(f"logged: {text}: {record.exc_info[1]!r}")
        self.world.trace(f"{record.levelname} {getattr(record, 'subject', 'app')} {text}")


@contextlib.contextmanager
def observed(world):
    """Keep hold of what the app opens, for the invariants."""
    open_door = phases.open_door

    async def observing(*given):
        opened = await open_door(*given)
        world.opened, world.opened_at = opened, world.loop.time()
        opened.front._listeners = (*opened.front._listeners, world.sampled)
        return opened

    phases.open_door = observing
    try:
        yield
    finally:
        phases.open_door = open_door
