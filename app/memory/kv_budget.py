"""How many tokens of KV cache, and how many slots, the requests of one llama-server may use. Pure.

With `--kv-unified` the slots share one buffer. When it is full, llama-server fails every request at
work. So a request is given a seat only if the tokens that it may come to use fit beside those of
all others: its prompt's, and the most that it may generate, whose limit goes into its body.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, deque
from collections.abc import Collection
from typing import NamedTuple

from app.memory.caller import Caller
from app.memory.remains import Remains
from app.memory.seat import MOST_NUMBERS, Demand, Seat, SlotState, Use
from app.memory.shown import Shown

MARGIN = 32  # tokens of each slot: a template's ends, and those that are drafted
LEAST_ANSWER = 256  # tokens that a request without a limit is given at least
LONGEST_TEMPLATE = 512  # tokens that a chat template adds, until it has been measured
BUSY_FOR = 600.0  # seconds for which a model counts as being as busy as it was
SHORT = 64  # tokens of an answer, after which the idle moment of its slot is a loss that counts


class Ways(NamedTuple):
    """How a llama-server works. `drafted`: tokens that it guesses in advance for a slot. `marks`:
    its slots can show the numbers of their requests' seats. `mixes`: it is known to read a prompt
    while other requests of the same task generate."""

    drafted: int = 0
    marks: bool = True
    mixes: bool = True


USUAL = Ways()


class KvBudget:
    def __init__(
        self,
        slots: int = 0,
        context: int | None = None,
        *,
        each: int = 0,
        limit: int | None = None,
        ways: Ways = USUAL,
    ) -> None:
        """`slots` (0: without a bound) share `context` tokens; None: each has `each` of its own.
        `limit`: tokens of an answer to a request that names none."""
        self.slots = slots
        self.context = context
        self.each = context or each  # tokens that one request may have; 0: not known
        self._marks = ways.marks and slots > 0
        self._mixes = ways.mixes
        self._limit = limit
        self.template = LONGEST_TEMPLATE
        self._margin = MARGIN + ways.drafted
        self._seats: dict[Seat, None] = {}  # in the order in which they were given
        # Of all seats: kept here, for they are asked for at every request.
        self.used = 0  # tokens that are given away
        self.taken = 0  # slots
        self._at_work = 0  # slots that have begun
        self._beginning = 0  # seats that have not
        self._left = 0  # seats whose clients have left
        self._tasks: Counter[str] = Counter()  # slots, by what they are given for
        self._remains = Remains(slots)
        self._numbers = itertools.count()
        self._kept: deque[tuple[int, int]] = deque(maxlen=max(1, slots))
        self._peak, self._peak_at = 0, 0.0
        self.last_left = -math.inf  # when a client left last that llama-server may work for
        self.last_cut = -math.inf  # the same, of a stream that had begun

    @property
    def usage(self) -> float | None:
        """The share that is given away, from 0 to 1: of the tokens, or of the slots where each has
        tokens of its own; None without a bound."""
        if self.context:
            return min(1.0, self.used / self.context)
        return min(1.0, self.taken / self.slots) if self.slots else None

    def too_long(self, demand: Demand) -> bool:
        """Whether a counted prompt can never be served."""
        known = demand.exact and not demand.separate and bool(self.each)
        return known and (demand.prompt or 0) >= self.each

    def must_count(self, demand: Demand) -> bool:
        """Whether it is worth to have the prompt counted: not for one that, each byte taken for a
        token, is small beside an equal share of the context."""
        if self.context is None or demand.exact or not demand.countable or not demand.slots:
            return False
        if demand.prompt is None:
            return True
        share = self.context // max(1, self.slots)
        prompt = self._prompt(demand, demand.slots)
        return prompt > share // 2 or prompt + demand.slots * (demand.limit or 0) > share

    def seat(self, demand: Demand, now: float, *, crowded: bool = False) -> Seat | None:
        """Give a request its seat; None if it has to wait. `crowded`: others wait, too.

        One request whose answer is short may wait inside llama-server for the slot of another one
        whose answer is short. Else this slot would be idle until the next token of the others has
        come, because llama-server computes all slots together.
        """
        slots = min(demand.slots, self.slots) if self.slots else demand.slots
        free = self.slots - self.taken if self.slots else slots
        if slots and slots > free and slots > free + self._may_wait_inside(demand, slots):
            return None
        self._note_peak(max(0, min(slots, free)), now)
        room = self._room(demand, slots, self._parts(slots, free, crowded))
        if room is None:
            return None
        tokens, limit = room
        holds = self._remains.holds(self._prompt(demand, slots))
        marked = demand.marked and self._marks
        number = 1 + next(self._numbers) % MOST_NUMBERS
        seat = Seat(
            number,
            slots,
            tokens,
            limit,
            marked,
            begun=not slots,
            clears=self._too_full(tokens, slots, holds),
            together=demand.together or slots == 1,
            holds=holds,
            begins=demand.begins,
            given=now,
            prompts=1 if demand.together else demand.slots,
            task=demand.task,
        )
        self._seats[seat] = None
        self.used, self.taken = self.used + tokens, self.taken + slots
        self._tasks[seat.task] += slots
        self._beginning += not seat.begun
        return seat

    def _drop(self, seat: Seat) -> None:
        del self._seats[seat]
        self.used, self.taken = self.used - seat.tokens, self.taken - seat.slots
        self._tasks[seat.task] -= seat.slots
        self._left -= seat.left is not None
        if seat.begun:
            self._at_work -= seat.slots
        else:
            self._beginning -= 1

    def _may_wait_inside(self, demand: Demand, slots: int) -> bool:
        """Only one that its slot will show: of others nobody could tell whether they have one."""
        shown = demand.marked and self._marks
        beside = any(_short(seat.limit) for seat in self._seats)
        short = slots == 1 and _short(demand.limit)
        return short and shown and beside and self._begins_beside(demand)

    def _note_peak(self, slots: int, now: float) -> None:
        used = self.taken + slots
        if used >= self._peak or now - self._peak_at > BUSY_FOR:
            self._peak, self._peak_at = used, now

    def _parts(self, slots: int, free: int, crowded: bool) -> int:
        """Into how many parts what is left is divided for a request without a limit: its own, one
        for each slot that was in use beside it lately, and one more."""
        others = self._peak - self.taken - slots
        return free if crowded else min(free, slots + max(0, others) + 1)

    def _room(self, demand: Demand, slots: int, parts: int) -> tuple[int, int | None] | None:
        """Tokens and limit; None if there is no room now."""
        if self.context is None or not slots:
            return 0, None  # each has a context of its own, which ends its answer
        left = self.context - self.used
        prompt = self._prompt(demand, slots)
        if demand.prompt is None or (prompt >= self.context and not self._fits(demand)):
            return (self.context, demand.limit) if left == self.context else None
        prompt = min(self.context, prompt)
        most = (self.context - prompt) // slots
        if demand.limit is None:
            limit = max((left - prompt) // parts, min(LEAST_ANSWER, most))
            limit = min(limit, most if self._limit is None else self._limit)
        else:
            limit = min(demand.limit, most)
        tokens = min(self.context, prompt + slots * limit)
        if tokens == self.context and demand.exact:  # alone, it needs no margin
            wanted = [n for n in (demand.limit, self._limit) if n is not None][:1]
            limit = max(limit, min([(self.context - (demand.prompt or 0)) // slots, *wanted]))
        if tokens > left or tokens + self._beyond(demand, tokens, slots, prompt) > left:
            return None
        return tokens, max(1, limit)

    def _fits(self, demand: Demand) -> bool:
        """Whether a prompt is known to leave room for an answer."""
        return demand.exact and not self.too_long(demand) and not demand.separate

    def _prompt(self, demand: Demand, slots: int) -> int:
        added = self.template if demand.templated and not demand.exact else 0
        return (demand.prompt or 0) + added + slots * self._margin

    def _beyond(self, demand: Demand, tokens: int, slots: int, prompt: int) -> int:
        """Tokens that slots may hold beyond those of their seats, with one more seat. Of several
        slots, the others wait for the first one's prompt: if that does not fit beside what they
        hold, llama-server copies the part that it has read, and then fails all requests."""
        at_once = slots == 1 and not self._beginning and self._begins_beside(demand)
        if not self.taken or at_once:
            return 0  # what is in its way is cleared
        beginning = [held for seat in self._seats if not seat.begun for held in _held(seat)]
        holds = self._remains.holds(prompt)
        return self._remains.beyond([*beginning, *[(tokens // slots, holds)] * slots])

    def _begins_beside(self, demand: Demand) -> bool:
        """Whether llama-server reads this prompt while those generate that have slots: only of one
        task, and with the same adapters (can_batch_with in llama.cpp's server-context.cpp). Else
        the request waits, in its slot."""
        return self._mixes and self._tasks[demand.task] == self.taken

    def _too_full(self, tokens: int, slots: int, holds: int) -> bool:
        """Whether a request of several slots, which waits for nobody any more, is still in the way
        of itself."""
        if self.context is None or self.taken or slots < 2:
            return False
        return tokens + self._remains.beyond([(tokens // slots, holds)] * slots) > self.context

    def cleared(self, seat: Seat) -> None:
        """Slots that rested hold nothing, and this one's request begins at once. A slot that reads
        a prompt may still be given something out of the host cache before."""
        seat.cleared = True
        self._remains.cleared()
        self._kept.clear()

    # What becomes of a seat.

    def begin(self, seat: Seat) -> None:
        """The first token has come: its slots hold nothing of requests before."""
        if not seat.begun and seat in self._seats:
            seat.begun = True
            self._beginning -= 1
            self._at_work += seat.slots
            self._remains.begun(self._at_work)

    def end(self, seat: Seat, use: Use, now: float) -> None:
        """The request has ended, and its client is not there any more."""
        if use is Use.UNSENT or not seat.slots:
            if seat in self._seats:
                self._drop(seat)  # its slots, if any, hold what they held
        elif use is Use.WHOLE:
            self.free(seat)
        elif seat in self._seats:
            self._left += seat.left is None
            if seat.streams:
                self.last_cut = now
            seat.left = self.last_left = now  # until llama-server shows that the slots are free

    def free(self, seat: Seat) -> None:
        """Its slots are at work no more."""
        if seat in self._seats:
            self.begin(seat)
            self._drop(seat)
            if self.context is not None and seat.slots:
                self._remains.ended(seat.tokens // seat.slots, seat.slots, self._at_work)
            if len(seat.begins) > 1:  # in the last block may be what followed the conversation
                self._kept.append((len(seat.begins) - 2, seat.begins[-2]))

    def keeps(self, demand: Demand) -> bool:
        """Whether a slot is likely to have the conversation that this one goes on with: it was
        among the last ones that ended."""
        begins = demand.begins
        return any(place < len(begins) and begins[place] == sum for place, sum in self._kept)

    def reset(self, template: int | None = None) -> None:
        """Another process serves from now on: it knows of no request that has left, but may have
        been given what the slots held. `template`: tokens that its chat template adds, at most."""
        self.template = LONGEST_TEMPLATE if template is None else template
        self.forget_left()
        self._kept.clear()

    def unsure(self, *, waited_for: bool) -> bool:
        """Whether it would help to know which slots are at work: some may be free already, or, if
        somebody waits for a seat, others may have begun."""
        inside = max(0, self.taken - self.slots)  # it cannot begin before another one ends
        beginning = self._beginning > inside and self._may_show() > inside
        return self._left > 0 or (waited_for and self.context is not None and beginning)

    def _may_show(self) -> int:
        """Of how many requests their slots may show that they have begun: not of more prompts than
        slots."""
        return sum(not seat.begun and seat.prompts <= seat.slots for seat in self._seats)

    @property
    def needs_hush(self) -> bool:
        """Whether llama-server needs a silent second to find out that a client has left: it has no
        part of that answer to send, nor of another one, which would break the silence."""
        if not self._left:
            return False
        silent = any(seat.left is not None and not seat.streams for seat in self._seats)
        return silent and not any(seat.left is None and seat.streams for seat in self._seats)

    def forget_left(self) -> bool:
        """Free what clients had that have left: their process has ended, or nobody says whether
        their slots are at work. Whether there was any."""
        gone = [seat for seat in self._seats if seat.left is not None]
        for seat in gone:
            self.free(seat)
        return bool(gone)

    def left_by(self, caller: Caller) -> int:
        """Slots that may be at work still for requests that this caller has left."""
        if not self._left:
            return 0
        return sum(s.slots for s in self._seats if s.left is not None and s.caller == caller)

    def look(self, slots: Collection[SlotState], now: float) -> bool:
        """Take in what llama-server says of its slots; whether it changes who may have a seat."""
        before = self._beginning
        shown = Shown(slots)
        unmarked = shown.all_begun(self._seats)
        for seat in self._seats:
            seat.seen |= seat.begun or shown.has(seat)
            if shown.begun(seat) or (unmarked and not seat.marked):
                self.begin(seat)
        gone = shown.gone(self._seats, now)
        changed = bool(gone) or self._beginning < before
        for seat in gone:
            self.free(seat)
        return changed


def _held(seat: Seat) -> list[tuple[int, int]]:
    """For each slot of a seat the tokens that it needs, and those that it may hold before."""
    need = seat.tokens // seat.slots
    if seat.cleared and seat.together:
        return [(need, seat.holds), *[(need, 0)] * (seat.slots - 1)]
    return [(need, seat.holds)] * seat.slots


def _short(limit: int | None) -> bool:
    return 0 < (limit or 0) <= SHORT
