"""Whose turn it is on a GPU that does not hold all models: pure policy, no I/O, no clock.

Requests are coalesced by model: a resident model serves all of its requests, those for other models
wait. The next one is that for which most requests wait; among equals the one whose requests have
just come, so that callers who go from model to model catch up with others and go on together; none
waits for more than a few switches and turns while later ones go first. A resident model in demand
keeps its place for a quantum in proportion to what a switch costs; then its new requests wait as
well, it drains, and it leaves. One that had to leave so is a hog: a batch, as a rule. Beside models
whose turns end by themselves, as those of people and agents do, who read and think, its requests
count for less, and its quantum is shorter (as in a multi-level feedback queue: Corbató and others,
AFIPS 1962). An idle model leaves after a moment, or a little later where its next request usually
comes much sooner than it could be back (anticipatory disk scheduling: Iyer and Druschel, SOSP
2001).
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, replace

from app.memory.residency import Doing, Refuse, Resident, Swap, Wait, decide, short
from app.planning.amounts import HOST, Need, lasting

# Times what a switch costs: mostly 4/5 of the time are spent on requests; 2/3 of a hog's time.
QUANTUM = 4.0
LEAST_QUANTUM = 0.2  # seconds
# Of a hog: what a request for it counts for beside one for another model; its quantum while one
# that is no hog waits, and how long it waits before it is late, times those of others.
HOG, HOGS_QUANTUM, HOGS_PATIENCE = 0.25, 0.5, 2.0
# Times what a switch costs, and times what a turn takes: who has waited for longer is late.
PATIENCE, TURNS_OF_PATIENCE = 4.0, 1.5
LONGEST_TURN = 5.0  # seconds of a turn that count: callers who go round take no longer ones
LINGER = 0.1  # times what a switch costs: for how long an idle model may keep others waiting
LONGEST_LINGER = 3.0  # seconds
# Times what a switch costs, and times what the turn before it took: for how long requests are
# gathered.
GATHER, GATHER_TURN = 0.1, 0.02
LONGEST_GATHER = 0.05  # seconds
# Of the longest wait that is aimed at: after so long others are asked to leave than one that has
# not rested since it was asked.
LONGEST_DRAIN = 0.25


class Stage(enum.Enum):
    AWAY = "away"
    COMING = "coming"
    HERE = "here"
    LEAVING = "leaving"


@dataclass(frozen=True)
class Standing:
    """How one model stands; times in seconds of one clock.

    `waiting`: how many requests wait for it, the oldest since `waiting_since` (None: none). `gap`:
    from its last idle moment to the request after it. `switch_cost`: what leaving and coming back
    take together. `turn`: for how long it last served without an idle moment. `hog`: requests
    waited for it when it last left, and it has not paused since. `ttl`: how long it stays without a
    request; None: as long as there is room. `parked`: it is away, and holds memory from which the
    others serve. `held_since`: its new requests wait, so that it can leave.
    """

    name: str
    need: Need
    stage: Stage
    _: KW_ONLY
    leased: int = 0
    waiting_since: float | None = None
    priority: int = 0
    pinned: bool = False
    last_used: float = 0.0
    here_since: float = 0.0
    switch_cost: float = 0.0
    gap: float | None = None
    waiting: int = 0
    turn: float = 0.0
    hog: bool = False
    ttl: float | None = None
    parked: bool = False
    held_since: float | None = None

    @property
    def crowd(self) -> float:
        """How many requests wait for it, as they count when turns are given."""
        return self.waiting * (HOG if self.hog else 1.0)

    @property
    def patience(self) -> float:
        """Seconds after which its oldest request is late."""
        turn = min(self.turn, LONGEST_TURN)
        patience = PATIENCE * (self.switch_cost or 1.0) + TURNS_OF_PATIENCE * turn
        return patience * (HOGS_PATIENCE if self.hog else 1.0)


@dataclass(frozen=True)
class Turn:
    """A model's turn to come: `evict` leave for it, and it is loaded once all of `after` are gone,
    whose memory it needs: these, and some that were leaving already."""

    name: str
    evict: tuple[str, ...]
    after: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Turns:
    """`begin` are to begin now. Models that are `draining` get no new request. `refused` can never
    be served, and `unused` leave although nobody needs the room, each with the reason. At
    `again_at` the decision may be another one, by time alone.
    """

    begin: tuple[Turn, ...] = ()
    draining: frozenset[str] = frozenset()
    refused: tuple[tuple[str, str], ...] = ()
    unused: tuple[tuple[str, str], ...] = ()
    again_at: float | None = None


def assign(standings: Sequence[Standing], budget: Need, now: float, bound: float) -> Turns:
    """What to do now. `bound` in seconds: the longest that any request should wait for a turn."""
    return _Assignment(standings, budget, now, bound).turns()


def order(standings: Sequence[Standing], now: float, bound: float) -> list[Standing]:
    """The models that wait for a place, the next one first.

    A switch pays for as many requests as wait for it, so many go before few. Of two equal crowds of
    callers that go round the same models, one behind the other, the younger one goes: it comes to
    where the older one waits, and both go on as one. In the order of their age they would go round
    apart for ever, at twice the switches. Those who are late go first, the oldest before all; who
    has waited for half the bound goes before any priority: none starves.
    """

    def rank(model: Standing) -> tuple[bool, float, bool, float, float]:
        since = model.waiting_since or 0.0
        if now >= since + bound / 2:
            return (False, 0.0, False, 0.0, since)
        if now >= since + model.patience:
            return (True, -model.priority, False, 0.0, since)
        return (True, -model.priority, True, -model.crowd, -since)

    waiting = [m for m in standings if m.stage is Stage.AWAY and m.waiting_since is not None]
    return sorted(waiting, key=rank)


def _gpus(need: Need) -> set[str]:
    """What models take turns on: not host memory, of which every model takes a little."""
    return {device for device, size in need.items() if size and device != HOST} or {HOST}


def keeps_until(model: Standing, rivals: Sequence[Standing], bound: float) -> float:
    """Until when a resident model keeps its place while these want it."""
    yields = model.hog and not all(rival.hog for rival in rivals)
    longest = QUANTUM * model.switch_cost * (HOGS_QUANTUM if yields else 1.0)
    most = bound / 2 / max(1, len(rivals))
    if model.leased or model.waiting_since is not None:
        return model.here_since + min(max(LEAST_QUANTUM, longest), most)
    linger = min(LINGER * model.switch_cost, LONGEST_LINGER)
    if model.gap is None or model.gap >= linger:
        return model.last_used
    # Within its quantum only: else a hog with short gaps would never leave.
    return min(model.last_used + linger, model.here_since + min(longest, most))


def gathers_for(model: Standing, leaving: Sequence[Standing]) -> float:
    """For how many seconds requests are gathered, before these leave for a model."""
    # What a switch costs may not be known yet of one of them.
    cost = max(model.switch_cost, *(other.switch_cost for other in leaving))
    served = max(other.turn for other in leaving)
    return min(GATHER * cost + GATHER_TURN * served, LONGEST_GATHER)


def unused_at(model: Standing, now: float) -> float | None:
    """When a model that holds memory will have been unused for its time to live, at the earliest:
    one that is in use now may be so until then. None: it stays."""
    holds = model.stage is Stage.HERE or model.parked
    if model.ttl is None or model.pinned or not holds:
        return None
    in_use = model.leased or model.waiting_since is not None
    return (now if in_use else model.last_used) + model.ttl


def overflow(standings: Sequence[Standing], budget: Need) -> list[str]:
    """Idle residents that must go because all together hold more than there is; the one that was
    used longest ago first. It may not be enough."""
    kept = [model for model in standings if model.stage in (Stage.HERE, Stage.COMING)]
    leave = []
    for model in sorted(kept, key=lambda m: (m.priority, m.last_used)):
        over = [d for d in budget if sum(m.need.get(d, 0) for m in kept) > budget[d]]
        idle = model.stage is Stage.HERE and not model.leased and not model.pinned
        if idle and any(model.need.get(device) for device in over):
            leave.append(model.name)
            kept.remove(model)
    return leave


def _held_back(models: Sequence[Standing]) -> set[str]:
    """Who of those that have to leave together gets no new request. One that rests before the
    others serves until these rest; then it is held back again, and from then on all of them stay
    so. So two rounds of their requests are enough, however many they are."""
    working = {model.name for model in models if model.leased}
    held = {model.name: model.held_since for model in models if model.held_since is not None}
    first = min((since for name, since in held.items() if name in working), default=None)
    if first is None:
        return {model.name for model in models} if held else working
    again = any(since < first for name, since in held.items() if name not in working)
    return set(held) if again else working & set(held)


class _Assignment:
    """Turns under way: a model that has been given one counts as coming from then on, those that
    leave for it as leaving."""

    def __init__(
        self, standings: Sequence[Standing], budget: Need, now: float, bound: float
    ) -> None:
        self._budget = budget
        self._now = now
        self._bound = bound
        self._models = {model.name: model for model in standings}
        self._gpus = {model.name: _gpus(model.need) for model in standings}
        self._waiting = order(standings, now, bound)
        self._residents = self._find_residents()
        self._heads: list[Standing] = []  # that have to wait: nobody behind takes from them
        self._begin: list[Turn] = []
        self._refused: list[tuple[str, str]] = []
        self._draining: set[str] = set()
        self._again: list[float] = []

    def turns(self) -> Turns:
        for model in self._waiting:
            if self._takes_nothing(model):
                self._decide(model)
            else:
                self._pass_over(model)
        unused = tuple(self._unused())
        return Turns(
            begin=tuple(self._begin),
            draining=frozenset(self._draining),
            refused=tuple(self._refused),
            unused=unused,
            again_at=min(self._again, default=None),
        )

    def _unused(self) -> Iterator[tuple[str, str]]:
        for model in self._models.values():
            until = unused_at(model, self._now)
            if until is not None and until <= self._now:
                yield model.name, f"unused for {lasting(model.ttl or 0.0)}"
            elif until is not None:
                self._again.append(until)

    def _decide(self, model: Standing) -> None:
        decision = decide(model.name, model.need, self._residents, self._budget)
        if isinstance(decision, Swap):
            self._swap(model, decision)
        elif isinstance(decision, Refuse):
            self._refused.append((model.name, decision.reason))
        elif isinstance(decision, Wait):
            self._heads.append(model)
            self._ask_to_drain(model, decision.blockers)
            self._ask_others(model, decision.blockers)

    def _pass_over(self, model: Standing) -> None:
        """It waits behind others. Those behind it that want less may go first, until it is late:
        then it may be the first."""
        since = model.waiting_since or 0.0
        late = (since + model.patience, since + self._bound / 2)
        self._again += [moment for moment in late if moment > self._now]

    def _swap(self, model: Standing, decision: Swap) -> None:
        gathered = self._gathered_at(model, [self._models[name] for name in decision.evict])
        if gathered > self._now:
            self._heads.append(model)
            self._again.append(gathered)
            return
        after = (*decision.evict, *self._still_held_by(model, decision.evict))
        self._begin.append(Turn(model.name, decision.evict, after, decision.reason))
        self._models[model.name] = replace(model, stage=Stage.COMING)
        for name in decision.evict:
            self._models[name] = replace(self._models[name], stage=Stage.LEAVING)
        self._residents = self._find_residents()

    def _still_held_by(self, model: Standing, evict: Sequence[str]) -> list[str]:
        """Models that were leaving already and hold what this one needs: `decide` takes that to be
        free."""
        staying = [resident for resident in self._residents if resident.name not in evict]
        lacks = short(model.need, staying, self._budget)
        return [r.name for r in staying if r.leaving and any(r.need.get(d) for d in lacks)]

    def _gathered_at(self, model: Standing, leaving: Sequence[Standing]) -> float:
        """When it is time to take a place: a moment after the models that leave were last used, and
        after the request came, since requests that come together are better served together."""
        if not leaving or any(other.waiting_since is not None for other in leaving):
            return 0.0  # none has to go, or they have been draining for long enough
        last = max(model.waiting_since or 0.0, *(other.last_used for other in leaving))
        return last + gathers_for(model, leaving)

    def _ask_to_drain(self, head: Standing, blockers: Sequence[str]) -> None:
        """When the time of the last one is up, those at work are held back."""
        models = [self._models[name] for name in blockers]
        if any(model.stage is not Stage.HERE for model in models):
            return  # the time of one that comes has not even begun
        ends = {model.name: self._yields_at(model, head) for model in models}
        keeping = [model for model in models if ends[model.name] > self._now]
        if not keeping:
            self._draining |= _held_back(models)
            return
        self._again.append(max(ends.values()))
        if not any(model.leased or model.waiting_since is not None for model in keeping):
            # They only linger, between two requests: that lets nobody go who drains already.
            self._draining |= {model.name for model in models if model.held_since is not None}

    def _ask_others(self, head: Standing, blockers: Sequence[str]) -> None:
        """Who has been asked may have a request that takes minutes: after a while others are asked
        as well, and those leave that rest first."""
        models = [self._models[name] for name in blockers]
        draining = [(m.name, m.held_since) for m in models if m.leased and m.held_since is not None]
        patient = {name: since + self._bound * LONGEST_DRAIN for name, since in draining}
        slow = {name for name, until in patient.items() if until <= self._now}
        self._again += [until for until in patient.values() if until > self._now]
        if slow:
            staying = [replace(r, pinned=r.pinned or r.name in slow) for r in self._residents]
            others = decide(head.name, head.need, staying, self._budget)
            if isinstance(others, Wait):
                self._ask_to_drain(head, others.blockers)

    def _yields_at(self, model: Standing, head: Standing) -> float:
        """Not before requests have been gathered since the place was first wanted."""
        since = min(rival.waiting_since or 0.0 for rival in [head, *self._rivals(model)])
        return max(self._keeps_until(model), since + gathers_for(model, [model]))

    def _keeps_until(self, model: Standing) -> float:
        return keeps_until(model, self._rivals(model), self._bound)

    def _rivals(self, model: Standing) -> list[Standing]:
        """Those that wait, as they stand by now, for a GPU that the model is on."""
        gpus = self._gpus[model.name]
        beside = (m.name for m in self._waiting if not gpus.isdisjoint(self._gpus[m.name]))
        standing = (self._models[name] for name in beside)
        return [rival for rival in standing if rival.stage is Stage.AWAY]

    def _takes_nothing(self, model: Standing) -> bool:
        """Whether a model takes nothing from those before it that have to wait: on each device that
        they need as well, it fits beside them and all residents."""
        for device, size in model.need.items():
            claimed = sum(head.need.get(device, 0) for head in self._heads)
            taken = sum(resident.need.get(device, 0) for resident in self._residents)
            if size and claimed and size + claimed + taken > self._budget.get(device, 0):
                return False
        return True

    def _find_residents(self) -> list[Resident]:
        return [self._resident(m) for m in self._models.values() if m.stage is not Stage.AWAY]

    def _resident(self, model: Standing) -> Resident:
        until = self._keeps_until(model)
        doing = self._doing(model, keeps=model.stage is Stage.HERE and until > self._now)
        return Resident(
            name=model.name,
            need=model.need,
            doing=doing,
            # Who is at work is not ranked by its last use: with each request that ends, another one
            # would be asked to leave.
            yields_at=until if doing in (Doing.LINGERS, Doing.WORKS) else 0.0,
            leaving=model.stage is Stage.LEAVING,
            pinned=model.pinned and model.stage is not Stage.LEAVING,  # that one goes all the same
            last_used=model.last_used,
            priority=model.priority,
        )

    def _doing(self, model: Standing, *, keeps: bool) -> Doing:
        """`keeps`: its time is not up."""
        if model.stage is Stage.COMING:
            return Doing.COMES
        if model.leased and model.held_since is not None and not keeps:
            return Doing.DRAINS
        if model.leased or (keeps and model.waiting_since is not None):
            return Doing.WORKS
        return Doing.LINGERS if keeps else Doing.RESTS
