"""Whether a llama-server is stuck: it owes answers, and does not work on them. Pure.

One that works is never stuck, however slowly: a prompt may take minutes on a CPU. What tells work
are pieces of the answers, what /slots shows, and what the kernel shows of its threads. Time in
which nobody looked does not count: the machine may have slept, or we.
"""

from __future__ import annotations

from dataclasses import dataclass

from app.machine.activity import Activity, Standing

LONGEST = 10.0  # seconds between two looks; after more, nobody has looked
AT_WORK = 0.05  # of one core: less is what connections and questions take
BRIEFLY = 0.1  # of a silence: who worked for less has not worked in it


@dataclass(frozen=True)
class Patience:
    """Seconds: of a child that a signal has `stopped`; of one that sleeps (`still`); and of one
    that works, and shows nothing of it (`silent`). A CPU may read a batch of a prompt for long, and
    tells nothing until it has."""

    stopped: float = 10.0
    still: float = 120.0
    silent: float = 3600.0


PATIENCE = Patience()
ON_GPUS = Patience(silent=600.0)  # a GPU that computes takes seconds for a batch


@dataclass(frozen=True)
class Look:
    """`seconds` since the last one. `owes`: answers, or to be loaded. `moved`: there was a sign of
    progress, or there need be none. `works`: one of the answers is by its own work. `aside`: it has
    answered something beside that."""

    seconds: float
    owes: bool
    moved: bool
    activity: Activity
    works: bool = True
    aside: bool = False


class Suspicion:
    """What the looks at one child add up to."""

    def __init__(self, patience: Patience = PATIENCE) -> None:
        self.silent = 0.0  # seconds without a sign of progress
        self._patience = patience
        self._stopped = 0.0
        self._worked = 0.0  # seconds of the silence
        self._owed_work = False  # in the silence: answers beside it do not end it
        self._last = Activity(Standing.ASLEEP)

    def look(self, look: Look) -> str:
        """Why it is stuck, for a person; "" if it is not."""
        last, self._last = self._last, look.activity
        standing = look.activity.standing
        seconds = look.seconds if look.seconds <= LONGEST else 0.0
        # One that is stopped and continued in turns, as to hold it back, works in between.
        stopped = look.owes and standing is Standing.STOPPED and look.activity.cpu == last.cpu
        self._stopped = self._stopped + seconds if stopped else 0.0
        excused = standing in (Standing.STOPPED, Standing.TRACED, Standing.GONE)
        self._owed_work |= look.works
        well = look.moved or (look.aside and not self._owed_work)
        if excused or well or not look.owes:
            self.silent, self._worked, self._owed_work = 0.0, 0.0, False
        else:
            self.silent += seconds
            self._worked += seconds if _works(last, look) else 0.0
        return self._why()

    def _why(self) -> str:
        patience, silent = self._patience, self.silent
        if self._stopped >= patience.stopped:
            return f"stopped by a signal (SIGSTOP) for {self._stopped:.0f} s while it was needed"
        if silent >= patience.silent:
            return f"at work for {silent:.0f} s without progress in any answer that it owed"
        if silent >= patience.still and self._worked <= BRIEFLY * silent:
            return f"neither work nor progress for {silent:.0f} s while it owed answers"
        return ""


def _works(last: Activity, look: Look) -> bool:
    """Since the last look. One that gets no time from others is ready to run, and so `ACTIVE`."""
    now = look.activity
    busy = now.cpu - last.cpu > AT_WORK * look.seconds
    return busy or now.faults != last.faults or now.standing is Standing.ACTIVE
