"""How well a model's tokens are guessed in advance (speculative decoding), by its last requests.

llama-server guesses for all requests or for none, so nobody knows how long the same answers would
take without. Two signs remain. A guess costs at least the bytes that are read for it: where a
smaller share of the guesses is right than this cost, beside a token's, they cost more than they
save. And where some requests had no guesses, as happens with those by the text, their tokens can be
compared with the others' by their time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from app.telemetry.samples import Tokens

LAST = 64  # requests that are looked at
MANY_GUESSES = 256  # before their share is believed
MANY_REQUESTS = 8  # of each kind, before they are compared
SHORTEST = 8  # tokens of an answer whose time per token is compared
SLOWER = 1.1  # times as long for a token, and more: noise is less


@dataclass
class Speculation:
    """`cost`: of a guess, at least, as a part of that of a token."""

    cost: float = 0.0
    slower: str = ""  # why the model is slower with guesses; "" where it does not seem so
    _last: deque[Tokens] = field(default_factory=lambda: deque(maxlen=LAST))
    _told: bool = False

    @property
    def acceptance(self) -> float | None:
        """The share of the guesses that were right, in percent; None before there was one."""
        return acceptance(self._last)

    def seen(self, tokens: Tokens) -> str:
        """A request has ended. Why the model is slower with guesses, the first time that this is
        so; else ""."""
        if not tokens.generated:
            return ""
        self._last.append(tokens)
        self.slower = slower(self._last, self.cost)
        if self._told or not self.slower:
            return ""
        self._told = True
        return self.slower


def acceptance(last: Sequence[Tokens]) -> float | None:
    drafted = sum(tokens.drafted for tokens in last)
    return 100 * sum(tokens.accepted for tokens in last) / drafted if drafted else None


def slower(last: Sequence[Tokens], cost: float) -> str:
    """Why these requests were slower with guesses than they would have been without. Pure."""
    share = acceptance(last)
    many = sum(tokens.drafted for tokens in last) >= MANY_GUESSES
    if share is not None and many and share < 100 * cost:
        return (
            f"{share:.0f} % of the guesses are right, and a guess costs {100 * cost:.0f} % of a "
            "token or more"
        )
    timed = [tokens for tokens in last if tokens.generated >= SHORTEST and tokens.seconds]
    guessed = [tokens.seconds / tokens.generated for tokens in timed if tokens.drafted]
    others = [tokens.seconds / tokens.generated for tokens in timed if not tokens.drafted]
    if min(len(guessed), len(others)) < MANY_REQUESTS:
        return ""
    theirs, its = median(guessed), median(others)
    if theirs <= SLOWER * its:
        return ""
    return f"a token takes {1000 * theirs:.3g} ms with guesses, and {1000 * its:.3g} ms without"
