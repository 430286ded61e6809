"""`POST /api/models/<name>/load|park|unload|pin|unpin`: a person moves or pins a model."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from typing import Any

from app.errors import AppError, RequestError
from app.gateway.admission import Admins
from app.gateway.http.request import Request
from app.gateway.proxy import Page
from app.gateway.routes import ACTION, ACTIONS
from app.memory.pool import Pool

logger = logging.getLogger(__name__)

AT_ONCE = 0.1  # seconds in which it shows that a model cannot be loaded beside pinned ones
NOT_HERE = (
    "this instance has no API key: to change its models, send the token of this run as "
    "`Authorization: Bearer …` or `X-Api-Key`; its console says where the token is"
)


def pages(pool: Pool[Any], admins: Admins) -> dict[str, Page]:
    """What answers each action's path."""
    loads = _Loads(pool)

    async def begin(request: Request, name: str, action: str) -> None:
        if not admins.may_change_models(request.headers):
            raise RequestError(403, NOT_HERE)
        if action in ("pin", "unpin"):
            pool.pin(name, action == "pin")
        elif action == "load":
            await loads.begin(name)
        elif action == "park":
            pool.park(name)
        else:
            pool.unload(name)
        view = next(view for view in pool.view() if view.name == name)
        body = {"name": name, "state": view.state.value, "pinned": view.pinned}
        request.reply(202, json.dumps(body).encode())

    def page(action: str) -> Page:
        return lambda request, name, _: begin(request, name or "", action)

    return {ACTION.format(action=action): page(action) for action in ACTIONS}


class _Loads:
    """Those that were asked for and go on."""

    def __init__(self, pool: Pool[Any]) -> None:
        self._pool = pool
        self._running: set[asyncio.Task[RequestError | None]] = set()

    async def begin(self, name: str) -> None:
        """Raises RequestError for a load that is refused at once."""
        self._pool.check(name)
        task = asyncio.ensure_future(self._load(name))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        done, _ = await asyncio.wait({task}, timeout=AT_ONCE)
        refused = task.result() if done else None
        if refused is not None:
            raise refused

    async def _load(self, name: str) -> RequestError | None:
        """Why it is refused, if it is."""
        try:
            await self._pool.load(name)
        except (AppError, RequestError) as error:
            told = re.sub(rf"^{re.escape(name)}:? ", "", str(error), count=1)
            logger.warning("%s", told, extra={"subject": name})
            return error if isinstance(error, RequestError) else None
        return None
