"""What each caller of the keys file has used since the start."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from app.telemetry.samples import Sample


@dataclass
class Used:
    requests: int = 0
    denied: int = 0  # requests over its own limits
    prompt: int = 0  # tokens, cached ones included
    cached: int = 0
    generated: int = 0

    def add(self, other: Used) -> None:
        self.requests += other.requests
        self.denied += other.denied
        self.prompt += other.prompt
        self.cached += other.cached
        self.generated += other.generated


class ByCaller:
    """By the callers' names. No more names than the file has, and one for all other requests."""

    def __init__(self, other: str) -> None:
        self._other = other
        self._used: dict[str, Used] = {other: Used()}

    def keep(self, names: Iterable[str]) -> None:
        """The callers from here on. What others have used counts for all others, as what they still
        use does: a sum over callers never shrinks."""
        rest = self._used.pop(self._other)
        before, self._used = self._used, {}
        for name in names:
            self._used[name] = before.pop(name, Used())
        for used in before.values():
            rest.add(used)
        self._used[self._other] = rest

    def add(self, sample: Sample) -> None:
        """A finished request."""
        tokens = sample.tokens
        used = Used(1, 0, tokens.prompt, tokens.cached, tokens.generated)
        self._of(sample.caller).add(used)

    def deny(self, name: str) -> None:
        """A request was over the limits of its caller."""
        self._of(name).denied += 1

    def _of(self, name: str) -> Used:
        return self._used.get(name) or self._used[self._other]

    @property
    def used(self) -> Mapping[str, Used]:
        """In the file's order, all others last."""
        return self._used
