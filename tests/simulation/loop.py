"""A stock asyncio loop on a virtual clock: where nothing is ready, its time jumps to the next
timer."""

import asyncio
import selectors

MOST_TURNS = 100_000  # of the loop in one moment: whoever needs more goes round in circles


TURN = 1e-6  # seconds that a turn of the loop takes


class Stuck(Exception):
    """Nothing will ever happen any more, or the time stands still."""


class _Jumping(selectors.EpollSelector):
    """Waits for no descriptor: what is ready is ready, and else the time moves on."""

    def __init__(self):
        super().__init__()
        self.now = 0.0
        self._turns = 0

    def select(self, timeout=None):
        self.now += TURN
        events = super().select(0)
        if events or timeout == 0:
            self._turns += 1
            if self._turns > MOST_TURNS:
                self._turns = 0
                raise Stuck(f"{MOST_TURNS} turns of the loop at {self.now:.6f}")
            return events
        if timeout is None:
            raise Stuck(f"no timer is left at {self.now:.6f}")
        self._turns = 0
        self.now += max(0.0, timeout)
        return events


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self):
        self._jumping = _Jumping()
        super().__init__(self._jumping)
        self.signal_handlers = {}

    def time(self):
        return self._jumping.now

    def add_signal_handler(self, signum, callback, *arguments):
        self.signal_handlers[signum] = callback, arguments

    def remove_signal_handler(self, signum):
        return self.signal_handlers.pop(signum, None) is not None

    def signal(self, signum):
        """As if the process had been sent it; False where nobody waits for it."""
        callback, arguments = self.signal_handlers.get(signum, (None, ()))
        if callback is not None:
            self.call_soon(callback, *arguments)
        return callback is not None

    def run_in_executor(self, executor, function, *arguments):
        raise AssertionError(f"{function} would run in a real thread")

    def _write_to_self(self):
        """Nobody sleeps who would have to be woken: threads run while the loop stands still."""
