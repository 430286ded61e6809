"""How a task ends in ClearML: what is said last, and in which order."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from app.task import api, live
from app.task.api import RefusedError
from app.task.last_will_child import SEEN, taken
from app.task.mode import Mode
from app.task.sdk import one_line

# While the SDK watches the task, it takes a status message that begins otherwise for an abort, and
# kills this process.
OURS = "worker: "
AWAY = 500  # the server cannot answer now, whatever is asked
TAKEN = "the task waits for another run, or has one: nothing more of this run is written into it"


class Outcome(enum.Enum):
    """A task's end, in ClearML's own words."""

    COMPLETED = "completed"
    STOPPED = "stopped"
    FAILED = "failed"
    MOVED = "moved"  # it waits on another queue, or another run has it: it is no longer ours


@dataclass(frozen=True)
class Run:
    """One run of a task. `name` is its user property `run`; "" if the task does not show it."""

    task: str
    name: str


@dataclass(frozen=True)
class Word:
    """A request, by default of the service `tasks`."""

    action: str
    fields: Mapping[str, Any]
    service: str = "tasks"


class Ask(Protocol):
    def __call__(
        self, service: str, action: str, fields: Mapping[str, Any], timeout: float
    ) -> dict[str, Any]: ...


def last_words(task_id: str, mode: Mode, outcome: Outcome, reason: str) -> list[Word]:
    """What is said of the end. The status comes last: an agent that sees it kills this process, and
    the server takes no runtime property of a task that has ended."""
    status = "failed" if outcome is Outcome.FAILED else "stopped"
    said = {"status": status, "endpoint": "", "progress": "", "stop_reason": reason}
    told = {"status": status, "endpoint": ""}
    words = [
        Word("edit_hyper_params", api.properties(task_id, said)),
        Word("edit_runtime", live.edit(task_id, live.keys(told))),
    ]
    if mode is Mode.AGENT and outcome is Outcome.STOPPED:
        return words  # the agent says it
    fields = {"task": task_id, "status_message": reason, "status_reason": reason}
    # An agent writes "completed", too, with a message of its own; `failed` it may not follow up.
    forced = {"force": True} if outcome is not Outcome.COMPLETED else {}
    return [*words, Word(outcome.value, {**fields, **forced})]


@dataclass(frozen=True)
class Said:
    """What is left to say after a try, why, and whether the server took the status."""

    left: Sequence[Word]
    problem: str
    confirmed: bool


def say(ask: Ask, words: Sequence[Word], timeout: float) -> Said:
    """Try each request once, in their order. What the server refuses is not tried again; what gets
    no answer is left, with all that comes after it."""
    problem, confirmed = "", False
    for number, word in enumerate(words):
        try:
            ask(word.service, word.action, word.fields, timeout)
        except RefusedError as error:
            if error.status >= AWAY:
                return Said(words[number:], str(error), confirmed=False)
            problem = "" if word.action == "edit_runtime" else str(error)
            confirmed = False
        except Exception as error:  # noqa: BLE001 whatever stands between us and the server
            return Said(words[number:], one_line(error), confirmed=False)
        else:
            confirmed = word.action in (outcome.value for outcome in Outcome)
    return Said((), problem, confirmed)


def say_of(run: Run, ask: Ask, words: Sequence[Word], timeout: float) -> Said:
    """As `say`, but nothing of a task that is no longer this run's: who has aborted it may have
    enqueued it at once."""
    try:
        gone = is_taken(run, ask, timeout)
    except RefusedError as error:
        if error.status >= AWAY:
            return Said(words, str(error), confirmed=False)
        gone = False  # then it is said all the same
    except Exception as error:  # noqa: BLE001 whatever stands between us and the server
        return Said(words, one_line(error), confirmed=False)
    return Said((), TAKEN, confirmed=False) if gone else say(ask, words, timeout)


def is_taken(run: Run, ask: Ask, timeout: float) -> bool:
    """Whether the server says that the task is no longer this run's. Raises what `ask` raises."""
    asked = {"id": [run.task], "only_fields": SEEN, "search_hidden": True}
    found = ask("tasks", "get_all", asked, timeout).get("tasks") or []
    return any(taken(task, run.name) for task in found)


def unwatched(task: Any) -> None:
    """From here on the SDK no longer watches the status of the task: it would take the end that we
    write for an abort, and kill this process."""
    watcher = getattr(task, "_dev_worker", None)
    if watcher is not None:
        watcher.unregister()
