"""What a llama-server shows of its slots, and which seats are free by that. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from app.memory.seat import Seat, SlotState

UNSEEN = 3.0  # seconds, after which what was sent must have reached llama-server
ARRIVES = 1.0  # the same, of what is sent to it while it answers


class Shown:
    def __init__(self, slots: Collection[SlotState]) -> None:
        self._slots = Counter(slot.number for slot in slots)
        self._begun = Counter(slot.number for slot in slots if slot.begun)
        self._ended = Counter(slot.number for slot in slots if not slot.working)
        self._working = {slot.number for slot in slots if slot.working}
        unmarked = [slot for slot in slots if slot.working and slot.number == 0]
        self._unmarked = len(unmarked)
        self._unmarked_begun = sum(slot.begun for slot in unmarked)
        self._full = bool(slots) and all(slot.working for slot in slots)

    def has(self, seat: Seat) -> bool:
        """Whether the request has got its slots. Of several prompts one may be done, and its slot
        rest, before another one has a slot."""
        enough = 1 if seat.together or seat.number in self._working else seat.slots
        return self._slots[seat.number] >= enough

    def begun(self, seat: Seat) -> bool:
        """Whether its first token has come: of several prompts, that of each."""
        if seat.prompts == 1:
            return self._begun[seat.number] > 0
        return self._begun[seat.number] + self._ended[seat.number] >= seat.prompts

    def all_begun(self, seats: Collection[Seat]) -> bool:
        """Whether the first token of all has come that show no number. Which slots are whose is not
        known, so it is not told while one is on its way, or has ended."""
        slots = sum(seat.slots for seat in seats if not seat.marked)
        return slots == self._unmarked == self._unmarked_begun

    def gone(self, seats: Collection[Seat], now: float) -> list[Seat]:
        """Those that clients have left and no slot is at work for. `seen` and `begun` of all are as
        this shows them."""
        live = sum(seat.slots for seat in seats if _has_slots_unmarked(seat, now))
        return [seat for seat in seats if self._is_gone(seat, live, now)]

    def _is_gone(self, seat: Seat, live: int, now: float) -> bool:
        """`live`: slots without a number that live requests have. A request that was never seen may
        still be on its way to a slot, or, where all are at work, wait for one inside. Of unmarked
        ones, one or another may have ended without our knowing it yet: at first, any slot may be at
        work for the one that left."""
        if seat.left is None:
            return False
        late = now - seat.left > UNSEEN
        if seat.marked:
            return (seat.seen or (late and not self._full)) and seat.number not in self._working
        return (seat.seen and not self._unmarked) or (late and self._unmarked <= live)


def _has_slots_unmarked(seat: Seat, now: float) -> bool:
    """One that has just been sent may have none yet."""
    arrived = seat.begun or now - seat.given > ARRIVES
    return not seat.marked and seat.left is None and arrived
