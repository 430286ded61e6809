"""How this process reaches ClearML: the SDK's thread, whether there is a server, and requests."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

from app.errors import ConfigError
from app.task import api, login, mode
from app.task.login import UnreachableError
from app.task.mode import Mode
from app.task.sdk import Complaints, SdkThread, translated

logger = logging.getLogger(__name__)

T = TypeVar("T")

START_DEADLINE = 60.0
INSTEAD = "or start with --offline"


class Session:
    """The methods that are awaited raise ClearMLError where ClearML does not do what was asked."""

    def __init__(self, *, offline: bool, environment: Mapping[str, str]) -> None:
        self.known_offline = mode.known_offline(offline, environment)
        self.mode = Mode.OFFLINE  # until `find_mode`
        self._environment = environment
        self._sdk = SdkThread()
        self._server = ""  # the API server's address, once it has let us in
        self._complaints = Complaints()

    def start(self) -> None:
        self._sdk.start()

    async def find_mode(self) -> None:
        def find() -> Mode:
            found = mode.find(self._environment)
            if found is not Mode.OFFLINE:
                mode.prepare()
            elif self._environment.get("CLEARML_API_HOST"):
                logger.warning("ClearML: %s", login.without_credentials())
            return found

        self.mode = await self.call("reading clearml.conf", find, START_DEADLINE)

    async def log_in_to_serve(self) -> None:
        """An agent's task outlives a short outage; a person is told at once."""
        agent = self.mode is Mode.AGENT
        try:
            await self._log_in(START_DEADLINE if agent else 0.0)
        except UnreachableError as error:
            raise error if agent else ConfigError(f"{error}, {INSTEAD}") from None

    async def _log_in(self, patience: float = 0.0) -> None:
        """Raises ClearMLError that names the server and says what to do."""
        self._server = await login.enter(self._sdk, patience)

    def silent(self) -> ConfigError:
        """What is wrong where the server let us in, and no longer answers."""
        problem = f"ClearML: {self._server} does not answer any more ({START_DEADLINE:.0f} s)"
        logger.warning("ClearML: the SDK waits at %s", self._sdk.place())
        return ConfigError(f"{problem}: {INSTEAD}")

    async def call(self, name: str, function: Callable[[], T], deadline: float | None) -> T:
        """Run `function` in the SDK's thread; a failure names the call."""
        return await self._sdk.call(name, function, deadline)

    async def ask(
        self, service: str, action: str, fields: Mapping[str, Any], deadline: float
    ) -> dict[str, Any]:
        """Send a request to the server's API; the data of the answer."""
        if not self._server:
            await self._log_in()
        return await self.call(
            f"{service}.{action}", lambda: api.ask(service, action, fields), deadline
        )

    def post(self, what: str, function: Callable[[], object]) -> None:
        """Call `function` in the SDK's thread, without waiting for it."""
        self._sdk.post(function).add_done_callback(partial(self._posted, what))

    def _posted(self, what: str, future: Future[object]) -> None:
        error = future.exception()
        if error is None:
            self._complaints.worked(what)
        else:
            self._complaints.failed(what, translated(what, error))
