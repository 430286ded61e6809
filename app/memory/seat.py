"""What a request wants of a llama-server's slots and KV cache, and what it is given. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple

from app.memory.caller import Caller

MOST_NUMBERS = 1 << 30
MARK = "n_discard"  # the field of a body, and of /slots, that has the number of a request's seat


class Demand(NamedTuple):
    """What a request may come to use: `slots` at once (0: it only asks), `prompt` tokens at most
    (all of its prompts; None: not known) and `limit` tokens that it generates in each slot (None:
    as many as there may be). `exact`: the prompt was counted; else each byte counts as a token, and
    `templated` says that a chat template adds to it. `countable`: llama-server counts such a
    prompt. `marked`: its slots show the number of its seat. `begins`: checksums of the beginning of
    its body, each over a longer part of it. `separate`: it generates nothing, and each of its
    prompts has a context of its own. `together`: all slots are for answers to one prompt, and
    llama-server gives them at once. `task`: what it is to llama-server, which computes requests of
    one task together; one of another task waits in its slot while these generate."""

    slots: int = 1
    prompt: int | None = 0
    limit: int | None = 0
    exact: bool = False
    templated: bool = False
    countable: bool = False
    marked: bool = False
    begins: tuple[int, ...] = ()
    separate: bool = False
    together: bool = False
    task: str = ""

    def alone(self) -> Demand:
        """The same, with all slots and the whole context for itself."""
        return self._replace(slots=MOST_NUMBERS, prompt=None, countable=False)

    def counted(self, prompt: int | None) -> Demand:
        """None: nobody knows, and each byte counts."""
        if prompt is None:
            return self._replace(countable=False)
        return self._replace(prompt=prompt, exact=True)


@dataclass(eq=False)
class Seat:
    """What one request has been given: `tokens` of the shared buffer, and a `limit` for its body
    (None: its own). `begun`: its first token has come. `streams`: the first event of a stream has.
    `left`: since when its client has been gone, while llama-server may not have noticed. `seen`:
    its slots have shown its number: any one where they are given `together`, else each. `holds`:
    tokens that each of its slots may have been given before its prompt begins. `clears`: what
    resting slots hold has to go before it is sent; `cleared`: it has gone, and of slots that are
    given `together` only the first one, which reads the prompt, may be given anything. `given`:
    when it was given. `prompts`: how many have to begin, each in
    a slot: with `n`, several answers to each. `task`: as in a Demand."""

    number: int
    slots: int
    tokens: int
    limit: int | None
    marked: bool = False
    begun: bool = False
    streams: bool = False
    left: float | None = None
    seen: bool = False
    together: bool = False
    holds: int = 0
    clears: bool = False
    cleared: bool = False
    begins: tuple[int, ...] = ()
    caller: Caller | None = None
    given: float = 0.0
    prompts: int = 1
    task: str = ""


class Use(enum.Enum):
    """What llama-server had to do with a request that has ended: nothing, for it has not arrived
    whole; it is done with it; or it may be at work, as its client has left."""

    UNSENT = "unsent"
    WHOLE = "whole"
    LEFT = "left"


class SlotState(NamedTuple):
    """What a slot shows: the number of the seat of its request, which is the last one where it
    rests (0: not shown), whether it is at work on that, and whether the first token has come."""

    number: int
    working: bool
    begun: bool = False
