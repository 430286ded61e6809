"""One fleet, by one seed: doors as they are in production from `app/fleet/watch.py` and the front
down; the agents, the instances and ClearML's server are simulated."""

import asyncio
import contextlib
import gc
import logging
from collections import Counter
from dataclasses import dataclass, field

from app.fleet.config import Route
from app.fleet.edits import Edits
from app.fleet.orders import Orders
from app.fleet.routes import Routes
from app.fleet.watch import LEAVING, Watch
from app.form.merge import merge, parse
from app.gateway.admission import Keys
from app.gateway.body.reading import Reading
from app.gateway.body.sizes import allowance
from app.gateway.body.workers import Workers
from app.gateway.http.limits import Limits
from app.gateway.http.server import HttpServer
from app.gateway.proxy import Proxy
from app.gateway.rules import Rules
from app.machine import chance, clock, garbage, network, threads
from tests.simulation.fleet import clearml, faults, invariants
from tests.simulation.fleet.callers import HOLD, SLACK, Caller
from tests.simulation.fleet.instances import SECRET, Agent
from tests.simulation.fleet.scene import QUICK, QUIET_END, scene
from tests.simulation.loop import Stuck, VirtualLoop
from tests.simulation.observing import Told
from tests.simulation.records import Records
from tests.simulation.seams import EPOCH, Chance, in_a_moment
from tests.simulation.wire import Network

FORM = {"Model/model": "p/r/m.gguf", "Model/endpoint_name": "m", "General/queue": clearml.QUEUE}
REST = 15.0  # seconds for what is under way
LAST = 400.0  # seconds after the last door, in which the instances have to end


@dataclass(frozen=True)
class Outcome:
    seed: int
    violations: list
    digest: str
    seconds: float
    counts: Counter
    faults: Counter
    lines: list = field(repr=False, default_factory=list)


class Door:
    """One of the doors: as `app/fleet/door.py` puts it together, without a task of the SDK."""

    def __init__(self, world, number):
        self.world, self.name, self.port = world, f"door-{number}", 8080 + number
        route = world.route
        task = clearml.DoorTask(world.clearml, self.name)
        orders = Orders(task, clearml.PROJECT, None, SECRET)
        orders.settings = self._settings
        self.routes = Routes(world.wait, SECRET)
        self.routes.configure([route])
        self.state = self.routes.states["chat"]
        edits = Edits(self.routes, orders, self.name, self.name, "")
        self.watch = Watch(self.routes, orders, edits, self.name, self.name)
        self.orders, self.edits = orders, edits
        self.workers = Workers()

    async def _settings(self, route):
        return parse(merge(FORM, {}, {}))

    async def start(self):
        async def no_text(task):
            return ""

        self.orders.routes = no_text
        await self.edits.name_models()
        reading = Reading(self.workers, lambda _: allowance(None), allow_remote=True)
        self.routes.read_by(reading)
        self.routes.on_wait = self.watch.want
        rules = Rules(Keys([]), prefixes=["/service"])
        proxy = Proxy(self.routes, self.routes.names, rules, {}, lambda _: None, reading)
        self.server = HttpServer(proxy, Limits())
        await self.server.start("127.0.0.1", self.port, fallback=0)
        self.watch.start()

    async def stop(self):
        await self.watch.stop(LEAVING)
        self.routes.close()
        await self.routes.drained()
        await self.server.close()
        await self.workers.close()
        for member in self.state.members.values():
            member.close()


class World(Records):
    wait = 60.0  # seconds that requests wait which say nothing of it

    def __init__(self, seed, scale=QUICK, *, keeps_trace=False):
        super().__init__(seed, VirtualLoop(), keeps_trace=keeps_trace)
        self.scene = scene(self.draw("scene"), faults.FAULTS, scale)
        self.network = Network(self.loop)
        self.instances, self.quiet = {}, False
        self.start, self.fails = 1, 0.0
        self.doors = []

    def run(self):
        logger, handler = logging.getLogger("app"), Told(self)
        kept = logger.handlers[:], logger.level, logger.propagate
        logger.handlers[:], logger.propagate = [handler], False
        logger.setLevel(logging.INFO)
        asyncio.set_event_loop(self.loop)
        try:
            with self._replaced():
                self.loop.run_until_complete(self._course())
        except Stuck as stuck:
            self.violated(f"stuck: {stuck}")
        finally:
            self._close()
            logger.handlers[:], logger.level, logger.propagate = kept
        return Outcome(
            self.seed,
            self.violations,
            self.digest,
            self.loop.time(),
            self.counts,
            self.happened,
            self.lines,
        )

    def _close(self):
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        with contextlib.suppress(Stuck):
            self.loop.run_until_complete(asyncio.sleep(0.001))
        self.loop.close()
        asyncio.set_event_loop(None)

    @contextlib.contextmanager
    def _replaced(self):
        random = Chance(self.draw("chance"))

        async def run(function, *arguments, **named):
            return await in_a_moment(self, function, *arguments, **named)

        ours = [
            (clock, "now", self.loop.time),
            (clock, "wall", lambda: EPOCH + self.loop.time()),
            (network, "listen", self.network.listen),
            (network, "connect", self.network.connect),
            (chance, "name", random.name),
            (chance, "key", random.key),
            (threads, "run", run),
            (garbage, "settle", lambda: None),
            *clearml.replacements(self),
        ]
        theirs = [(module, name, getattr(module, name)) for module, name, _ in ours]
        try:
            for module, name, value in ours:
                setattr(module, name, value)
            yield
        finally:
            for module, name, value in theirs:
                setattr(module, name, value)

    async def _course(self):
        self.clearml = clearml.Server(self, self.scene.refuses)
        template = self._template()
        self.route = Route("chat", template=template, **self.scene.route)
        self.doors = [Door(self, number) for number in range(self.scene.doors)]
        for door in self.doors:
            await door.start()
        background = [
            self.task(Agent(self, n).live(), f"agent {n}") for n in range(self.scene.agents)
        ]
        background.append(self.task(faults.befall(self), "faults"))
        background.append(self.task(invariants.watch(self), "watch"))
        callers = [Caller(self, n + 1, pause) for n, pause in enumerate(self.scene.callers)]
        asking = [self.task(each.live(), f"caller {each.number}") for each in callers]
        await asyncio.sleep(self.scene.seconds)
        self.quiet = True
        await asyncio.wait(asking, timeout=120 + SLACK + 2 * HOLD)
        self.clearml.weather, self.fails, self.start = "fine", 0.0, 1
        await asyncio.sleep(REST)
        await self._until(lambda: not invariants.missing(self), QUIET_END)
        invariants.at_rest(self)
        for door in self.doors:
            await door.stop()
        invariants.without_doors(self)
        await self._until(lambda: not invariants.running(self), LAST)
        await asyncio.sleep(REST)
        invariants.afterwards(self)
        for task in background:
            task.cancel()

    async def _until(self, holds, most):
        """At most so many seconds."""
        until = self.loop.time() + most
        while not holds() and self.loop.time() < until:
            await asyncio.sleep(1)

    def _template(self):
        fields = {}
        for key, value in FORM.items():
            section, _, name = key.partition("/")
            fields.setdefault(section, {})[name] = {
                "section": section,
                "name": name,
                "value": value,
            }
        project = self.clearml.state.projects_create({"name": "Elsewhere"})["id"]
        return self.clearml.state.new_task(name="template", project=project, hyperparams=fields)[
            "id"
        ]

    def enqueued(self, task, who):
        invariants.at_an_order(self, task, who)


def simulate(seed, scale=QUICK, *, keeps_trace=False):
    """The outcome of one world."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        return World(seed, scale, keeps_trace=keeps_trace).run()
    finally:
        if collecting:
            gc.enable()
