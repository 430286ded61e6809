"""ClearML: whether its server lets us in, what it is, and what it can."""

from __future__ import annotations

import asyncio

from app.doctor.finding import Finding, not_checked, ok, problem, warning
from app.task.sdk import ClearMLError
from app.task.survey import Server, Survey

SKEWED = 30.0  # seconds
NOT_USED = "ClearML is not used"
NO_ANSWER = "the ClearML server does not let us in"
CREDENTIALS = "run clearml-init, or set CLEARML_API_HOST and the two CLEARML_API_*_KEY"


class ClearML:
    """One server; it is asked once who it is, for all checks."""

    def __init__(self, survey: Survey, *, wanted: bool, queue: str, route: str) -> None:
        """`queue` and `route` by the form; "" are none."""
        self._survey = survey
        self._wanted = wanted
        self._queue = queue
        self._route = route
        self._asking: asyncio.Task[Server | None] | None = None

    async def _server(self) -> Server | None:
        """None if none is used. Raises ClearMLError."""
        if self._asking is None:
            self._asking = asyncio.ensure_future(self._ask())
        return await asyncio.shield(self._asking)

    async def _ask(self) -> Server | None:
        if not self._wanted or not await self._survey.online():
            return None
        return await self._survey.server()

    async def _behind(self) -> Server | Finding:
        """The server; or the finding of a check that needs one."""
        try:
            return await self._server() or not_checked(NOT_USED)
        except ClearMLError:
            return not_checked(NO_ANSWER)

    async def server(self) -> Finding:
        server = await self._server()
        if server is None:
            why = "no credentials" if self._wanted else "it is not to be used"
            return not_checked(f"{why}: models are served without it", CREDENTIALS)
        kind = "Enterprise" if server.enterprise else "open source"
        version = f"version {server.version or 'not known'} (API {server.api or 'not known'})"
        return ok(f"{server.address} lets us in: {kind}, {version}")

    async def gateway(self) -> Finding:
        server = await self._behind()
        if isinstance(server, Finding):
            return server
        if not server.enterprise:
            if self._route:
                seen = f"General/gateway_route is {self._route}, and open source has no App Gateway"
                return warning(seen, "empty it; callers reach the machine's own address")
            return ok("none with open source: callers reach the machine's own address")
        if not self._route:
            return ok("Enterprise: an instance that an agent runs asks for a route of its own")
        if await self._survey.has_route(self._route):
            return ok(f"it has the static route {self._route}")
        seen = f"it has no static route {self._route}"
        return problem(seen, "create it in ClearML's settings, or empty General/gateway_route")

    async def endpoints(self) -> Finding:
        server = await self._behind()
        if isinstance(server, Finding):
            return server
        if await self._survey.has_endpoints():
            return ok("the server has the Model Endpoints table")
        return warning("the server has no Model Endpoints table", "update it: it needs API 2.31")

    async def queue(self) -> Finding:
        server = await self._behind()
        if isinstance(server, Finding):
            return server
        names = await self._survey.queues()
        shown = f"queues that we may see: {len(names)}"
        if self._queue and self._queue not in names:
            known = ", ".join(names) or "none"
            return problem(f"no queue {self._queue}; there is: {known}", "correct General/queue")
        if not names:
            return warning(
                shown, "create a queue, or ask for the right to see one, to launch there"
            )
        return ok(f"{shown}, with {self._queue}" if self._queue else shown)

    async def clock(self) -> Finding:
        server = await self._behind()
        if isinstance(server, Finding):
            return server
        if server.skew is None:
            return not_checked("the server does not tell its time")
        away = round(abs(server.skew))
        which = "ahead of" if server.skew > 0 else "behind"
        if away > SKEWED:
            advice = "set this machine's clock (NTP): tokens and curves depend on it"
            return warning(f"the server is {away} s {which} this machine", advice)
        return ok(f"at most {away + 1} s from the server's")
