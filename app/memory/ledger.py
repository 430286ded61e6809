"""The rows of the pool's ledger, and what others see of them."""

from __future__ import annotations

import asyncio
import enum
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar


class Server(Protocol):
    """One llama-server process, as engine.process.Process is."""

    @property
    def progress(self) -> float | None: ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def exited(self) -> int: ...

    def explain(self, code: int) -> str: ...


Upstream = TypeVar("Upstream")


class ModelState(enum.Enum):
    PENDING = "pending"
    DOWNLOADING = "downloading"
    COLD = "cold"
    LOADING = "loading"
    READY = "ready"
    STOPPING = "stopping"
    FAILED = "failed"


class Tier(enum.Enum):
    """Where a model's weights are at hand; `GPU` on a machine that has one, else `RAM`."""

    GPU = "gpu"
    RAM = "ram"
    DISK = "disk"
    NONE = "none"


@dataclass
class Model(Generic[Upstream]):
    """One model's row in the ledger. Only the pool writes it."""

    name: str
    limit: int | None = None  # Max Concurrent Requests
    size: int = 0
    server: Server | None = None
    upstream: Upstream | None = None
    state: ModelState = ModelState.PENDING
    reason: str = ""
    progress: float | None = None
    admitted: int = 0  # requests between admission and their last byte
    leased: int = 0  # requests that hold the model
    requests: int = 0
    denied: int = 0
    failures: int = 0  # in a row, without a request served
    retry_at: float = 0.0
    last_used: float = 0.0
    loading: asyncio.Task[None] | None = None
    evicting: bool = False
    available: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True)
class View:
    """What everybody else may know of a model."""

    name: str
    state: ModelState
    tier: Tier
    reason: str
    progress: float | None
    admitted: int
    leased: int
    requests: int
    denied: int
    last_used: float
