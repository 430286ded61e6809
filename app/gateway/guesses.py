"""How often wrong keys may come from one address. Pure.

A bucket for each address holds ALLOWED wrong keys and gets one more each second. It is kept as the
moment at which it is full again (the generic cell rate algorithm), and forgotten then.
"""

from __future__ import annotations

from dataclasses import dataclass

from app.gateway.http.households import household

ALLOWED = 20  # wrong keys in a row before an address is suspect
EVERY = 1.0  # seconds for one more
ADDRESSES = 4096  # that are told apart; those that come later share one bucket
OTHERS = ""


@dataclass
class _Bucket:
    full_at: float
    trusted: bool = False  # a right key has come from there since the first wrong one


class Guesses:
    """Counts wrong keys by the address that they come from, IPv6 by its /64."""

    def __init__(self, addresses: int = ADDRESSES) -> None:
        self._limit = addresses
        self._buckets: dict[str, _Bucket] = {}  # the one that was taken from last comes last

    def suspect(self, address: str, now: float) -> bool:
        """Whether too many wrong keys and no right one came from there: from this very address,
        for a right key from another one is not to wait."""
        bucket = self._find(address)
        return bucket is not None and not bucket.trusted and _empty(bucket, now)

    def right(self, address: str) -> None:
        """A right key came from there: whoever has it is not to wait for whoever guesses."""
        bucket = self._find(address)
        if bucket is not None:
            bucket.trusted = True

    def wrong(self, address: str, now: float) -> float | None:
        """A wrong key came from there. Returns the seconds until the next one may come, if this one
        was one too many."""
        self._forget(now)
        name = household(address)
        if name not in self._buckets and len(self._buckets) >= self._limit:
            name = OTHERS
        bucket = self._buckets.get(name) or _Bucket(now)
        if _empty(bucket, now):
            return bucket.full_at - now - (ALLOWED - 1) * EVERY
        bucket.full_at = max(bucket.full_at, now) + EVERY
        self._buckets.pop(name, None)
        self._buckets[name] = bucket
        return None

    def _find(self, address: str) -> _Bucket | None:
        return self._buckets.get(household(address)) if self._buckets else None

    def _forget(self, now: float) -> None:
        while self._buckets:
            name, bucket = next(iter(self._buckets.items()))
            if bucket.full_at > now:
                return
            del self._buckets[name]


def _empty(bucket: _Bucket, now: float) -> bool:
    return bucket.full_at - now > (ALLOWED - 1) * EVERY
