"""One route as it stands: its instances, those that are to come, and the requests that wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from app.fleet.config import Route
from app.fleet.listing import Listed
from app.fleet.member import Member
from app.fleet.ring import Choice, choose
from app.fleet.scaling import Demand, Instance, Standing
from app.fleet.turns import Waits, in_turns
from app.gateway import trust
from app.machine import clock
from app.memory.caller import Caller


@dataclass(frozen=True)
class Coming:
    """An instance that was asked for: how it stands, for people. `hopeless`: no agent will take
    it."""

    task: str
    text: str
    hopeless: bool = False


class RouteState:
    def __init__(self, route: Route, secret: str = "") -> None:
        """`secret`: what doors and instances share; "" without one."""
        now = clock.now()
        self.route = route
        self.models: tuple[str, ...] = ()  # by endpoint name, as the template says
        self.named: Route | None = None  # whose models these are
        self.unreadable = ""  # why the template could not be read
        self.members: dict[str, Member] = {}
        self.listed: dict[str, Listed] = {}  # queued, or not listening yet
        self.coming: dict[str, Coming] = {}
        self.ordering = False  # an instance is being ordered
        self.ordered: dict[str, float] = {}  # tasks that were, and when: until they serve or fail
        self.problem = ""  # why the last order failed
        self.failures = 0
        self.retry_at = 0.0
        self.demand = Demand(now)
        self.changed = now
        self.admitted = 0
        self.served, self.failed = 0, 0
        self._secret = secret
        self._waiting: dict[asyncio.Future[None], Waits] = {}  # in order of coming

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def slots(self) -> int:
        return sum(member.slots for member in self.serving())

    def names(self) -> list[str]:
        """Of its models: the template's, and those that instances serve besides."""
        told = (name for member in self.serving() for name in member.models)
        return list(dict.fromkeys((*self.models, *told)))

    def serving(self) -> list[Member]:
        return [member for member in self.members.values() if member.serves]

    def standing(self) -> Standing:
        instances = [Instance(m.task, m.slots, m.used) for m in self.serving()]
        starting = sum(member.comes and self._counted(member) for member in self.members.values())
        unseen = len(self.ordered.keys() - self.listed.keys() - self.members.keys())
        coming = len(self.listed) + starting + unseen + self.ordering
        return Standing(instances, coming, self.waiting, self.changed, len(self._stuck()))

    def _stuck(self) -> list[Member]:
        """Those that never served, and do not look as if they would."""
        members = (m for m in self.members.values() if self._counted(m))
        return [m for m in members if not (m.serves or m.comes or m.useless)]

    def _counted(self, member: Member) -> bool:
        """Not what anybody has made look like an instance of ours."""
        return bool(member.state) or self._ordered_by_a_door(member.listed)

    def _ordered_by_a_door(self, listed: Listed) -> bool:
        wanted = trust.order(self._secret, listed.task, self.route.name)
        return not self._secret or trust.same(listed.order, wanted)

    def outdated(self, listed: Listed) -> bool:
        """Whether a door ordered it when the route's template or form was another one."""
        return listed.version not in ("", self.route.version)

    def old(self) -> list[Member]:
        return [member for member in self.serving() if self.outdated(member.listed)]

    def new(self) -> int:
        """Instances by the route as it is now, those to come included."""
        known = [m.listed for m in self.members.values() if m.serves or m.comes]
        return sum(not self.outdated(each) for each in (*known, *self.listed.values()))

    def counts(self, listed: Listed) -> bool:
        """Whether a task that is listed counts among the route's instances."""
        member = self.members.get(listed.task)
        if member is None:
            return listed.fresh and self._ordered_by_a_door(listed)
        return self._counted(member) and not member.useless

    def one_more(self) -> Callable[[Sequence[Listed]], bool]:
        """Whether what is listed later makes another instance needless, which is decided now: there
        are as many, or there is one that was not known, since another door was faster."""
        standing = self.standing()
        wanted = len(standing.instances) + standing.coming + standing.stuck + 1
        known = {*self.members, *self.listed, *self.ordered}

        def suffices(listed: Sequence[Listed]) -> bool:
            counted = [each.task for each in listed if self.counts(each)]
            return len(counted) >= wanted or not known.issuperset(counted)

        return suffices

    def choose(self, model: str, key: int, tried: Collection[str]) -> Member | None:
        """The instance for a conversation; None if none serves the model now."""
        found = [m for m in self.members.values() if m.has(model) and m.task not in tried]
        choices = [Choice(m.task, m.models[model].slots, m.load, m.resident(model)) for m in found]
        task = choose(key, choices)
        return None if task is None else self.members[task]

    async def change(self, timeout: float, caller: Caller, since: float) -> None:
        """Wait until anything has changed, or for `timeout` seconds. `since`: when this request
        began to wait."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[future] = Waits(caller, since, future)
        try:
            await asyncio.wait({future}, timeout=timeout)
        finally:
            del self._waiting[future]

    def tell(self) -> None:
        """Something has changed: whoever waits looks again. Where an instance serves they go to it
        in turns between callers, and those who came first do not take all of its slots."""
        waiting = [each for each in self._waiting.values() if not each.future.done()]
        slots = self.slots
        for each in in_turns(waiting, slots) if slots else waiting:
            each.future.set_result(None)

    def update(self, listed: Sequence[Listed]) -> None:
        """What the server lists of this route now."""
        living = [each for each in listed if each.fresh or self._answers(each)]
        serving = {each.task: each for each in living if each.serves}
        to_come = (each for each in living if not each.serves and self._ordered_by_a_door(each))
        self.listed = {each.task: each for each in to_come}
        for task, each in serving.items():
            known = self.members.get(task)
            if known is None or known.listed.address != each.address:
                if known is not None:
                    known.retire()
                self.members[task] = Member(each, self._secret)
                self.changed = clock.now()
        for task in self.members.keys() - serving.keys():
            self.members.pop(task).retire()
            self.changed = clock.now()
        self.coming = {task: told for task, told in self.coming.items() if task in self.listed}
        self.tell()

    def _answers(self, listed: Listed) -> bool:
        """After an outage of the server all signs of life are old."""
        member = self.members.get(listed.task)
        return member is not None and member.alive

    def on_the_way(self) -> str:
        """What those are told that wait, for people."""
        told = [each.text for each in self.coming.values()]
        told += [
            f"task {m.task} is {m.state or 'starting'}" for m in self.members.values() if m.comes
        ]
        told += [m.problem for m in self.members.values() if m.problem]
        if self.ordering:
            told.append("an instance is being ordered")
        return "; ".join(told) or self.problem

    def retire(self) -> None:
        """The route is no more."""
        for member in self.members.values():
            member.retire()
        self.tell()
