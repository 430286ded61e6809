"""What the slots of one llama-server hold of requests before, beyond what is reserved. Pure.

A slot that rests is emptied where another one needs its cells, unless it has been given a request:
then what it held stays until the prompt begins, and that may wait while llama-server reads another
one's. Meanwhile llama-server may even put a longer conversation into it, out of its cache in host
memory (server_prompt_cache::load in llama.cpp's server-task.cpp): one of which the prompt shares at
least a quarter.
"""

from __future__ import annotations

from collections.abc import Collection

SHARED_LEAST = 4  # one part in so many


class Remains:
    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._idle: list[int] = []  # tokens in slots that rest, the most first
        self._longest = 0  # conversation that there has been

    def begun(self, at_work: int) -> None:
        """So many slots are at work on what has begun. Which of the others did so is not known, so
        the fullest ones are taken to rest."""
        del self._idle[max(0, self._slots - at_work) :]

    def ended(self, tokens: int, slots: int, at_work: int) -> None:
        """A request had so many tokens in each of its slots; others are at work still."""
        self._longest = max(self._longest, tokens)
        self._idle = sorted([*self._idle, *[tokens] * slots], reverse=True)
        self.begun(at_work)

    def cleared(self) -> None:
        self._idle.clear()

    def holds(self, prompt: int) -> int:
        """Tokens that a slot may have before such a prompt begins, if nothing was in it."""
        return min(SHARED_LEAST * prompt, self._longest)

    def beyond(self, beginning: Collection[tuple[int, int]]) -> int:
        """Tokens that slots may have beyond those that are reserved, whichever of the slots the
        requests get: for each slot of them what it needs, and what it may hold before."""
        most = sorted(max(needed, held) for needed, held in beginning)
        over = sum(most) - sum(needed for needed, _ in beginning)
        return over + sum(max(0, old - m) for old, m in zip(self._idle, most, strict=False))
