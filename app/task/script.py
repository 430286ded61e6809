"""What a task that a person started records of its code, so that an agent can run a clone of it.

The SDK records the command line. Run again by an agent, that would win over what somebody edits in
the clone. The form is on the task, so the command without arguments says the same. Everything in
this module runs in the SDK's thread.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from app.errors import ConfigError
from app.task import api, checkout

DETECTION = 60.0  # seconds in which the SDK finds repository, commit and changes

logger = logging.getLogger(__name__)


def record(task: Any, folder: Path, command: str = "") -> None:
    """Record how an agent runs the app in `folder`, with this `command` of ours, and say what an
    agent would not have of it."""
    # A thread of the SDK finds repository, commit and changes, and would write over what is written
    # before it ends. The SDK's own `_wait_for_repo_detection` says on the console that it waits.
    if (finding := task._detect_repo_async_thread) is not None:
        finding.join(DETECTION)
    script = {"entry_point": f"{checkout.ENTRY_POINT} {command}".strip(), "working_dir": "."}
    try:
        script["repository"] = checkout.origin(folder)
    except ConfigError:
        lost = [f"{folder} is not the checkout of a repository with an origin"]
    else:
        lost = checkout.lost(folder, api.task(task.id).get("script") or {})
    api.ask("tasks", "edit", {"task": task.id, "script": script, "force": True})
    if lost:
        told = "; ".join(lost)
        logger.warning("a clone of this task could not run as this one does: %s", told)
