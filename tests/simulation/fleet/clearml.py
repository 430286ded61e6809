"""ClearML's API server, as doors and agents see it; its state is that of tests/clearml_api."""

import asyncio
import contextlib
from datetime import datetime, timezone
from email.utils import formatdate

from app.machine import clock
from app.task.api import RefusedError
from app.task.sdk import NoAnswerError
from tests.clearml_api import state as api_state
from tests.clearml_api.state import ApiError, State

PROJECT, QUEUE = "Serving", "gpu"


class Server:
    """`weather`: fine, down, silent, slow, or lossy: it does what it is asked, and now and then no
    answer arrives. `refuses`: actions that it does not allow."""

    def __init__(self, world, refuses):
        self.world, self.weather, self.refuses = world, "fine", refuses
        self.state = State()
        self.unknown = 0  # tasks whose ID nobody has been told
        self.strayed = {}  # tasks that were given to nobody, and when
        self.state.queues_create({"name": QUEUE})
        (self.queue,) = self.state.queues

    def living(self, *statuses):
        return [task for task in self.state.tasks.values() if task["status"] in statuses]

    async def act(self, name, fields, who):
        """As somebody's request: its answer. Raises ApiError, OSError."""
        draw = self.world.draw("clearml")
        slow = self.weather == "slow"
        await asyncio.sleep(draw.uniform(1, 6) if slow else draw.uniform(0.002, 0.05))
        if self.weather == "down":
            raise ConnectionRefusedError(111, "Connection refused")
        if self.weather == "silent":
            await asyncio.sleep(7)
            raise TimeoutError("timed out")
        lost = self.weather == "lossy" and draw.random() < 0.3
        if lost and draw.random() < 0.5:
            raise ConnectionResetError(104, "lost on the way there")
        if name in self.refuses:
            raise ApiError(403, 0, "not allowed")
        self.world.trace(f"ClearML: {who}: {name}")
        if name == "tasks.enqueue":
            self.world.enqueued(fields["task"], who)
        found = self.state.act(name, dict(fields))
        if lost:
            self.unknown += name in ("tasks.clone", "tasks.create")
            if name == "queues.get_next_task" and found["entry"]:
                self.strayed[found["entry"]["task"]] = clock.now()
            raise ConnectionResetError(104, "lost on the way back")
        return found

    async def patiently(self, name, fields, who):
        """As an agent asks, or the SDK of an instance: until there is an answer."""
        while True:
            with contextlib.suppress(OSError):
                return await self.act(name, fields, who)
            await asyncio.sleep(2)


class DoorTask:
    """The task of a door, as far as `app/fleet` asks it: `ClearMLTask.once`, one at a time."""

    def __init__(self, server, name):
        self.server, self.task_id = server, name
        self._turn = asyncio.Lock()

    async def once(self, service, action, fields, deadline):
        call = f"{service}.{action}"
        async with self._turn:
            try:
                found = await self.server.act(call, fields, self.task_id)
            except ApiError as error:
                raise RefusedError(f"ClearML: {call}: {error}", error.code) from None
            except OSError as error:
                raise NoAnswerError(f"ClearML: {call}: {error}") from None
        return found, formatdate(clock.wall())


def replacements(world):
    """Its time and IDs are the world's."""
    draw = world.draw("ids")

    def now():
        return datetime.fromtimestamp(clock.wall(), timezone.utc).isoformat()

    return [
        (api_state, "now", now),
        (api_state, "new_id", lambda: draw.randbytes(16).hex()),
    ]
