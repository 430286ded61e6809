"""What a ClearML server is, and what it lets us do. Changes nothing there."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from app.machine import clock
from app.task import api, login
from app.task.api import RefusedError
from app.task.login import ATTEMPT, Entry, UnreachableError
from app.task.mode import Mode
from app.task.sdk import NoAnswerError
from app.task.session import START_DEADLINE, Session

ADVANCED = "advanced"  # the feature set of ClearML Enterprise


@dataclass(frozen=True)
class Server:
    """`skew`: seconds by which its clock is ahead of ours, to the second; None: it does not tell
    its time. "" is not known."""

    address: str
    version: str = ""
    api: str = ""
    enterprise: bool = False
    skew: float | None = None


class Survey:
    """The methods that are awaited raise ClearMLError where ClearML does not do what was asked."""

    def __init__(self, *, offline: bool, environment: Mapping[str, str]) -> None:
        self._session = Session(offline=offline, environment=environment)
        self._session.start()

    async def online(self) -> bool:
        """Whether the app would use a ClearML server."""
        if self._session.known_offline:
            return False
        await self._session.find_mode()
        return self._session.mode is not Mode.OFFLINE

    async def server(self) -> Server:
        """Log in, once. Raises ClearMLError that names the server and says what to do."""
        call = self._session.call
        address = await call("reading clearml.conf", login.shown_address, START_DEADLINE)
        try:
            return await call("auth.login", _logged_in, ATTEMPT)
        except NoAnswerError:
            raise UnreachableError(login.unanswered(address)) from None

    async def queues(self) -> Sequence[str]:
        """Names of those that we may see."""
        fields = {"only_fields": ["name"]}
        found = await self._session.ask("queues", "get_all", fields, START_DEADLINE)
        return sorted(str(queue.get("name") or "") for queue in found.get("queues") or [])

    async def has_endpoints(self) -> bool:
        """Whether the server has the Model Endpoints table."""
        return await self._answers("serving", "get_endpoints", {})

    async def has_route(self, name: str) -> bool:
        """Whether the App Gateway has this static route."""
        fields = {"name": f"^{re.escape(name)}$"}
        found = await self._session.ask("routers", "get_routes", fields, START_DEADLINE)
        return bool(found.get("routes"))

    async def _answers(self, service: str, action: str, fields: Mapping[str, str]) -> bool:
        try:
            await self._session.ask(service, action, fields, START_DEADLINE)
        except RefusedError as error:
            if api.unknown_action(error):
                return False
            raise
        return True


def _logged_in() -> Server:
    asked = clock.wall()
    entry = login.log_in(ATTEMPT)
    return told(login.shown_address(), entry, (asked + clock.wall()) / 2)


def told(address: str, entry: Entry, now: float) -> Server:
    """What the answer to a login says, which came at `now`, in seconds since the epoch."""
    claims = _claims(entry.token)
    return Server(
        address,
        version=str(claims.get("server_version") or ""),
        api=str(claims.get("api_version") or ""),
        enterprise=claims.get("feature_set") == ADVANCED,
        skew=_skew(entry.date, now),
    )


def _claims(token: str) -> Mapping[str, object]:
    """What the server says of itself in a token (RFC 7519); {} if it is of another kind."""
    try:
        payload = token.split(".")[1]
        found = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _skew(date: str, now: float) -> float | None:
    """By the `Date` of an answer, which leaves out what is less than a second."""
    try:
        return parsedate_to_datetime(date).timestamp() + 0.5 - now
    except (TypeError, ValueError):
        return None
