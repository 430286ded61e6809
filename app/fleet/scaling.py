"""When one more instance of a route is started, and which one is let go. Pure.

How long requests wait follows from how many wait and how many are served: L = λW (J. D. C. Little,
"A proof for the queuing formula L = λW", 1961).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from app.fleet.config import Route

MINUTE, HOUR = 60.0, 3600.0
PART = 20.0  # seconds, of the history


class History:
    """The most requests at work and waiting, of each part of the last hour."""

    def __init__(self, now: float) -> None:
        self._until = now + PART
        self._points: deque[tuple[int, int]] = deque([(0, 0)], maxlen=round(HOUR / PART))

    def see(self, now: float, working: int, waiting: int) -> None:
        while now >= self._until:
            self._until += PART
            self._points.append((0, 0))
        most = self._points[-1]
        self._points[-1] = (max(most[0], working), max(most[1], waiting))

    def points(self) -> list[tuple[int, int]]:
        """The oldest first."""
        return list(self._points)


class Demand:
    """What has been asked of a route lately: looked at once in a while, by `see`, and told of each
    request that comes, by `arrived`. Short ones come and go between two looks."""

    def __init__(self, now: float) -> None:
        self._slots = 0
        self._seen: deque[tuple[float, int]] = deque()  # when, requests beyond all slots
        self._served: deque[float] = deque()
        self._peaks: deque[tuple[float, int]] = deque()  # falling requests
        self._history = History(now)

    def see(self, now: float, requests: int, slots: int) -> None:
        """So many `requests` are here now, those that wait for an instance included."""
        if slots != self._slots:  # how long requests waited for others tells nothing of these
            self._slots = slots
            self._seen.clear()
            self._served.clear()
        beyond = max(0, requests - slots)
        self._history.see(now, requests - beyond, beyond)
        if slots:  # who waits for the first instance does not show that one is too few
            self._seen.append((now, beyond))
        self._note(now, requests)

    def arrived(self, now: float, requests: int) -> None:
        """One has come, of so many that are here now. It shows that an instance is needed; how many
        are, looks tell: a moment's crowd waits a moment."""
        beyond = max(0, requests - self._slots)
        self._history.see(now, requests - beyond, beyond)
        self._note(now, 1)

    def _note(self, now: float, requests: int) -> None:
        while self._peaks and self._peaks[-1][1] <= requests:
            self._peaks.pop()
        self._peaks.append((now, requests))

    def history(self) -> list[tuple[int, int]]:
        return self._history.points()

    def served(self, now: float) -> None:
        self._served.append(now)

    def queue_wait(self, now: float) -> float:
        """Seconds that requests waited for a slot, on average over the last minute in which there
        were as many slots as now."""
        self._forget(now)
        if not self._seen:
            return 0.0
        waiting = sum(beyond for _, beyond in self._seen) / len(self._seen)
        return waiting * max(1.0, self.span(now)) / max(1, len(self._served))

    def span(self, now: float) -> float:
        """Over how many seconds that is known."""
        self._forget(now)
        return now - self._seen[0][0] if self._seen else 0.0

    def _forget(self, now: float) -> None:
        while self._seen and self._seen[0][0] < now - MINUTE:
            self._seen.popleft()
        while self._served and self._served[0] < now - MINUTE:
            self._served.popleft()

    def peak(self, now: float, window: float) -> int:
        """The most requests at once in the last `window` seconds, as looks had it; one, at least,
        if any has come."""
        while self._peaks and self._peaks[0][0] < now - window:
            self._peaks.popleft()
        return self._peaks[0][1] if self._peaks else 0


@dataclass(frozen=True)
class Instance:
    """One that serves: its slots, and when it was last chosen, by the door's clock."""

    task: str
    slots: int
    used: float


@dataclass(frozen=True)
class Standing:
    """A route now. `coming`: instances that were asked for and do not serve yet; `waiting`:
    requests that no instance can serve; `changed`: when an instance last came or was let go;
    `stuck`: tasks that run, and never served."""

    instances: Sequence[Instance]
    coming: int
    waiting: int
    changed: float
    stuck: int = 0


@dataclass(frozen=True)
class Decision:
    start: bool = False
    let_go: str = ""  # a task


NOTHING = Decision()


def decide(route: Route, standing: Standing, demand: Demand, now: float) -> Decision:
    here = len(standing.instances)
    total = here + standing.coming
    if total + standing.stuck >= max(1, route.max) and not here:
        return NOTHING
    if total < route.min:
        return Decision(start=True)
    if not total and standing.waiting and route.max:
        return Decision(start=True)
    known = demand.span(now) >= route.queue_wait
    slow = known and demand.queue_wait(now) > route.queue_wait
    if here and slow and not standing.coming and total + standing.stuck < route.max:
        return Decision(start=True)
    if here > route.min and not standing.coming and now - standing.changed > route.quiet:
        least = min(standing.instances, key=lambda each: each.used)
        left = sum(each.slots for each in standing.instances) - least.slots
        if demand.peak(now, route.quiet) <= left:
            return Decision(let_go=least.task)
    return NOTHING
