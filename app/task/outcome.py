"""How a task ends in ClearML. `conclude` runs in the SDK's thread."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

from app.task import api
from app.task.mode import Mode

# The SDK takes a status message that begins otherwise for an abort, and kills this process.
OURS = "worker: "


class Outcome(enum.Enum):
    """A task's end, in ClearML's own words."""

    COMPLETED = "completed"
    STOPPED = "stopped"
    FAILED = "failed"
    MOVED = "moved"  # it waits on another queue, and is no longer ours


def conclude(task: Any, mode: Mode, outcome: Outcome, reason: str) -> None:
    """Write the reason, send what was reported and set the status. Every step is tried, also after
    one that fails; then the first failure is raised."""
    steps: list[Callable[[], object]] = [lambda: task.get_logger().flush(wait=True)]
    if mode is Mode.OFFLINE:
        steps.append(task.close)
    else:
        steps.insert(0, lambda: api.set_properties(task.id, {"stop_reason": reason}))
        steps.append(lambda: _set_status(task.id, mode, outcome, reason))
    failures = [error for error in map(_tried, steps) if error is not None]
    if failures:
        raise failures[0]


def _tried(step: Callable[[], object]) -> Exception | None:
    try:
        step()
    except Exception as error:  # noqa: BLE001 the SDK's edge: the next steps are tried too
        return error
    return None


def _set_status(task_id: str, mode: Mode, outcome: Outcome, reason: str) -> None:
    said = {"task": task_id, "status_message": OURS + reason}
    if outcome is Outcome.FAILED:
        api.ask("tasks", "failed", {**said, "status_reason": reason, "force": True})
    elif mode is Mode.AGENT:
        pass  # the agent sets it, from our exit status
    elif outcome is Outcome.COMPLETED:
        api.ask("tasks", "completed", said)
    else:
        api.ask("tasks", "stopped", {**said, "force": True})
