"""The callers of the keys file, as it was read last, with what each has used. Without I/O."""

from __future__ import annotations

from collections.abc import Sequence

from app.gateway.keys_file import Holder
from app.gateway.quota import Quota


class Roster:
    def __init__(self) -> None:
        self.keys: list[tuple[bytes, Holder]] = []  # by their SHA-256
        self._quotas: dict[str, Quota] = {}

    def replace(self, holders: Sequence[Holder], now: float) -> None:
        """Whoever stays, by its name, keeps what it has under way and has used. Requests under way
        go on."""
        kept = {each.name: self._quotas.get(each.name) or Quota(each.name) for each in holders}
        gone = {name: quota for name, quota in self._quotas.items() if name not in kept}
        for each in holders:
            limits = (each.max_concurrent_requests, each.tokens_per_minute)
            kept[each.name].limit(*limits, now)
        self.keys = [(each.digest, each) for each in holders]
        # Who comes back has still under way what it had, and owes what it owed.
        self._quotas = kept | {name: quota for name, quota in gone.items() if quota.in_use(now)}

    def quota(self, holder: Holder) -> Quota:
        """One without limits for who is not in the file."""
        return self._quotas.get(holder.name) or Quota()

    @property
    def names(self) -> list[str]:
        return [holder.name for _, holder in self.keys]
