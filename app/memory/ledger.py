"""The rows of the pool's ledger, and what others see of them."""

from __future__ import annotations

import asyncio
import enum
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar


class Tier(enum.Enum):
    """Where a model's weights are at hand; `GPU` on a machine that has one, else `RAM`."""

    GPU = "gpu"
    RAM = "ram"
    DISK = "disk"
    NONE = "none"


class Server(Protocol):
    """One llama-server and what is kept of it while it is away; memory.tiers has the real one."""

    @property
    def progress(self) -> float | None: ...

    async def start(self) -> None:
        """Be ready to serve, from wherever it was. Raises LoadError."""

    async def leave(self) -> Tier:
        """Give its place up, keeping what can be kept; where it went."""

    async def stop(self) -> None:
        """End, keeping nothing."""

    def parks(self) -> int:
        """Bytes of CPU RAM that it takes while it is away, or would; 0 where it takes none."""

    async def exited(self) -> int: ...

    def explain(self, code: int) -> str: ...

    def measured(self) -> Mapping[str, int]:
        """Bytes that it holds now, by device; nothing where there is no knowing."""

    def took(self, sizes: Mapping[str, int]) -> None:
        """Bytes by device that were free before it came, and are not now; nobody else of us came
        or went meanwhile."""


@dataclass(frozen=True)
class Free:
    """Bytes that nobody holds now, read anew each time: by GPU, where that is known, and those of
    CPU RAM that parked models may still take."""

    gpus: Callable[[], Mapping[str, int]] = dict
    ram: Callable[[], int] = int


NOT_KNOWN = Free()
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


# Who holds memory, and who comes to.
COMING = (ModelState.LOADING, ModelState.WAKING)
LEAVING = (ModelState.PARKING, ModelState.STOPPING)


@dataclass(eq=False)
class Waiter:
    """A request that waits for its model since `since`; granted, or refused with an exception."""

    since: float
    granted: asyncio.Future[None]


@dataclass
class Model(Generic[Upstream]):
    """One model's row in the ledger. Only the pool writes it."""

    name: str
    limit: int | None = None  # Max Concurrent Requests
    priority: int = 0
    pinned: bool = False
    need: Mapping[str, int] = field(default_factory=dict)  # bytes by device
    server: Server | None = None
    upstream: Upstream | None = None
    state: ModelState = ModelState.PENDING
    tier: Tier = Tier.NONE
    reason: str = ""
    progress: float | None = None
    admitted: int = 0  # requests between admission and their last byte
    leased: int = 0  # requests that hold the model
    requests: int = 0
    denied: int = 0
    switches: int = 0  # how often it was brought into memory
    failures: int = 0  # in a row, without a request served
    retry_at: float = 0.0
    last_used: float = 0.0
    here_since: float = 0.0
    leave_cost: float = 0.0  # seconds, as last measured
    come_cost: float = 0.0
    gap: float | None = None  # seconds from its last idle moment to the request after it
    waiters: deque[Waiter] = field(default_factory=deque)
    coming: asyncio.Task[None] | None = None
    leaving: asyncio.Task[None] | None = None
    watch: asyncio.Task[None] | None = None


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
    waiting: int = 0
    switches: int = 0
    pinned: bool = False
    need: Mapping[str, int] = field(default_factory=dict)
