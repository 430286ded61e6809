"""The routes as the configuration of the door's task has them, and the models that they have."""

from __future__ import annotations

import contextlib
import logging

from app.errors import AppError, UpstreamError
from app.fleet import config
from app.fleet.config import Route
from app.fleet.orders import Orders
from app.fleet.routes import Routes
from app.fleet.standing import RouteState
from app.form.checks import default_endpoint_name
from app.models.reference import title

logger = logging.getLogger(__name__)


class Edits:
    def __init__(self, routes: Routes, orders: Orders, door: str, task: str, text: str) -> None:
        """`door`: this door's name among others; `task`: its own; `text`: of the routes, as they
        are served now."""
        self._routes = routes
        self._orders = orders
        self._door = door
        self._task = task
        self._text = text

    async def look(self) -> None:
        """Serve what somebody has edited. Raises ConfigError."""
        text = await self._orders.routes(self._task)
        if text.strip() and text != self._text:
            self._text = text
            await self._heed(text)
        await self.name_models()

    async def _heed(self, text: str) -> None:
        routes = config.parse(text)
        logger.info("the routes are now: %s", ", ".join(route.name for route in routes))
        for gone in self._routes.configure(routes):
            for member in gone.members.values():
                member.release()
                with contextlib.suppress(UpstreamError):
                    await member.keep(self._door)

    async def name_models(self) -> None:
        """Which models the routes have, by their templates."""
        for state in list(self._routes.states.values()):
            if state.named != state.route:
                await self._name(state)
        self._routes.rename()

    async def _name(self, state: RouteState) -> None:
        route = state.route
        try:
            state.models = await models_of(self._orders, route)
        except AppError as error:
            if state.unreadable != str(error):
                logger.warning("route %s: %s", route.name, error)
            state.unreadable = str(error)
        else:
            state.unreadable, state.named = "", route


async def models_of(orders: Orders, route: Route) -> tuple[str, ...]:
    """The endpoint names of the models that the route's instances serve. Raises ConfigError."""
    settings = await orders.settings(route)
    named = (each.endpoint_name or title(each.model) for each in settings.models)
    return tuple(default_endpoint_name(name) for name in named)
