"""Says what an instance can no longer say: an agent that is ended kills its task without a word.

A process of its own, outside the tree of processes that the agent kills. It reads wills from its
standard input, a line of JSON each, and carries out the last one when the instance has ended. An
empty will leaves nothing to say, and so does a task that somebody else has by then. It is started
by its path and needs the standard library only: it waits as long as the instance runs, at 20 MB.
"""

from __future__ import annotations

import base64
import json
import signal
import ssl
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any

TRIES, PAUSE = 20, 3.0  # about a minute
LONGEST = 90  # seconds, whatever hangs: then the process ends
LOOKS, LOOK = 20, 1.0  # for the agent's own end, which comes within 5 s
TIMEOUT = 5.0
UNAUTHORIZED, AWAY = 401, 500
# Nobody answers, or not a ClearML server.
FAILURES = (OSError, HTTPException, ValueError, KeyError, TypeError)

RUN = "run"  # the user property that each run of a task makes anew
WAITING = ("created", "queued")  # a task that was reset or enqueued
SEEN = ["status", "status_message", "hyperparams.properties"]  # what is asked of a task


def taken(task: Mapping[str, Any], run: str) -> bool:
    """Whether a task, as the server has it, is no longer that of this run: it waits for another
    one, or another one has begun. `run`: "" if the task does not show which it is."""
    properties = (task.get("hyperparams") or {}).get("properties") or {}
    shown = (properties.get(RUN) or {}).get("value")
    return task["status"] in WAITING or bool(run and shown and shown != run)


class Server:
    """`access` has the host, the token, the key and secret, and what certificates are checked
    against: a path, or whether they are at all."""

    def __init__(self, access: Mapping[str, Any]) -> None:
        self._host, self._pair = access["host"], f"{access['key']}:{access['secret']}"
        self._authorization = f"Bearer {access['token']}"
        self._tls = _tls(access["verify"])

    def ask(self, service: str, action: str, fields: Mapping[str, Any]) -> Any:
        """The data of the answer. Raises OSError; HTTPError, which is one, for a refusal."""
        call = f"{service}.{action}"
        try:
            return self._send(call, fields, self._authorization)
        except urllib.error.HTTPError as error:
            if error.code != UNAUTHORIZED or self._pair == ":":
                raise
        basic = base64.b64encode(self._pair.encode()).decode()
        token = self._send("auth.login", {}, f"Basic {basic}")["token"]
        self._authorization = f"Bearer {token}"
        return self._send(call, fields, self._authorization)

    def _send(self, call: str, fields: Mapping[str, Any], authorization: str) -> Any:
        headers = {"Authorization": authorization, "Content-Type": "application/json"}
        body = json.dumps(fields).encode()
        request = urllib.request.Request(f"{self._host}/{call}", body, headers)  # noqa: S310
        with urllib.request.urlopen(request, timeout=TIMEOUT, context=self._tls) as answer:  # noqa: S310
            return json.load(answer)["data"]


def _tls(verify: bool | str) -> ssl.SSLContext:
    """Raises OSError where there is nothing at the path."""
    if isinstance(verify, str):
        folder = Path(verify).is_dir()
        return ssl.create_default_context(
            cafile=None if folder else verify, capath=verify if folder else None
        )
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def carry_out(will: Mapping[str, Any], pause: float = PAUSE, look: float = LOOK) -> None:
    server, words = Server(will["access"]), list(will["words"])
    if will["over"] and not _replaced(server, will["task"], will["over"], look):
        return
    for _ in range(TRIES):
        try:
            if taken(_task(server, will["task"]), will["run"]):
                return
            while words:
                _say(server, words[0])
                del words[0]
            return
        except FAILURES:
            threading.Event().wait(pause)


def _task(server: Server, task_id: str) -> Mapping[str, Any]:
    """The task as the server has it. Raises one of FAILURES."""
    asked = {"id": [task_id], "only_fields": SEEN, "search_hidden": True}
    (found,) = server.ask("tasks", "get_all", asked)["tasks"]
    return dict(found)


def _say(server: Server, word: tuple[str, str, Mapping[str, Any]]) -> None:
    """Raises one of FAILURES where the server has neither taken nor refused it."""
    try:
        server.ask(*word)
    except urllib.error.HTTPError as error:
        if error.code >= AWAY:
            raise


def _replaced(server: Server, task_id: str, over: Mapping[str, str], look: float) -> bool:
    """Wait until another message stands in the place of ours; whether one does, with our status."""
    for _ in range(LOOKS):
        threading.Event().wait(look)
        try:
            task = _task(server, task_id)
            if task["status"] != over["status"]:
                return False
            if task["status_message"] != over["status_message"]:
                return True
        except FAILURES:
            continue
    return False


def main() -> None:
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    will = b"{}"
    for line in sys.stdin.buffer:
        if line.endswith(b"\n"):  # else it was killed while it wrote
            will = line
    if found := json.loads(will):
        signal.alarm(LONGEST)
        carry_out(found)


if __name__ == "__main__":
    main()
