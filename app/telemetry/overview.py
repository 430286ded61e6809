"""The instance as it is seen from outside: phase, models, endpoint, idle time. Knows no page."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone

from app.machine import clock
from app.machine.gpu import Device
from app.memory.ledger import ModelState, Tier, View
from app.planning.amounts import HOST
from app.telemetry.idle import idle_for
from app.telemetry.readings import Held, Readings

SERVABLE = (
    ModelState.READY,
    ModelState.COLD,
    ModelState.PARKING,
    ModelState.PARKED,
    ModelState.WAKING,
)


class Phase(enum.Enum):
    SETTING_UP = "setting up"
    SERVING = "serving"
    STOPPING = "stopping"


@dataclass
class Details:
    """What the set-up found out of one model; `memory` tells what it holds now, each GPU by
    llama-server's name for it and only where the driver says it; `cache` are the bytes of what it
    is counted with that prompts may come to take."""

    reference: str = ""
    context: int | None = None
    slots: int | None = None
    endpoint: str = ""
    embedding: bool = False
    placed: str = ""  # where its memory lies, for people
    cache: int = 0
    memory: Callable[[], Held] = Held


@dataclass
class Overview:
    """The instance, as it is seen from outside. Only instance.py writes it.

    `idle_limit` and `active_for` (how long after a request the status stays active) in seconds;
    `host` tells how many bytes of host memory are used, and how many there are. What is said of
    memory is the last of the `readings`.
    """

    version: str
    models: dict[str, Details]
    idle_limit: float | None
    active_for: float
    devices: Callable[[], Sequence[Device]]
    view: Callable[[], Sequence[View]]
    host: Callable[[], tuple[int, int]]
    phase: Phase = Phase.SETTING_UP
    endpoint: str = ""
    begun: float = field(default_factory=lambda: clock.now())
    begun_at: float = field(default_factory=lambda: clock.wall())
    serving_since: float = field(default_factory=lambda: clock.now())
    readings: Readings = field(default_factory=Readings)

    def memory(self, view: View) -> Held:
        """What a model holds now, each GPU by its `id`; what it is counted with where the driver
        does not say that (in containers it does not)."""
        held = self.models[view.name].memory()
        gpu = held.gpu
        if not gpu and view.tier is Tier.GPU:
            gpu = {device: size for device, size in view.need.items() if device != HOST}
        ids = {device.cuda: device.id for device in self.devices()}
        return Held({ids.get(name, name): size for name, size in gpu.items()}, held.host)

    def idle(self, now: float) -> float:
        """Seconds; nothing is idle that is not serving yet."""
        if self.phase is Phase.SETTING_UP:
            return 0.0
        return idle_for(self.view(), self.serving_since, now)

    def status(self, now: float) -> str:
        if self.phase is not Phase.SERVING:
            return str(self.phase.value)
        return "active" if self.idle(now) < self.active_for else "idle"


def last_activity(overview: Overview, now: float) -> datetime:
    last = overview.begun_at + (now - overview.begun) - overview.idle(now)
    return datetime.fromtimestamp(last, timezone.utc)
