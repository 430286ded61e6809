"""What one caller has under way, and how many tokens it has used of late. Pure: the clock's time is
passed in, in seconds.

Tokens are a bucket of one minute's worth that fills evenly. How many a request takes is known at
its end: it is admitted while the bucket is not empty, and what it took may leave a debt.
"""

from __future__ import annotations

from collections.abc import Callable

from app.errors import RequestError

MINUTE = 60.0


class Quota:
    def __init__(self, name: str = "") -> None:
        """Without limits until `limit` is called."""
        self.in_flight = 0
        self.name = name
        self._most: int | None = None
        self._per_minute: int | None = None
        self._used = 0.0  # tokens that the bucket lacks
        self._at = 0.0  # when it lacked them

    def limit(self, most: int | None, per_minute: int | None, now: float) -> None:
        """The limits from here on: requests in flight, and tokens. What was used stays used."""
        self._drain(now)
        self._most, self._per_minute = most, per_minute
        if per_minute is None:
            self._used = 0.0

    def check(self, now: float) -> None:
        """Raises RequestError 429 unless one more request may begin."""
        if self._most is not None and self.in_flight >= self._most:
            message = f"{self.name}: {self.in_flight} requests are in flight, and the limit is"
            raise RequestError(429, f"{message} {self._most}", retry_after=1)
        left = self.left(now)
        if left is not None and left <= 0:
            assert self._per_minute is not None
            # A second more than that, rounded: who comes back then is not told to wait again.
            again = 1 - left * MINUTE / self._per_minute
            message = f"{self.name}: its {self._per_minute} tokens per minute are used up"
            raise RequestError(429, message, retry_after=again)

    def left(self, now: float) -> float | None:
        """Tokens in the bucket, below 0 for a debt; None without a limit."""
        self._drain(now)
        return None if self._per_minute is None else self._per_minute - self._used

    def in_use(self, now: float) -> bool:
        """Whether anything is under way, or was used of late."""
        self._drain(now)
        return self.in_flight > 0 or self._used > 0

    def take(self, tokens: int, now: float) -> None:
        """A request has used so many."""
        self._drain(now)
        if self._per_minute is not None:
            self._used += tokens

    def _drain(self, now: float) -> None:
        if self._per_minute is not None:
            self._used = max(0.0, self._used - (now - self._at) * self._per_minute / MINUTE)
        self._at = now


def untold(name: str) -> None:
    """Nobody counts."""


class Place:
    """One request's place among its caller's, from its head to the last byte of its answer: a
    context. Entering raises RequestError 429, and tells `denied` the caller's name."""

    def __init__(self, quota: Quota, now: float, denied: Callable[[str], None] = untold) -> None:
        self._quota = quota
        self._now = now
        self._denied = denied

    def __enter__(self) -> None:
        try:
            self._quota.check(self._now)
        except RequestError:
            self._denied(self._quota.name)
            raise
        self._quota.in_flight += 1

    def __exit__(self, *_: object) -> None:
        self._quota.in_flight -= 1
