"""Requests to ClearML's API server by the SDK's session, each with a checked answer.

Most of the SDK's own methods log a refusal and return as if it had worked. Requests whose outcome
matters are sent from here. Everything in this module runs in the SDK's thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.machine import clock
from app.task.sdk import CREDENTIALS, ClearMLError, Complaints, one_line, said

NOT_FOUND = 404
UNKNOWN = ("unable to find endpoint", "unknown endpoint", "unsupported endpoint")
PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds between two attempts


class RefusedError(ClearMLError):
    """The server refused the request; `status` is its answer's `result_code`: the HTTP status that
    the server gave it."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


def ask(service: str, action: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Send a request; the data of the answer. Raises what `data` raises, or any SDK exception."""
    from clearml import Task

    session = Task._get_default_session()
    response = session.send_request(service, action, json=dict(fields), method="post")
    return data(f"{service}.{action}", response)


def data(call: str, response: Any) -> dict[str, Any]:
    """The data of an answer to `call`. Raises RefusedError, or ClearMLError if the answer is not
    from a ClearML server."""
    told = _told(response)
    if told is None:
        address = said(response.url).partition("?")[0]
        raise ClearMLError(
            f"ClearML: {call}: the answer is not a ClearML server's ({http(response)}, from "
            f"{address}): check the API server's address, and the proxies on the way to it"
        )
    code = told["meta"].get("result_code") or response.status_code
    if not response.ok or code >= 400:
        why = said(told["meta"].get("result_msg") or f"HTTP {response.status_code}")
        raise RefusedError(f"ClearML: {call}: {why}", code)
    return told.get("data") or {}


def http(response: Any) -> str:
    """An answer's status and type."""
    kind = said(response.headers.get("Content-Type") or "no content type")
    return f"HTTP {response.status_code}, {kind}"


def _told(response: Any) -> dict[str, Any] | None:
    """The answer's JSON; None if it is not from a ClearML server but, say, a proxy's page."""
    try:
        told = response.json()
    except (ValueError, RecursionError):
        return None
    if not isinstance(told, dict) or not isinstance(told.get("meta"), dict):
        return None
    code, found = told["meta"].get("result_code"), told.get("data")
    shaped = isinstance(code, (int, type(None))) and isinstance(found, (dict, type(None)))
    return told if shaped else None


def be_patient(session_class: Any, outage: type[Exception]) -> None:
    """Make `session_class.send` wait and try again while it raises `outage`.

    The SDK itself tries again at once, without a pause, and prints a traceback each time.
    """
    send, complaints = session_class.send, Complaints()

    def patient_send(*given: Any, **named: Any) -> Any:
        pause = PAUSE
        while True:
            try:
                result = send(*given, **named)
            except outage as error:
                complaints.failed("", f"ClearML: {one_line(error)}; trying again until it answers")
            else:
                complaints.worked("")
                return result
            clock.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    session_class.send = patient_send


def page(task_id: str) -> str:
    """A task's page in the web UI. Raises ValueError where its server's address is not known."""
    from clearml import Task
    from clearml.backend_api import Session

    server = CREDENTIALS.sub("", str(Session.get_app_server_host()))
    return str(Task.get_task_output_log_web_page(task_id, app_server_host=server))


def task(task_id: str) -> dict[str, Any]:
    """A task as the server has it now."""
    found: dict[str, Any] = ask("tasks", "get_by_id", {"task": task_id})["task"]
    return found


def parameters(task_id: str) -> dict[str, str]:
    """A task's hyperparameters as the server has them now, by "Section/name"."""
    return flat(task(task_id).get("hyperparams"))


def flat(sections: Any) -> dict[str, str]:
    """Hyperparameters by "Section/name". A section or an entry that is no object is ignored: a
    server keeps whatever its clients have written."""
    return {
        f"{section}/{name}": str(entry.get("value") or "")
        for section, entries in _objects(sections)
        for name, entry in _objects(entries)
    }


def _objects(found: Any) -> list[tuple[str, Mapping[str, Any]]]:
    """The members of a JSON object that are objects themselves."""
    members = found.items() if isinstance(found, Mapping) else ()
    return [(key, value) for key, value in members if isinstance(value, Mapping)]


def properties(task_id: str, values: Mapping[str, str]) -> dict[str, Any]:
    """The fields of tasks.edit_hyper_params that set these user properties, and no other."""
    items = [{"section": "properties", "name": k, "value": v} for k, v in values.items()]
    return {"task": task_id, "hyperparams": items, "replace_hyperparams": "none"}


def set_properties(task_id: str, values: Mapping[str, str]) -> None:
    """Set user properties; the others stay as they are."""
    ask("tasks", "edit_hyper_params", properties(task_id, values))


def unknown_action(error: RefusedError) -> bool:
    """Whether this is how a server answers that does not have the request at all. The status alone
    does not tell: a proxy on the way may put its own in its place."""
    return error.status == NOT_FOUND or any(words in str(error).lower() for words in UNKNOWN)
