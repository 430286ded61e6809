"""Where a model goes when it leaves, and how it comes back: GPU, CPU RAM, disk.

To CPU RAM by the CUDA checkpoint calls, where this machine can (`memory.checkpoint`): the process
stays, its KV cache too. Else the process ends: its weights stay in the page cache, so that coming
back is a warm load, and its KV cache is written to files and read again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Protocol

from app.console import ModelLogger
from app.engine.server import LlamaServer
from app.memory.kv import Slots
from app.memory.ledger import Tier
from app.planning.amounts import GIB, HOST

logger = logging.getLogger(__name__)

FAR_OFF = 1.5  # times what was predicted


class Parking(Protocol):
    """Who moves a process's GPU memory to CPU RAM and back."""

    async def park(self, pid: int, held: Mapping[str, int]) -> None:
        """`held` in bytes by GPU. Raises NoRoomError where host memory is short, with the
        process as it was; ParkingError, and then the process is of no use any more."""

    async def restore(self, pid: int) -> None:
        """Raises ParkingError; the process is then of no use any more."""


class ParkingError(Exception):
    pass


class NoRoomError(ParkingError):
    """Found before anything was moved: the process is as it was."""


class Tiered:
    """One model's llama-server, wherever it is: what the pool calls a server."""

    def __init__(
        self,
        server: LlamaServer,
        slots: Slots | None,
        parking: Parking | None,
        measure: Callable[[], Mapping[str, int]],
        predicted: Mapping[str, int] | None = None,
        learn: Callable[[Mapping[str, int]], None] = lambda _: None,
    ) -> None:
        """`parking` where this machine can; `measure` tells what the process holds now, by device,
        `predicted` what was expected of it: the larger of both has to move when it is parked.
        `learn` is told what was seen to go when it came."""
        self.server = server
        self.slots = slots
        self._parking = parking
        self._measure = measure
        self._parked: Mapping[str, int] | None = None  # what of each GPU lies in CPU RAM
        self._predicted = predicted or {}
        self._learn = learn
        self._log = ModelLogger(logger, server.process.name)

    @property
    def progress(self) -> float | None:
        return self.server.progress

    async def start(self) -> None:
        if self._parked is not None:
            self._parked = None
            assert self._parking is not None
            try:
                await self._parking.restore(self.server.process.pid)
                return
            except ParkingError as error:
                self._log.warning("did not come back from CPU RAM, is started anew: %s", error)
                await self._kill()
        await self.server.start()
        if self.slots is not None:
            await self.slots.restore()

    async def leave(self) -> Tier:
        if self._parking is not None:
            self.server.client.close()
            held = self._on_devices()
            try:
                await self._parking.park(self.server.process.pid, held)
                self._parked = held
                return Tier.RAM
            except NoRoomError as error:
                self._log.info("goes to disk: %s", error)
            except ParkingError as error:
                self._log.warning("could not be moved to CPU RAM, is stopped: %s", error)
                await self._kill()
                return Tier.DISK
        if self.slots is not None:
            await self.slots.save()
        await self.server.stop()
        return Tier.DISK

    def parks(self) -> int:
        if self._parking is None:
            return 0
        return sum((self._on_devices() if self._parked is None else self._parked).values())

    def _on_devices(self) -> Mapping[str, int]:
        held = {**self._predicted, **self._measure()}
        larger = {d: max(size, self._predicted.get(d, 0)) for d, size in held.items()}
        return {device: size for device, size in larger.items() if device != HOST}

    async def stop(self) -> None:
        if self._parked is not None:
            await self._kill()
        else:
            await self.server.stop()

    async def _kill(self) -> None:
        """A process whose GPU memory is elsewhere answers nothing, not even SIGTERM."""
        self._parked = None
        self.server.client.close()
        self.server.process.kill()
        await self.server.exited()

    async def exited(self) -> int:
        return await self.server.exited()

    def explain(self, code: int) -> str:
        return self.server.explain(code)

    def measured(self) -> Mapping[str, int]:
        here = self.server.process.running and self._parked is None
        return self._measure() if here else {}

    def took(self, sizes: Mapping[str, int]) -> None:
        """Where another program came in the same moment, that is no model of this size."""
        expected = {device: size for device, size in self._predicted.items() if device != HOST}
        seen = {device: sizes[device] for device in expected if sizes.get(device, 0) > 0}
        if seen and all(size <= FAR_OFF * expected[device] + GIB for device, size in seen.items()):
            self._learn(seen)
