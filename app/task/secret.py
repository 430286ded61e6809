"""What is secret in a task: a token is removed from it, its API key is kept in it.

Both are read back from the server: the SDK's own writes log a refusal and return. Everything in
this module runs in the SDK's thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.machine import chance
from app.task import api
from app.task.live import Runtime
from app.task.sdk import ClearMLError

KEY_PROPERTY = "_api_key"  # a runtime property; ClearML's pages hide those that begin with "_"


def remove(task: Any, keys: Sequence[str]) -> None:
    """Empty these hyperparameters. Raises ClearMLError where one still has a value."""
    task.update_parameters(dict.fromkeys(keys, ""))
    found = api.parameters(task.id)
    left = [key for key in keys if found.get(key)]
    if left:
        raise ClearMLError(f"ClearML: {left[0]} cannot be removed from the task")


def run_key(task: Any, runtime: Runtime) -> str:
    """The task's API key; a new one where it has none. Raises ClearMLError where that is not
    stored."""
    known = (task._get_runtime_properties() or {}).get(KEY_PROPERTY)
    if known:
        return str(known)
    key = chance.key(32)
    runtime.set(task, {KEY_PROPERTY: key})
    if (api.task(task.id).get("runtime") or {}).get(KEY_PROPERTY) != key:
        raise ClearMLError("ClearML: the task's API key cannot be stored")
    return key


def forget_key(task: Any, runtime: Runtime) -> None:
    """Callers of this run send no key of the task's: nobody is to take that of a run before for
    one."""
    if (task._get_runtime_properties() or {}).get(KEY_PROPERTY):
        runtime.set(task, {KEY_PROPERTY: ""})
