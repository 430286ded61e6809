"""What a task tells others of the instance that it runs: where it is, its key, and how it stands.
Pure."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from app.page.examples import KEY
from app.task.live import PREFIX
from app.task.outcome import OURS
from app.task.secret import KEY_PROPERTY

FIELDS = (  # of the task, as `tasks.get_all` takes them
    "name",
    "status",
    "status_reason",
    "status_message",
    "system_tags",
    "runtime",
    "hyperparams.properties",
)
BY_HAND = "development"  # a system tag of tasks that no agent runs
ROUTED = "external_service"  # a system tag of tasks that asked the App Gateway for a route
RUNNING = "in_progress"
TO_COME = ("created", "queued", RUNNING)
SERVING = ("active", "idle")  # what the instance says of itself

NO_TOKEN = (
    "callers send a token of ClearML's App Gateway, not a key: generate one in ClearML's web UI"
)
GIVEN = (
    "its key is not in the task: it was given as LLAMACPP_API_KEY where the instance runs. Ask who "
    "set that"
)
NONE = "no agent runs it: callers on its own machine need no key, unless LLAMACPP_API_KEY is set"


@dataclass(frozen=True)
class Served:
    """A task and its instance, as whoever may read the task sees them. `status` is the task's and
    `state` the instance's; "" is not known."""

    task: str
    name: str
    status: str
    reason: str = ""
    state: str = ""
    progress: str = ""
    endpoint: str = ""
    curl: str = ""
    key: str = field(default="", repr=False)
    routed: bool = False
    by_hand: bool = False

    @property
    def serves(self) -> bool:
        return self.reachable and self.state in SERVING

    @property
    def reachable(self) -> bool:
        """Whether there is an endpoint, which keeps callers waiting until the instance serves."""
        return self.status == RUNNING and bool(self.endpoint)

    @property
    def over(self) -> bool:
        return self.status not in TO_COME


def read(task: Mapping[str, Any]) -> Served:
    """From a task as the server has it (`FIELDS`)."""
    runtime = task.get("runtime") or {}
    properties = (task.get("hyperparams") or {}).get("properties") or {}

    def told(name: str) -> str:
        """Of the live state: a runtime property, or a user property, in which it is escaped."""
        live = PREFIX + name
        return str(runtime[live] or "") if live in runtime else shown(name)

    def shown(name: str) -> str:
        return html.unescape(str((properties.get(name) or {}).get("value") or ""))

    tags = task.get("system_tags") or ()
    routed = ROUTED in tags
    said = shown("stop_reason") or task.get("status_reason") or task.get("status_message") or ""
    return Served(
        task=str(task["id"]),
        name=str(task.get("name") or ""),
        status=str(task.get("status") or ""),
        reason=str(said).removeprefix(OURS),
        state=told("status"),
        progress=shown("progress"),
        # Before the gateway has given one, the task shows the machine's own.
        endpoint=str(runtime.get("endpoint") or "").rstrip("/") if routed else told("endpoint"),
        curl=shown("curl"),
        key=str(runtime.get(KEY_PROPERTY) or ""),
        routed=routed,
        by_hand=BY_HAND in tags,
    )


def standing(found: Served) -> str:
    """How the task stands, for people, while it does not serve."""
    if found.status != RUNNING:
        return f"{found.status}: {found.reason}" if found.over and found.reason else found.status
    if found.routed and not found.endpoint:
        return "waits for an address of the App Gateway"
    if found.state in ("", "stopped", *SERVING):
        return "an agent prepares it"  # what it shows, if anything, is of an earlier run
    return f"{found.state}: {found.progress}" if found.progress else found.state


def without_key(found: Served) -> str:
    """Why there is no key to print."""
    if found.routed:
        return NO_TOKEN
    return NONE if found.by_hand else GIVEN


def command(found: Served) -> str:
    """The curl command that the task shows, in one line and with the key; "" if there is none."""
    lines = (line.strip().removesuffix("\\").strip() for line in found.curl.splitlines())
    return " ".join(lines).replace(KEY, found.key or KEY)
