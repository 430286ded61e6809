"""Which tasks of a project are instances of routes, by what ClearML's server tells. Pure.

A task whose agent was killed stays in progress for hours, with all its properties; clones keep
tags, and people edit tasks. So an instance counts if its own task ID stands in its membership, and
its process has given a sign of life lately by the server's clock, or answers us.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any
from urllib.parse import urlsplit

from app.task.live import ADDRESS, ORDER, ROUTE, VERSION, route_of
from app.task.secret import KEY_PROPERTY

LIVING = 150.0  # seconds since a task's last sign of life; there is one every minute
# What can be sent as a key: whoever may edit a task could write lines of a request with another.
SENDABLE = re.compile(r"[!-~]+")
NAME = 64  # characters of a machine's
QUEUED, RUNNING = "queued", "in_progress"
AGENT_HOST = "_exec_agent_hostname"  # which an agent writes of its machine
FIELDS = (  # of the task, as `tasks.get_all_ex` takes them
    "name",
    "status",
    "created",
    "last_update",
    f"runtime.{ROUTE}",
    f"runtime.{ADDRESS}",
    f"runtime.{VERSION}",
    f"runtime.{ORDER}",
    f"runtime.{KEY_PROPERTY}",
    f"runtime.{AGENT_HOST}",
    "hyperparams.General.gateway_route",
)


@dataclass(frozen=True)
class Listed:
    """A task of a route. `address`: where its instance listens, "" if it does not yet."""

    task: str
    name: str
    route: str
    status: str
    created: float  # seconds since 1970
    address: str = ""
    key: str = field(default="", repr=False)
    version: str = ""  # of the route, by which a door ordered it
    order: str = ""  # the door's signature
    machine: str = ""  # the name of the agent's; "" without one
    fresh: bool = True  # it has given a sign of life lately, or waits in a queue

    @property
    def host(self) -> str:
        return urlsplit(self.address).hostname or ""

    @property
    def port(self) -> int:
        return urlsplit(self.address).port or 80

    @property
    def serves(self) -> bool:
        return self.status == RUNNING and bool(self.address)


def read(
    tasks: Iterable[Mapping[str, Any]], now: float, outages: Sequence[tuple[float, float]] = ()
) -> list[Listed]:
    """Those that belong to a route. `now` is the server's time, in seconds since 1970, and so are
    the begin and the end of `outages`, in which no task could give a sign of life."""
    return [found for task in tasks if (found := _read(task, now, outages)) is not None]


def _read(
    task: Mapping[str, Any], now: float, outages: Sequence[tuple[float, float]]
) -> Listed | None:
    runtime = task.get("runtime") or {}
    route = route_of(runtime, str(task.get("id")))
    fields = (task.get("hyperparams") or {}).get("General") or {}
    wished = str((fields.get("gateway_route") or {}).get("value") or "").strip()
    status = str(task.get("status") or "")
    if not route or wished != route or status not in (QUEUED, RUNNING):
        return None
    told = seconds(task.get("last_update"), now) if status == RUNNING else now
    away = sum(max(0.0, end - max(begin, told)) for begin, end in outages)
    address, key = str(runtime.get(ADDRESS) or ""), str(runtime.get(KEY_PROPERTY) or "")
    return Listed(
        task=str(task["id"]),
        name=str(task.get("name") or ""),
        route=route,
        status=status,
        created=seconds(task.get("created"), now),
        address=address if _usable(address) else "",
        key=key if SENDABLE.fullmatch(key) else "",
        version=str(runtime.get(VERSION) or ""),
        order=str(runtime.get(ORDER) or ""),
        machine=str(runtime.get(AGENT_HOST) or "")[:NAME],
        fresh=now - told - away <= LIVING,
    )


def _usable(address: str) -> bool:
    try:
        parts = urlsplit(address)
        return parts.scheme == "http" and bool(parts.hostname) and 0 < (parts.port or 80)
    except ValueError:
        return False


def seconds(stamp: object, default: float) -> float:
    """ClearML's time stamp in seconds since 1970; it has no zone, or UTC's."""
    try:
        found = datetime.fromisoformat(str(stamp).replace("Z", "+00:00"))
    except ValueError:
        return default
    return (found if found.tzinfo else found.replace(tzinfo=timezone.utc)).timestamp()
