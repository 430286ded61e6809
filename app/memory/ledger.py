"""The ledger: one row a model, what others see of it, and the memory that all share."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Generic, NamedTuple, Protocol, TypeVar

from app.memory.line import Line
from app.memory.moves import Moves
from app.memory.residency import Doing, Resident
from app.memory.seat import SlotState
from app.memory.stages import Stages
from app.memory.turns import Stage, Standing
from app.planning.amounts import HOST, Need


class Tier(enum.Enum):
    """Where a model's weights are at hand; `GPU` on a machine that has one, else `RAM`."""

    GPU = "gpu"
    RAM = "ram"
    DISK = "disk"
    NONE = "none"


class Loadable(Protocol):
    """One llama-server, or what is kept of it while it is away; the real one is in `tiers`."""

    stages: Stages  # of its switches

    @property
    def progress(self) -> float | None: ...

    @property
    def template(self) -> int | None:
        """Bytes that its chat template adds to a conversation; None if that is not known."""

    def expect(self) -> None:
        """It is to serve soon: what takes nobody's memory may begin."""

    async def start(self) -> Tier:
        """Return once it serves; the tier from which it came. Raises LoadError."""

    async def leave(self) -> Tier:
        """Leave the GPU and keep what can be kept. Returns the tier where it is now."""

    async def leave_for_disk(self) -> Tier:
        """Leave GPU and CPU RAM, parked or not, and keep what can be kept."""

    async def stop(self) -> None:
        """End the process and keep nothing."""

    def forget(self) -> None:
        """On disk: what is kept of its KV caches is not to be restored."""

    def parked_size(self) -> int:
        """Bytes of CPU RAM that it takes while it is away, or would take; 0 if it takes none."""

    async def exited(self) -> int:
        """Wait for the end of its process; the exit status, negative for a signal."""

    def explain(self, code: int) -> str:
        """Why its process ended with this status, for a person."""

    async def slots(self) -> Sequence[SlotState] | None:
        """What its slots show now; None if it does not tell."""

    async def measure(self) -> None:
        """Measure what its process uses now."""

    def usage(self) -> Need:
        """Bytes that it uses, by device, as last measured; empty while it is away, or where they
        cannot be measured."""

    def took(self, sizes: Need) -> None:
        """Learn how many bytes of each device were free before it came and are not now. Called only
        when no other model came or left meanwhile."""


@dataclass(frozen=True)
class Free:
    """Reads how much memory nobody uses now."""

    gpus: Callable[[], Need] = dict  # bytes by GPU, where the driver tells
    # Bytes of CPU RAM that parked models may still take. None: models serve from there, too, and
    # those that are parked may take what is left of the budget.
    ram: Callable[[], int] | None = None


NOT_KNOWN = Free()
NOTHING: Need = MappingProxyType({})
NO_TIME: Mapping[str, float] = MappingProxyType({})
NO_MOVES = Moves()
Upstream = TypeVar("Upstream")


class ModelState(enum.Enum):
    PENDING = "pending"
    DOWNLOADING = "downloading"
    COLD = "cold"
    LOADING = "loading"
    READY = "ready"
    PARKING = "parking"
    PARKED = "parked"
    WAKING = "waking"
    STOPPING = "stopping"
    FAILED = "failed"


FAILURES_TO_GIVE_UP = 5

# Models on their way into memory, and out of it.
COMING = (ModelState.LOADING, ModelState.WAKING)
LEAVING = (ModelState.PARKING, ModelState.STOPPING)
MOVING = (*COMING, *LEAVING)
STAGES = {
    ModelState.READY: Stage.HERE,
    **dict.fromkeys(COMING, Stage.COMING),
    **dict.fromkeys(LEAVING, Stage.LEAVING),
}


class View(NamedTuple):
    """What everybody outside `memory` may know of a model. (A tuple: many are made.)"""

    name: str
    state: ModelState
    tier: Tier
    reason: str = ""
    progress: float | None = None
    admitted: int = 0
    leased: int = 0
    requests: int = 0
    denied: int = 0
    last_used: float = 0.0
    gave_up: float = 0.0  # when a request last waited in vain
    waiting: int = 0
    switches: int = 0
    pinned: bool = False
    unused: bool = False  # that is the reason why it is not in memory
    need: Mapping[str, int] = NOTHING
    reserved: int = 0  # tokens of its KV cache
    kv_usage: float | None = None  # how much of what requests can be given is given, 0 to 1
    stages: Mapping[str, float] = NO_TIME  # seconds of its switches, by stage
    moves: Moves = NO_MOVES


@dataclass(eq=False)
class Model(Generic[Upstream]):
    """One model's row in the ledger. Only the pool and its loads write it."""

    name: str
    limit: int | None = None  # Max Concurrent Requests
    priority: int = 0
    pinned: bool = False
    ttl: float | None = None  # seconds without a request, after which it leaves; None: it stays
    need: Mapping[str, int] = field(default_factory=dict)  # bytes by device
    server: Loadable | None = None
    upstream: Upstream | None = None
    state: ModelState = ModelState.PENDING
    tier: Tier = Tier.NONE
    reason: str = ""  # of a failure
    unused: str = ""  # for how long, where it has left for that
    progress: float | None = None
    admitted: int = 0  # requests between admission and their last byte
    requests: int = 0  # that have ended
    denied: int = 0  # 429
    switches: int = 0  # how often it was brought into memory
    failures: int = 0  # in a row, without a request served
    retry_at: float = 0.0
    here_since: float = 0.0
    was_parked: bool = False  # when it began to leave
    held: int = 0  # bytes of CPU RAM that it has, while it leaves, until it is gone
    held_back_since: float | None = None  # its new requests wait, so that it can leave
    last_turn: float = 0.0  # seconds of the last one that has ended
    has_left: bool = False
    leave_cost: float = 0.0  # seconds that leaving took the last time
    come_cost: float = 0.0  # seconds that coming took the last time
    woke: bool = False  # it came from CPU RAM that time
    try_cost: float = 0.0  # the same of the last try, with the way back of those that left for it
    line: Line = field(default_factory=Line)
    moves: Moves = field(default_factory=Moves)
    coming: asyncio.Task[None] | None = None
    leaving: asyncio.Task[None] | None = None
    watch: asyncio.Task[None] | None = None

    @property
    def given_up(self) -> bool:
        """Whether it failed too often in a row, or its set-up failed, so that it never comes."""
        never_comes = self.state is ModelState.FAILED and self.server is None
        return never_comes or self.failures >= FAILURES_TO_GIVE_UP

    # How others see it.

    def standing(self, *, shared: bool = False) -> Standing:
        """As `turns` decides from it; `shared`: models serve from the memory where others are
        parked."""
        parked = self.was_parked and self.state in LEAVING
        return Standing(
            name=self.name,
            need={HOST: self.held} if parked else self.need,
            stage=STAGES.get(self.state, Stage.AWAY),
            leased=self.line.leased,
            waiting_since=self.line.waiting_since,
            waiting=self.line.waiting,
            turn=self.turn(),
            hog=self.line.hog,
            priority=self.priority,
            pinned=self.pinned,
            last_used=self.line.last_used,
            here_since=self.here_since,
            switch_cost=self.switch_cost(),
            gap=self.line.gap,
            ttl=self.ttl,
            parked=shared and self.state is ModelState.PARKED,
            held_since=self.held_back_since,
        )

    def turn(self) -> float:
        """For how many seconds it last served without an idle moment, since it came. After an idle
        moment, the turn before it counts until a request has ended."""
        if self.state is not ModelState.READY:
            return self.last_turn
        since, until = self.line.busy_since, self.line.last_used
        if until < since:
            since, until = self.line.busy_before
        return max(0.0, until - max(self.here_since, since))

    def switch_cost(self) -> float:
        """Seconds that leaving and coming back took the last time. The way back from CPU RAM of one
        that came from disk before is taken to be as long as its way there. One that has never left,
        and may go there, costs nothing until its first trip has told."""
        parked = self.state in (ModelState.PARKED, ModelState.WAKING)
        here = self.server if self.state is ModelState.READY and not self.has_left else None
        if (parked and not self.woke) or (here is not None and here.parked_size() > 0):
            return 2 * self.leave_cost
        return self.leave_cost + self.come_cost

    def in_ram(self) -> Resident:
        """As a resident of CPU RAM; at work while requests wait for it (it leaves then anyway), and
        while it is pinned."""
        need = {HOST: self.server.parked_size() if self.server is not None else 0}
        return Resident(
            name=self.name,
            need=need,
            doing=Doing.WORKS if self.line.waiting > 0 or self.pinned else Doing.RESTS,
            last_used=self.line.last_used,
            priority=self.priority,
        )

    def ram_taken(self) -> int:
        """Bytes of CPU RAM that it takes once its move has ended, where models serve from there."""
        if self.state is ModelState.READY or self.state in COMING:
            return self.need.get(HOST, 0)
        parked = self.state in (ModelState.PARKING, ModelState.PARKED)
        return self.server.parked_size() if parked and self.server is not None else 0

    def ram_held(self) -> int:
        """The same now, at most: who leaves has all of his until he is gone."""
        return self.held if self.state in LEAVING else self.ram_taken()

    def begins_to_leave(self) -> None:
        """What it has now, and how it was, is kept until it is gone."""
        self.ends_turn()
        if self.state is ModelState.READY:
            self.line.ends_turn()
        self.held, self.was_parked = self.ram_taken(), self.state is ModelState.PARKED

    def ends_turn(self) -> None:
        """Before it is READY no more."""
        self.last_turn = self.turn()

    def view(self) -> View:
        progress = self.progress
        if self.state in COMING and self.server is not None:
            progress = self.server.progress
        budget = self.line.budget
        # Of one that is away nobody asks whether it still works for those that have left.
        away = self.state is not ModelState.READY and not self.line.leased
        usage = budget.usage
        return View(
            name=self.name,
            state=self.state,
            tier=self.tier,
            reason=self.reason or self.unused,
            progress=progress,
            admitted=self.admitted,
            leased=self.line.seated,
            requests=self.requests,
            denied=self.denied,
            last_used=self.line.last_used,
            gave_up=self.line.gave_up,
            waiting=self.line.waiting,
            switches=self.switches,
            pinned=self.pinned,
            unused=bool(self.unused and not self.reason),
            need=self.need,
            reserved=0 if away else budget.used,
            kv_usage=0.0 if away and usage is not None else usage,
            stages=self.server.stages.seconds if self.server is not None else NO_TIME,
            moves=self.moves,
        )


class Ledger(Generic[Upstream]):
    """All rows, and the memory that the models share. Only the pool and its loads write it."""

    def __init__(
        self,
        models: Iterable[Model[Upstream]],
        budget: Need,
        clock: Callable[[], float],
        resident_tier: Tier = Tier.RAM,
        free: Free = NOT_KNOWN,
    ) -> None:
        """`budget` in bytes by device. `clock` gives seconds that only grow. `resident_tier` is
        where a model's weights lie while it serves."""
        self._models = {model.name: model for model in models}
        self.budget = budget
        self.now = clock
        self.resident_tier = resident_tier
        self.free = free
        self.closed = False  # the drain has begun: nothing is loaded any more
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def __getitem__(self, name: str) -> Model[Upstream]:
        return self._models[name]

    def __iter__(self) -> Iterator[Model[Upstream]]:
        return iter(self._models.values())

    def __len__(self) -> int:
        return len(self._models)

    def standings(self) -> list[Standing]:
        return [model.standing(shared=self.shared) for model in self if model.server]

    @property
    def shared(self) -> bool:
        """Models serve from the memory where others are parked: there is no GPU."""
        return self.free.ram is None

    def others(self, model: Model[Upstream]) -> list[Model[Upstream]]:
        return [other for other in self if other is not model]

    def ram_left(self, leaving: Model[Upstream]) -> int:
        """Bytes of CPU RAM that parked models may still take beside this one, which is `leaving`,
        once all moves under way have ended."""
        if self.free.ram is not None:
            return self.free.ram()
        return self.budget.get(HOST, 0) - sum(m.ram_taken() for m in self.others(leaving))

    def ram_lacking(self) -> tuple[int, int]:
        """Bytes of CPU RAM that are lacking for all models together: now, with what comes and what
        has not left yet, and once all moves under way have ended. 0 where models do not serve from
        there, or nothing is lacking."""
        if not self.shared:
            return 0, 0
        budget = self.budget.get(HOST, 0)
        held, taken = sum(m.ram_held() for m in self), sum(m.ram_taken() for m in self)
        return max(0, held - budget), max(0, taken - budget)

    def note_moves(self) -> None:
        """Keep every change of a model's state."""
        for model in self:
            if model.moves.last != (model.state, model.tier):
                model.moves.note(self.now(), model.state, model.tier)

    def lose_if_given_up(self, reason: str) -> None:
        """Where no model can be served any more. If not one was set up, bring-up says so itself."""
        if all(m.given_up for m in self) and any(m.failures >= FAILURES_TO_GIVE_UP for m in self):
            never = ", or will never come" if any(m.server is None for m in self) else ""
            self.lose(f"every model failed {FAILURES_TO_GIVE_UP} times{never}: {reason}")

    def lose(self, reason: str) -> None:
        """The instance cannot go on."""
        if not self.lost.done():
            self.lost.set_result(reason)
