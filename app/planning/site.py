"""Where models run: llama-server as it is here, and what all of them share of the machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from app.engine.capabilities import Capabilities
from app.engine.resolved import Wanted
from app.planning.amounts import Need
from app.planning.learned import Learned


@dataclass(frozen=True)
class Machine:
    """What `models` models share: `memory` of the host in bytes, and CPU threads. `at_once` of them
    can run at the same time; 0: that is not known yet, and it may be all of them.

    `headroom` is how many bytes of each GPU one model may take on the empty machine. Tensors of up
    to `threshold` bytes stay on the GPU; -1: any may leave it.
    """

    memory: int
    threads: int
    models: int
    environment: Mapping[str, str]
    headroom: Mapping[str, int] = field(default_factory=dict)
    threshold: int = -1
    at_once: int = 0

    def threads_for(self, wanted: Wanted) -> tuple[int, int]:
        """How many threads one model gets to generate tokens, and how many to read prompts. Two
        children with all cores each run many times slower than with half of them each."""
        threads = wanted.threads or max(1, self.threads // (self.at_once or self.models))
        return threads, wanted.threads_batch or threads

    def excess(self, devices: Need) -> dict[str, int]:
        """By how many bytes a model on these devices exceeds the headroom of each."""
        over = {device: size - self.headroom.get(device, 0) for device, size in devices.items()}
        return {device: size for device, size in over.items() if size > 0}


@dataclass(frozen=True)
class Site:
    """`predictions` are what the planning tool has said of models before; None: it is asked."""

    capabilities: Capabilities
    machine: Machine
    predictions: Learned | None = None
