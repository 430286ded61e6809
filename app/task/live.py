"""What a task shows of the instance that runs it: which user properties and runtime properties are
ours, and how they are written.

User properties are what ClearML's dashboard shows. The server keeps them at a reset and copies them
into clones. Runtime properties are for programs: one poll reads those of many tasks. The server
clears them at a reset, and does not copy them.

From API 2.34 on `tasks.edit_runtime` writes single keys. Before, and in the SDK, a write replaces
all runtime properties, so that one may lose what somebody else wrote meanwhile: then the live state
goes to user properties instead. Everything in this module runs in the SDK's thread.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from app.task import api
from app.task.api import RefusedError
from app.task.last_will_child import RUN

SETTING_UP = "setting up"
MODELS = "models"  # a user property where the server has no tasks.edit_runtime
PROPERTIES = (
    "status",
    "endpoint",
    "idle_hours",
    "idle_limit_hours",
    "last_activity",
    "progress",
    "curl",
    "stop_reason",
    MODELS,
)
PREFIX = "llamacpp_"  # of our runtime properties, except those of `task.secret` and `task.route`
# Where an instance is, and to which route of a door it belongs; `belongs` writes the latter.
ROUTE, ADDRESS = PREFIX + "route", PREFIX + "address"
VERSION = PREFIX + "route_version"  # of the route, by which a door ordered the task
ORDER = PREFIX + "route_order"  # the door's signature
DOOR = "door"  # of the live state of a door: the routes that it serves
LIVE = ("status", "endpoint", MODELS, "last_activity")


class Runtime:
    """The runtime properties of one task."""

    def __init__(self) -> None:
        self.edits = True  # until the server says that it has no such request

    def edit(
        self,
        task: Any,
        values: Mapping[str, str],
        remove: Sequence[str] = (),
        ask: Callable[[str, str, Mapping[str, Any]], object] | None = None,
    ) -> bool:
        """Set and remove these keys; False if this server cannot, which it is asked once. `ask`:
        by default `api.ask`."""
        if self.edits:
            try:
                # The SDK reads and writes all of them while it holds this lock.
                with task._edit_lock:
                    send = ask or api.ask
                    send("tasks", "edit_runtime", edit(task.id, values, remove))
            except RefusedError as error:
                self.edits = not api.unknown_action(error)
                if self.edits:
                    raise
        return self.edits

    def set(self, task: Any, values: Mapping[str, str]) -> None:
        """Set these keys, on every server: at the start, before others write any."""
        if not self.edit(task, values):
            task._set_runtime_properties(dict(values))


def edit(task_id: str, values: Mapping[str, str], remove: Sequence[str] = ()) -> dict[str, Any]:
    """The fields of tasks.edit_runtime; `force`: of a task that runs."""
    given = {"add_or_update": dict(values), "remove": list(remove)}
    return {"task": task_id, "force": True, **given}


def keys(state: Mapping[str, str]) -> dict[str, str]:
    """The runtime properties of a live state."""
    return {PREFIX + key: text for key, text in state.items()}


def belongs(route: str, task: str) -> str:
    """With the task's own ID: a clone on a server that copies runtime properties belongs to
    none."""
    return f"{task} {route}"


def route_of(runtime: Mapping[str, Any], task: str) -> str:
    """The route that a task belongs to; "" for none."""
    owner, _, route = str(runtime.get(ROUTE) or "").partition(" ")
    return route if owner == task else ""


def models(states: Mapping[str, str]) -> str:
    """The states of the models, by endpoint name, as one value."""
    return json.dumps(states, separators=(",", ":"))


def clear(task: Any, runtime: Runtime, run: str) -> None:
    """Nothing is left of an earlier run, or of the task that this one is a clone of: this `run` of
    the task begins. What a door has told of a task that it ordered stays: it waits for this run."""
    new = {"status": SETTING_UP, RUN: run}
    api.set_properties(task.id, {**dict.fromkeys(PROPERTIES, ""), **new})
    known = task._get_runtime_properties() or {}
    kept = (ROUTE, VERSION, ORDER) if route_of(known, str(task.id)) else ()
    left = [key for key in known if key.startswith(PREFIX) and key not in kept]
    if left:
        runtime.edit(task, {}, left)
