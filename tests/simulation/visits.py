"""A person at the instance's own pages: looks, loads and parks models, and watches what happens."""

import asyncio
import json
from dataclasses import dataclass

from tests.simulation.clients import HOST, Answers, Call

PAGES = ("/health", "/ready", "/api/status", "/metrics", "/v1/models", "/", "/api/history")
ACTIONS = ("load", "park", "unload", "pin", "unpin")
EVENTS = "/api/events"
SHOWN = {200, 503}  # not ready, or stopping
CHANGED = {202, 409, 503}


@dataclass
class Visit(Call):
    """A request for a page of ours."""

    method: str = "GET"

    def bytes(self):
        lines = [f"{self.method} {self.path} HTTP/1.1", f"host: {HOST}"]
        lines += [f"authorization: Bearer {self.key}"] if self.key else []
        lines += ["content-length: 0"] if self.method == "POST" else []
        return "\r\n".join([*lines, "", ""]).encode()


class Visitor:
    def __init__(self, world):
        self.world, self.draw = world, world.draw("visitor")

    async def live(self):
        while not self.world.quiet:
            await asyncio.sleep(self.draw.expovariate(1 / self.world.scene.visits))
            await self._visit(self._next())

    def _next(self):
        draw, model = self.draw, self.draw.choice(self.world.models)
        about = {"name": "visit", "model": model, "streams": False, "length": 0}
        about |= {"limit": None, "words": 0, "wait": None}
        kind = draw.random()
        if kind < 0.5:
            return Visit(**about, path=draw.choice(PAGES))
        if kind < 0.6:
            return Visit(**about, path=EVENTS, leaves_after=draw.uniform(1, 60))
        return Visit(**about, path=f"/api/models/{model}/{draw.choice(ACTIONS)}", method="POST")

    async def _visit(self, visit):
        world = self.world
        visit.key = world.key or world.token()
        connection = Answers(world.loop)
        try:
            await world.network.reach(lambda: connection, world.port, "127.0.0.9", 0.001)
        except OSError:
            return
        connection.begin(visit)
        visit.sent = world.loop.time()
        connection.transport.write(visit.bytes())
        await asyncio.wait({connection.done}, timeout=visit.leaves_after or 100)
        connection.transport.abort()
        self._judge(visit)

    def _judge(self, visit):
        world, now = self.world, self.world.loop.time()
        early = world.opened is None or not visit.key
        if visit.path == EVENTS or early or world.ending(now):
            return
        expected = CHANGED if visit.method == "POST" else SHOWN
        if visit.status not in expected or not visit.whole:
            world.violated(f"{visit.method} {visit.path}: {visit.status}: {bytes(visit.body)!r}")
        elif visit.path == "/api/status":
            shown = {model["name"] for model in json.loads(bytes(visit.body))["models"]}
            if shown != set(world.models):
                world.violated(f"the status shows {shown}")
