"""The will of an instance under an agent: what is said for it where it is killed.

An agent that receives SIGTERM writes "stopped" for its task, and then kills every process below it
by SIGKILL. Nobody else would take the rows out of Model Endpoints, or show that the instance has
ended. `last_will_child` does, as long as the machine or the container itself goes on.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from typing import IO, Any

from app.machine import children
from app.task import last_will_child
from app.task.outcome import Run, Word

logger = logging.getLogger(__name__)

ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR")
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")
BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")  # which the SDK's client knows, ours does not


class LastWill:
    def __init__(self) -> None:
        self._executor: IO[bytes] | None = None
        self._known: dict[str, Any] = {}  # what is the same in all wills

    def begin(self, access: Mapping[str, Any], run: Run) -> None:
        """Start the process that carries it out; where it cannot, there is no will. `access`: see
        `last_will_child.Server`."""
        self._known = {"access": dict(access), "task": run.task, "run": run.name}
        names = [n for n in os.environ if n in ENVIRONMENT or n.lower() in PROXIES]
        argv = [sys.executable, "-I", "-S", last_will_child.__file__]
        try:
            self._executor = children.outlive(argv, {n: os.environ[n] for n in names})
        except OSError as error:
            logger.debug("there is no last will: %s", error)

    def leave(self, words: Sequence[Word], over: Mapping[str, str] | None = None) -> None:
        """From now on these words are what is said. With `over`, they are said only after somebody
        has replaced this status message of the task, whose status still is this one."""
        listed = [(word.service, word.action, word.fields) for word in words]
        self._write({**self._known, "words": listed, "over": over})

    def dismiss(self) -> None:
        """Nothing is left to say."""
        self._write({})

    def _write(self, will: Mapping[str, Any]) -> None:
        if self._executor is None:
            return
        try:
            self._executor.write(json.dumps(will).encode() + b"\n")
            self._executor.flush()
        except OSError as error:
            logger.debug("the last will has no executor any more: %s", error)
            self._executor = None


def access(session: Any, verify: bool | str) -> dict[str, Any]:
    """Of the SDK's session: certificates are checked against what its client has, not against the
    system's, of which a container may have none."""
    from certifi import where

    bundle = next((os.environ[name] for name in BUNDLES if os.environ.get(name)), where())
    return {
        "host": session.host,
        "token": session.raw_token,
        "key": session.access_key or "",
        "secret": session.secret_key or "",
        "verify": bundle if verify is True else verify,
    }
