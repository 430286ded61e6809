"""The memory that models may use now: the budget, less what other programs use of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from app.memory.ledger import MOVING, Model, ModelState
from app.planning.amounts import GIB, Need, together
from app.planning.budget import beside_others

LOOK = 0.1  # seconds for which a look at what other programs use is good


class Room:
    def __init__(self, budget: Need, free: Callable[[], Mapping[str, int]]) -> None:
        """`free` reads how many bytes of each GPU nobody uses, where the driver tells."""
        self.bytes = budget  # by device, as last read
        self._budget = budget
        self._free = free
        self._until = 0.0

    def look(self, models: Sequence[Model[Any]], now: float) -> None:
        """Other programs come and go: before a model is loaded, what they use is read again."""
        waiting = [model.need for model in models if model.line.waiting]
        moving = any(model.state in MOVING for model in models)
        if not waiting or moving or now < self._until:
            return
        self._until = now + LOOK
        ours = together([m.need for m in models if m.state is ModelState.READY])
        wanted = {d: max(need.get(d, 0) for need in waiting) for d in self._budget}
        self.bytes = beside_others(self._budget, self._free(), ours, wanted)

    def taken(self, need: Need) -> str:
        """What other programs use of the devices that are needed, for a person; "" if nothing."""
        taken = {d: size - self.bytes[d] for d, size in self._budget.items()}
        return "".join(
            f"; other programs hold {taken[device] / GIB:.2f} GiB of {device}"
            for device, size in need.items()
            if size and taken[device] > 0
        )
