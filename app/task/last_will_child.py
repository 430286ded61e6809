"""Says what an instance can no longer say: an agent that is ended kills its task without a word.

A process of its own, outside the tree of processes that the agent kills. It reads wills from its
standard input, a line of JSON each, and carries out the last one when the instance has ended. An
empty will leaves nothing to say. It is started by its path and needs the standard library only: it
waits as long as the instance runs, at 20 MB.
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
from typing import Any

TRIES, PAUSE = 20, 3.0  # about a minute
LOOKS, LOOK = 20, 1.0  # for the agent's own end, which comes within 5 s
TIMEOUT = 5.0
UNAUTHORIZED, AWAY = 401, 500


class Server:
    """`access` has the host, the token, the key and secret, and what certificates are checked
    against: a path, or whether they are at all."""

    def __init__(self, access: Mapping[str, Any]) -> None:
        self._host, self._pair = access["host"], f"{access['key']}:{access['secret']}"
        self._authorization = f"Bearer {access['token']}"
        verify = access["verify"]
        self._tls = ssl.create_default_context(cafile=verify if isinstance(verify, str) else None)
        if not verify:
            self._tls.check_hostname, self._tls.verify_mode = False, ssl.CERT_NONE

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


def carry_out(will: Mapping[str, Any], pause: float = PAUSE, look: float = LOOK) -> None:
    server, words = Server(will["access"]), list(will["words"])
    if will["over"] and not _replaced(server, will["over"], look):
        return
    for _ in range(TRIES):
        while words and _said(server, words[0]):
            del words[0]
        if not words:
            return
        threading.Event().wait(pause)


def _said(server: Server, word: tuple[str, str, Mapping[str, Any]]) -> bool:
    """Whether the server has taken or refused it."""
    try:
        server.ask(*word)
    except urllib.error.HTTPError as error:
        return error.code < AWAY
    except (OSError, ValueError, KeyError):  # nobody answers, or not a ClearML server
        return False
    return True


def _replaced(server: Server, over: Mapping[str, str], look: float) -> bool:
    """Wait until another message stands in the place of ours; whether one does, with our status."""
    names = ["status", "status_message"]
    for _ in range(LOOKS):
        threading.Event().wait(look)
        try:
            (task,) = server.ask("tasks", "get_all", {"id": [over["task"]], "only_fields": names})[
                "tasks"
            ]
        except (OSError, ValueError, KeyError):
            continue
        if task["status"] != over["status"]:
            return False
        if task["status_message"] != over["status_message"]:
            return True
    return False


def main() -> None:
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    will = b"{}"
    for line in sys.stdin.buffer:
        if line.endswith(b"\n"):  # else it was killed while it wrote
            will = line
    if found := json.loads(will):
        carry_out(found)


if __name__ == "__main__":
    main()
