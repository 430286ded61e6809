"""The state of the instance that others show: phase, models, endpoint, idle time. It does not know
who shows it."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone

from app.machine import clock
from app.machine.gpu import Device
from app.memory.ledger import ModelState, Tier, View
from app.planning.amounts import HOST
from app.telemetry.callers import ByCaller
from app.telemetry.idle import idle_for
from app.telemetry.keeps import Keeps
from app.telemetry.readings import MemoryUse, Readings
from app.telemetry.speculation import Speculation

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
    """What the set-up found out about one model. `memory` reads what it uses now: GPUs by
    llama-server's name for them, and only if the driver reports them. `cache` is that part of its
    footprint, in bytes, that cached prompts may fill later. `meta` is what llama-server's
    /v1/models says of the model, in its words."""

    reference: str = ""
    context: int | None = None
    slots: int | None = None
    endpoint: str = ""
    embedding: bool = False
    placed: str = ""  # where its memory lies, for people
    cache: int = 0
    multimodal: bool = False  # it has a projector
    speculation: Speculation | None = None  # where tokens are guessed in advance
    aliases: tuple[str, ...] = ()
    meta: Callable[[], Mapping[str, object]] = dict
    memory: Callable[[], MemoryUse] = MemoryUse


@dataclass
class Overview:
    """The state of the instance. Only the modules of app/instance write it.

    `idle_limit` and `active_for` (how long after a request the status stays active) in seconds;
    `host` reads the used and the total bytes of host memory. All sizes are those of the last of the
    `readings`.
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
    by_caller: ByCaller | None = None  # with a keys file
    keeps: Keeps = field(default_factory=Keeps)

    @property
    def names(self) -> dict[str, str]:
        """Every name by which callers may choose a model, and that model's endpoint name: in the
        form's order, a model's endpoint name before its aliases."""
        models = self.models.items()
        return {each: name for name, model in models for each in (name, *model.aliases)}

    def memory(self, view: View) -> MemoryUse:
        """What a model uses now, GPUs by their `id`. If the driver does not report it (in
        containers it does not), its footprint stands for it."""
        use = self.models[view.name].memory()
        gpu = use.gpu
        if not gpu and view.tier is Tier.GPU:
            gpu = {device: size for device, size in view.need.items() if device != HOST}
        if not gpu:
            return MemoryUse(host=use.host)
        ids = {device.cuda: device.id for device in self.devices()}
        return MemoryUse({ids.get(name, name): size for name, size in gpu.items()}, use.host)

    def idle(self, now: float) -> float:
        """Seconds; 0 during set-up."""
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
