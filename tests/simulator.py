"""A model pool in virtual time, driven by the real policy: requests in, what happened out.

Everything that the pool does with the policy's plans, without processes: a switch takes `cost`
seconds for each model that leaves and for the one that comes, a request `service` seconds.
"""

import heapq
import itertools
from dataclasses import dataclass, field

from app.memory.line import PAUSE
from app.memory.turns import Stage, Standing, assign


@dataclass
class Sim:
    need: dict  # model → bytes on each of its devices
    budget: int  # of each device
    cost: float = 1.0
    leaves_in: dict = field(default_factory=dict)  # seconds, where leaving takes another time
    bound: float = 60.0
    policy: object = staticmethod(assign)
    priority: dict = field(default_factory=dict)
    pinned: frozenset = frozenset()
    ttl: dict = field(default_factory=dict)
    device: dict = field(default_factory=dict)  # letters, of those that are not on "d"

    def __post_init__(self):
        self.now, self.switches, self.done, self.denied = 0.0, 0, [], []
        self.budgets = dict.fromkeys("".join(["d", *self.device.values()]), self.budget)
        self.longest_idle = 0.0
        self._events, self._count = [], itertools.count()
        names = list(self.need)
        self.stage = dict.fromkeys(names, Stage.AWAY)
        self.leased, self.queue = dict.fromkeys(names, 0), {name: [] for name in names}
        self.last_used, self.here = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
        self.gap = dict.fromkeys(names)
        self.busy, self.turn = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
        self.before = dict.fromkeys(names, (0.0, 0.0))
        self.hog = dict.fromkeys(names, False)
        self.held_back = {}  # who is held back, since when
        self.left = []  # who left unused, and when
        self.comings = {}  # a model that comes → who must be gone first

    def at(self, when, what):
        heapq.heappush(self._events, (when, next(self._count), what))

    def request(self, model, service, then=None):
        """A request now; `then` is called when it is served."""
        if not self.leased[model] and not self.queue[model]:
            self.gap[model] = self.now - self.last_used[model]
            if self.last_used[model] >= self.busy[model]:
                self.before[model] = self.busy[model], self.last_used[model]
            self.hog[model] = self.hog[model] and self.gap[model] < PAUSE
            self.busy[model] = self.now
        self.queue[model].append((self.now, service, then))
        self._decide()

    def run(self, until=10_000.0):
        while self._events and self._events[0][0] <= until:
            before = self.now
            self.now, _, what = heapq.heappop(self._events)
            if self.idle_with_work:
                self.longest_idle = max(self.longest_idle, self.now - before)
            what()
            for device in self.budgets:
                assert self.held(device) <= self.budget, f"over the budget at {self.now}"
        return self

    def held(self, device):
        """Bytes there of all that is here, comes (once its room is free) or has not gone yet."""
        coming = {n for n, waits in self.comings.items() if waits}
        there = {n for n, stage in self.stage.items() if stage is not Stage.AWAY} - coming
        return sum(self.need[n] for n in there if device in self.device.get(n, "d"))

    @property
    def idle_with_work(self):
        moving = any(s in (Stage.COMING, Stage.LEAVING) for s in self.stage.values())
        return not moving and not any(self.leased.values()) and any(self.queue.values())

    def standings(self):
        return [
            Standing(
                n,
                dict.fromkeys(self.device.get(n, "d"), self.need[n]),
                self.stage[n],
                leased=self.leased[n],
                waiting_since=self.queue[n][0][0] if self.queue[n] else None,
                waiting=len(self.queue[n]),
                priority=self.priority.get(n, 0),
                pinned=n in self.pinned,
                last_used=self.last_used[n],
                here_since=self.here[n],
                switch_cost=2 * self.cost,
                turn=self._turn(n) if self.stage[n] is Stage.HERE else self.turn[n],
                hog=self.hog[n],
                gap=self.gap[n],
                ttl=self.ttl.get(n),
                held_since=self.held_back.get(n),
            )
            for n in self.need
        ]

    def _turn(self, name):
        since, until = self.busy[name], self.last_used[name]
        if until < since:
            since, until = self.before[name]
        return max(0.0, until - max(self.here[name], since))

    def _decide(self):
        found = self.policy(self.standings(), self.budgets, self.now, self.bound)
        self.held_back = {name: self.held_back.get(name, self.now) for name in found.draining}
        for turn in found.begin:
            self._leave(turn.evict)
            self.stage[turn.name] = Stage.COMING
            self.comings[turn.name] = {*turn.after}
            self.switches += 1
            if not turn.after:
                self._come(turn.name)
        self.left += [(name, self.now) for name, _ in found.unused]
        self._leave(name for name, _ in found.unused)
        for name, _ in found.refused:
            self.denied += self.queue[name]
            self.queue[name] = []
        for name, stage in self.stage.items():
            if stage is Stage.HERE and name not in found.draining:
                self._serve(name)
        self.again = None if found.again_at is None else max(found.again_at, self.now + 1e-9)
        if self.again is not None:
            self.at(self.again, lambda due=self.again: self._decide_again(due))

    def _decide_again(self, due):
        if due == self.again:  # nothing was decided meanwhile
            self._decide()

    def _leave(self, names):
        for name in names:
            assert self.stage[name] is Stage.HERE, "left twice"
            assert not self.leased[name] and name not in self.pinned, "evicted in use"
            self.stage[name], self.turn[name] = Stage.LEAVING, self._turn(name)
            if self.last_used[name] >= self.busy[name]:
                self.hog[name] = bool(self.queue[name])
            leave = self.leaves_in.get(name, self.cost)
            self.at(self.now + leave, lambda name=name: self._left(name))

    def _left(self, name):
        self.stage[name] = Stage.AWAY
        for target, waits in self.comings.items():
            if name in waits:
                waits.discard(name)
                if not waits:
                    self._come(target)
        self._decide()

    def _come(self, name):
        self.at(self.now + self.cost, lambda: self._came(name))

    def _came(self, name):
        self.stage[name], self.here[name] = Stage.HERE, self.now
        self.last_used[name] = self.now
        del self.comings[name]
        self._decide()

    def _serve(self, name):
        for arrived, service, then in self.queue[name]:
            self.leased[name] += 1
            waited = self.now - arrived
            self.at(self.now + service, lambda n=name, w=waited, t=then: self._served(n, w, t))
        self.queue[name] = []

    def _served(self, name, waited, then):
        self.leased[name] -= 1
        self.last_used[name] = self.now
        self.done.append((name, waited))
        if then:
            then()
        self._decide()


def callers(sim, sequences, service, gap=0.0):
    """Closed-loop callers: each asks for the models of its sequence, one after the other."""

    def ask(sequence):
        model = next(sequence, None)
        if model is not None:
            sim.request(model, service, lambda: sim.at(sim.now + gap, lambda: ask(sequence)))

    for number, sequence in enumerate(map(iter, sequences)):
        sim.at(number * 1e-3, lambda sequence=sequence: ask(sequence))
    return sim
