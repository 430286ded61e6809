"""How requests are treated."""

from __future__ import annotations

from dataclasses import dataclass, field

from app.gateway.admission import Keys
from app.gateway.origins import Names


@dataclass(frozen=True)
class Rules:
    """How requests are treated. `wait_timeout` in seconds; `routed`: ClearML's App Gateway decides
    who may call; `joined`: a door does, which has the key."""

    keys: Keys
    wait_timeout: float = 300
    allow_remote_media: bool = False
    body_limit: int | None = None  # bytes; None: what follows from the model
    debug: bool = False
    keep_prompts: bool = False  # for the list of the last requests
    routed: bool = False
    joined: bool = False
    allowed: Names = frozenset()  # further Hosts and Origins of callers without a key
    prefixes: list[str] = field(default_factory=list)  # grows when a gateway gives its path

    @property
    def local_only(self) -> bool:
        """Only callers on this machine are answered."""
        return not self.keys and not self.routed

    @property
    def labelled(self) -> bool:
        """Whether the label `session` tells callers apart: whoever sends it is trusted."""
        return self.routed or self.joined
