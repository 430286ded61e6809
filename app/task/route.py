"""The ClearML AI App Gateway: request a route, and follow the address that the gateway writes.

Only Enterprise servers have it; elsewhere the endpoint is this machine's own address.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from json import JSONDecodeError
from typing import Any

from app.errors import ConfigError
from app.task.clearml_task import ClearMLTask
from app.task.sdk import ClearMLError

logger = logging.getLogger(__name__)

DEADLINE = 60.0
POLL = 3.0  # seconds between two looks, until there is an address
FOLLOW = 30.0  # seconds between two looks, afterwards
PATIENCE = 90.0  # seconds without an address, until a warning
FIELD = "General/gateway_route"
PORTS = "_external_host_tcp_port_mapping"  # a runtime property of the agent's


class Route:
    def __init__(self, task: ClearMLTask) -> None:
        self._task = task
        self._following: asyncio.Task[None] | None = None

    async def available(self) -> bool:
        """Whether this task's server has a gateway; logs it if there is none."""
        if not self._task.under_agent:
            return False
        return await self._task.call("looking for an App Gateway", _advanced, DEADLINE)

    async def published(self, port: int) -> int:
        """By which port of its host others reach this port of a container."""
        if not self._task.under_agent:
            return port
        call = "looking for the container's ports"
        return await self._task.call(call, lambda task: published(mapping(task), port), DEADLINE)

    async def request(self, port: int, static: str) -> None:
        """Request a route to this port: the static route of that name, or one of the task's own.

        Raises ConfigError that says what is wrong with a static one.
        """
        # A restarted task still has the address of the run before.
        await self._task.set_runtime({"endpoint": "", "browser_endpoint": ""})
        await self._task.call(
            "asking for a route", lambda task: _request(task, port, static), DEADLINE
        )
        logger.info("asked the App Gateway for %s", f"the route {static}" if static else "a route")

    def follow(self, tell: Callable[[str], None]) -> None:
        """Call `tell` with the address that the gateway gives, and whenever it changes."""
        self._following = asyncio.create_task(self._follow(tell))

    def stop(self) -> None:
        if self._following is not None:
            self._following.cancel()

    async def _follow(self, tell: Callable[[str], None]) -> None:
        known, waited = "", 0.0
        while True:
            found = await self._endpoint()
            if found and found != known:
                known = found
                logger.info("the App Gateway's endpoint is %s", known)
                tell(known)
            if not known and waited < PATIENCE <= waited + POLL:
                logger.warning(
                    "the App Gateway has given no address in %.0f s; check that it runs and that "
                    "it reaches this machine. Still waiting",
                    PATIENCE,
                )
            waited += POLL
            await asyncio.sleep(FOLLOW if known else POLL)

    async def _endpoint(self) -> str:
        """The address in the task now; "" if there is none or the request fails."""
        try:
            return await self._task.call("looking for the endpoint", _read, DEADLINE)
        except ClearMLError as error:
            logger.debug("%s", error)
            return ""


def _advanced(_: Any) -> bool:
    from clearml.backend_api import Session

    try:
        Session.verify_feature_set("advanced")
    except ValueError:
        logger.info("this ClearML server has no App Gateway: the endpoint is this machine's own")
        return False
    return True


def _request(task: Any, port: int, static: str) -> None:
    # With the empty name, which is the default endpoint's, a second request replaces the first.
    try:
        task.request_external_endpoint(
            port=port, protocol="http", wait=False, static_route=static or None, endpoint_name=""
        )
    except JSONDecodeError:
        raise  # a ValueError too, but about a proxy's answer, not about the route
    except ValueError as error:
        raise ConfigError(f"{FIELD}: {error}") from None


def _read(task: Any) -> str:
    task.reload()
    return str((task._get_runtime_properties() or {}).get("endpoint") or "").rstrip("/")


def mapping(task: Any) -> str:
    """What the agent has told of the ports that it published for a container."""
    return str((task._get_runtime_properties() or {}).get(PORTS) or "")


def published(ports: str, port: int) -> int:
    """The host's port for one of the container's, by the agent's "host:container,…", each a port
    or a range (clearml-agent, helper/docker_args.py); the same port where none is told."""
    for pair in ports.split(","):
        outside, _, inside = pair.strip().partition(":")
        try:
            first, low, high = _range(outside)[0], *_range(inside)
        except ValueError:
            continue
        if low <= port <= high:
            return first + port - low
    return port


def _range(text: str) -> tuple[int, int]:
    low, dash, high = text.partition("-")
    return int(low), int(high if dash else low)
