"""The tiers: where a model goes when it leaves the GPU, and how it comes back.

A new tier is one row of `TIERS` and one mover.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from app.console import ModelLogger
from app.engine.server import LlamaServer
from app.machine.deadline import within
from app.memory.checkpoint import Checkpoints
from app.memory.kv import Slots, state_of
from app.memory.ledger import Tier
from app.memory.mover import MoveError, Mover, NoRoomError
from app.memory.seat import SlotState
from app.memory.stages import Stages, SwitchStage
from app.planning.amounts import GIB, HOST, Need

logger = logging.getLogger(__name__)

FAR_OFF = 1.5  # times what was predicted
PATIENCE = 5.0  # seconds for a measurement


@dataclass(frozen=True)
class Parts:
    """What movers work with, for one model: its llama-server, the KV caches of its slots (if they
    are kept), and CUDA checkpoints (if this machine can make them). `private`: how many bytes of
    host memory its process has for itself, as last measured (0: that is not known); only where
    there is no GPU, and a model may stay in CPU RAM while it is away."""

    server: LlamaServer
    slots: Slots | None = None
    checkpoints: Checkpoints | None = None
    private: Callable[[], int] | None = None
    stages: Stages = field(default_factory=Stages)


class ByCheckpoint:
    """The process stays, and the CUDA driver keeps its GPU memory in CPU RAM, KV cache included."""

    def __init__(self, parts: Parts) -> None:
        assert parts.checkpoints is not None
        self._server = parts.server
        self._checkpoints = parts.checkpoints
        self._stages = parts.stages

    @staticmethod
    def may_take(parts: Parts, gpus: int) -> bool:
        return parts.checkpoints is not None and gpus <= parts.checkpoints.most_gpus

    @staticmethod
    def takes(_parts: Parts, usage: Need) -> int:
        return sum(usage.values())

    async def leave(self, usage: Need) -> None:
        self._server.client.close()
        with self._stages.timed(SwitchStage.PARK):
            await self._checkpoints.park(self._server.process.pid, usage)

    async def back(self, usage: Need) -> None:
        with self._stages.timed(SwitchStage.WAKE):
            await self._checkpoints.restore(self._server.process.pid, usage)

    async def end(self) -> None:
        """With SIGKILL: a process whose GPU memory is elsewhere does not react to SIGTERM."""
        self._server.client.close()
        self._server.process.kill()
        await self._server.exited()


class ByStaying:
    """On a machine without a GPU, the process stays as it is, and serves nobody. It keeps what it
    has of host memory for itself, KV cache included. Its weights are pages of its files: the
    operating system takes them where it needs the room, and then they are read ahead as the model
    comes back."""

    def __init__(self, parts: Parts) -> None:
        self._server = parts.server
        self._stages = parts.stages

    @staticmethod
    def may_take(parts: Parts, _gpus: int) -> bool:
        return ByStaying.takes(parts, {}) > 0

    @staticmethod
    def takes(parts: Parts, _usage: Need) -> int:
        return parts.private() if parts.private is not None else 0

    async def leave(self, _usage: Need) -> None:
        with self._stages.timed(SwitchStage.PARK):
            self._server.expect_no_more()

    async def back(self, _usage: Need) -> None:
        with self._stages.timed(SwitchStage.WAKE):
            await self._server.start()  # it runs: this only finds out that it does

    async def end(self) -> None:
        """With SIGKILL: nothing is lost, and another model waits for its memory."""
        self._server.expect_no_more()
        self._server.client.close()
        self._server.process.kill()
        await self._server.exited()


class ByRestart:
    """The process ends. Its weights stay in the page cache, so that it starts again soon; its KV
    caches are saved to files and restored."""

    def __init__(self, parts: Parts) -> None:
        self._server = parts.server
        self._slots = parts.slots
        self._stages = parts.stages

    async def leave(self, _usage: Need) -> None:
        if self._slots is not None:
            with self._stages.timed(SwitchStage.SAVE):
                await self._slots.save()
        with self._stages.timed(SwitchStage.END):
            await self._server.stop()

    async def back(self, _usage: Need) -> None:
        before = None if self._slots is None else self._slots.which()
        with self._stages.timed(SwitchStage.START):
            await self._server.start()
        if self._slots is not None:
            self._slots.loaded(before)
            with self._stages.timed(SwitchStage.RESTORE):
                await self._slots.restore()

    async def end(self) -> None:
        await self._server.stop()


@dataclass(frozen=True)
class TierRow:
    """One tier: its title for a person, the mover that takes a model there and back, and whether a
    model on so many GPUs may go there. `takes`: how many bytes of CPU RAM a model takes there that
    uses so much of the GPUs. `frozen`: its process does nothing there, and needs no file to come
    back."""

    tier: Tier
    title: str
    mover: Callable[[Parts], Mover]
    may_take: Callable[[Parts, int], bool]
    takes: Callable[[Parts, Need], int] = lambda parts, usage: 0
    frozen: bool = False


TIERS = (  # the fastest first; the last one takes every model
    TierRow(
        Tier.RAM,
        "CPU RAM",
        ByCheckpoint,
        ByCheckpoint.may_take,
        ByCheckpoint.takes,
        frozen=True,
    ),
    TierRow(Tier.RAM, "CPU RAM", ByStaying, ByStaying.may_take, ByStaying.takes),
    TierRow(Tier.DISK, "disk", ByRestart, lambda parts, gpus: True),
)


class Tiered:
    """One model in whatever tier it is: the `Loadable` of the ledger."""

    def __init__(
        self,
        parts: Parts,
        measure: Callable[[], Awaitable[Need]],
        predicted: Need | None = None,
        learn: Callable[[Need], None] = lambda _: None,
        tiers: Sequence[TierRow] = TIERS,
    ) -> None:
        """`measure` reads what the process uses now, by device; `predicted` is what it was expected
        to use: the larger of both must find room where it goes. `learn` is told what it was seen to
        take of each GPU when it came."""
        self.server = parts.server
        self.stages = parts.stages
        self._parts = parts
        self._measure = measure
        self._measured: Need = {}
        self._predicted = predicted or {}
        self._learn = learn
        self._tiers = tiers
        self._away: TierRow | None = None  # where it is or is being taken; None: on the GPU
        self._usage: Need = {}  # of each GPU, when it left
        self._log = ModelLogger(logger, parts.server.process.name)

    @property
    def template(self) -> int | None:
        return self.server.template

    @property
    def progress(self) -> float | None:
        return self.server.progress

    def expect(self) -> None:
        if self._away is None or not self._away.frozen:
            self.server.expect()

    async def start(self) -> Tier:
        if self._away is None or not self.server.process.running:
            self._away = self._tiers[-1]  # the process has ended by itself
        mover = self._away.mover(self._parts)
        try:
            await mover.back(self._usage)
        except MoveError as error:
            said = "did not come back from %s, is started anew: %s"
            self._log.warning(said, self._away.title, error)
            await mover.end()
            self._away = self._tiers[-1]
            await self._away.mover(self._parts).back(self._usage)
        came_from = self._away.tier
        self._away = None  # only now: if this is cancelled, `stop` must still take it for parked
        return came_from

    async def leave(self) -> Tier:
        self._usage, why = self._on_gpus(), ""
        for row in self._open():
            if why:
                self._log.info("goes to %s: %s", row.title, why)
            self._away = row
            mover = row.mover(self._parts)
            try:
                await mover.leave(self._usage)
                return row.tier
            except NoRoomError as error:
                why = str(error)
            except MoveError as error:
                self._log.warning("could not be moved to %s, is stopped: %s", row.title, error)
                await mover.end()
                break
        self._away = self._tiers[-1]  # the process has ended
        return self._away.tier

    def forget(self) -> None:
        if self._parts.slots is not None:
            self._parts.slots.drop()

    async def leave_for_disk(self) -> Tier:
        frozen = self._away is not None and self._away.frozen
        if frozen or not self.server.process.running:  # it can be asked nothing
            await self.stop()
            return Tier.DISK
        self._away = self._tiers[-1]
        await self._away.mover(self._parts).leave(self._usage)
        return self._away.tier

    def _open(self) -> list[TierRow]:
        """The tiers that may take it, by the GPUs that it was planned for. The process may show on
        others too, where it has only a context."""
        gpus = self._predicted.keys() - {HOST}
        return [row for row in self._tiers if row.may_take(self._parts, len(gpus))]

    def parked_size(self) -> int:
        if self._away is None:
            row, usage = self._open()[0], self._on_gpus()
        else:
            row, usage = self._away, self._usage
        return row.takes(self._parts, usage)

    def _on_gpus(self) -> Need:
        usage = {**self._predicted, **self._measured}
        larger = {d: max(size, self._predicted.get(d, 0)) for d, size in usage.items()}
        return {device: size for device, size in larger.items() if device != HOST}

    async def stop(self) -> None:
        await (self._away or self._tiers[-1]).mover(self._parts).end()
        self._away = self._tiers[-1]

    async def exited(self) -> int:
        return await self.server.exited()

    def explain(self, code: int) -> str:
        return self.server.explain(code)

    async def slots(self) -> Sequence[SlotState] | None:
        slots = await self.server.slots()
        try:
            return None if slots is None else [state_of(slot) for slot in slots]
        except (AttributeError, LookupError, TypeError):  # another shape, of another version
            return None

    async def measure(self) -> None:
        with contextlib.suppress(asyncio.TimeoutError):  # no model waits for a driver that hangs
            self._measured = await within(PATIENCE, self._measure())

    def usage(self) -> Need:
        return self._measured if self.server.process.running and self._away is None else {}

    def took(self, sizes: Need) -> None:
        """If far more went than was predicted, another program came in the same moment."""
        expected = {device: size for device, size in self._predicted.items() if device != HOST}
        seen = {device: sizes[device] for device in expected if sizes.get(device, 0) > 0}
        if seen and all(size <= FAR_OFF * expected[device] + GIB for device, size in seen.items()):
            self._learn(seen)
