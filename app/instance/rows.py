"""From a plan to what an instance is made of: the pool's rows, the overview, the KV folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from app import __version__
from app.engine.http import Client
from app.form.settings import Settings, names_of
from app.machine import clock, gpu, host, private
from app.machine.gpu import Device
from app.memory.ledger import Free, Model, Tier, View
from app.memory.pool import BOUND, Pool
from app.planning.amounts import HOUR, MINUTE, together
from app.planning.candidate import Candidate
from app.planning.plan import Plan
from app.telemetry.overview import Details, Overview
from app.telemetry.readings import Readings

AGENT_IDLE_LIMIT = 24.0  # hours, where the form says none
KV_ROOM = 8 << 30  # bytes free in a memory file system, for KV caches of models that are away


def pool_of(settings: Settings, plan: Plan) -> Pool[Client]:
    rows: list[Model[Client]] = [
        Model(
            model.name,
            limit=model.settings.max_concurrent_requests,
            priority=model.settings.priority,
            pinned=model.settings.pin,
            ttl=None if model.settings.ttl is None else model.settings.ttl * MINUTE,
        )
        for model in plan.models
    ]
    on_gpus = bool(plan.capabilities.devices)
    free_ram = (lambda: host.memory_free() - plan.reserve) if on_gpus else None
    return Pool(
        rows,
        plan.budget,
        lambda: clock.now(),
        resident_tier=Tier.GPU if on_gpus else Tier.RAM,
        bound=min(BOUND, settings.general.wait_timeout / 2),
        free=Free(gpu.free, free_ram),
    )


def overview_of(settings: Settings, plan: Plan, pool: Pool[Client], under_agent: bool) -> Overview:
    hours = settings.idle.idle_time_limit
    if hours is None and under_agent:
        hours = AGENT_IDLE_LIMIT
    readings = Readings()
    return Overview(
        __version__,
        {m.name: _details(m) for m in plan.models},
        idle_limit=hours * HOUR if hours else None,
        active_for=settings.idle.last_action_interval,
        devices=lambda: devices(plan, pool.view, readings.latest().devices),
        view=pool.view,
        host=lambda: readings.latest().host,
        readings=readings,
    )


def _details(model: Candidate) -> Details:
    settings = model.settings
    return Details(
        model.label,
        aliases=names_of(settings)[1:],
        embedding=settings.embedding,
        multimodal=bool(settings.mmproj),
    )


def devices(
    plan: Plan, view: Callable[[], Sequence[View]], read: Sequence[Device]
) -> Sequence[Device]:
    """The GPUs as they were `read` from the driver. NVIDIA's driver knows no others: those are told
    as llama-server listed them, with what models count for as the only use."""
    if read:
        return read
    here = together([each.need for each in view() if each.tier is Tier.GPU])
    listed = plan.capabilities.device_memory
    return [Device(name, name, "", here.get(name, 0), size) for name, size in listed.items()]


def kv_folder(plan: Plan, ours: Path, create: Callable[[Path], private.PrivateFolder]) -> Path:
    """Where the KV caches of models that are away lie: in memory if there is a file system for it
    with room to spare, else on the disk, in a folder that is removed with us."""
    if not plan.sharing or host.in_memory(ours, KV_ROOM):
        return ours / "kv"
    parent = plan.store.cache / "kv"
    parent.mkdir(parents=True, exist_ok=True)
    return create(parent).path
