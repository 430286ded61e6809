"""One world: the app as it is in production, and all that it touches simulated, by one seed."""

import asyncio
import contextlib
import gc
import logging
import shutil
import signal
import tempfile
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from app.instance.invocation import Invocation
from app.models import tiny_writer
from tests.simulation import clearml, faults, invariants, sdk, seams
from tests.simulation.clients import Client
from tests.simulation.llama import LlamaServer, Manners
from tests.simulation.lockstep import Lockstep
from tests.simulation.loop import Stuck, VirtualLoop
from tests.simulation.machine import Machine
from tests.simulation.observing import Observed, Told, observed
from tests.simulation.records import Records
from tests.simulation.scene import QUICK, scene
from tests.simulation.visits import Visitor
from tests.simulation.wire import Network

SETTLE = 90.0  # seconds after the end, in which everything has to come to rest
LONGEST = 5000.0  # seconds after the end that is drawn, in which it has to come


@dataclass(frozen=True)
class Outcome:
    """What became of a world. `digest` is that of its trace."""

    seed: int
    violations: list
    digest: str
    seconds: float  # of virtual time
    status: int | None
    counts: Counter
    faults: Counter
    lines: list = field(repr=False, default_factory=list)


@cache
def weights():
    """The bytes of a model's file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tiny.gguf"
        tiny_writer.write(path)
        return path.read_bytes()


class World(Records):
    def __init__(self, seed, scale=QUICK, *, keeps_trace=False):
        super().__init__(seed, VirtualLoop(), keeps_trace=keeps_trace)
        self.folder = Path(tempfile.mkdtemp(prefix="sim-", dir="/tmp"))
        self.scene = scene(self.draw("scene"), scale)
        self.network = Network(self.loop)
        self.machine = Machine(
            self.loop, self.trace, self.scene.capacity, self.scene.sizes, hides=self.scene.hides
        )
        self.machine.program = lambda child: LlamaServer(self, child)
        self.steps = Lockstep(self.loop, lambda e: self.violated(f"a thread ended by {e!r}"))
        self.manners = Manners()
        self.models, self.port = self.scene.models, 8080
        self.clearml = clearml.Server(self, self._hyperparameters())
        self._key, self.quiet = "", False  # quiet: nobody asks for anything any more

    def _hyperparameters(self):
        found = defaultdict(dict)
        for key, text in self._form().items():
            section, _, name = key.partition("/")
            found[section][name] = {"section": section, "name": name, "value": text}
        return dict(found)

    def _form(self):
        at = f'"model": "{self.folder}/'
        models = self.scene.config["General/models"].replace('"model": "', at)
        return {**self.scene.config, "General/models": models}

    @property
    def key(self):
        """What callers send, as soon as anybody knows it."""
        self._key = self.clearml.key or self._key
        return self._key

    def token(self):
        """What a person on this machine sends, where there is no key."""
        found = [*self.folder.glob(f"lmd-*/token-{self.port}")]
        return found[0].read_text() if found else ""

    # Its course.

    def run(self):
        before = len(list(Path("/proc/self/fd").iterdir()))
        logger, handler = logging.getLogger("app"), Told(self)
        kept = logger.handlers[:], logger.level, logger.propagate
        logger.handlers[:], logger.propagate = [handler], False
        logger.setLevel(logging.INFO)
        asyncio.set_event_loop(self.loop)
        try:
            with seams.replaced(self), sdk.instead(self), observed(self):
                self.loop.run_until_complete(self._course())
        except Stuck as stuck:
            self.violated(f"stuck: {stuck}")
        finally:
            self.steps.end()
            self._close()
            logger.handlers[:], logger.level, logger.propagate = kept
        after = len(list(Path("/proc/self/fd").iterdir())) + self._selector_files
        if after > before:
            self.violated(f"{after - before} descriptors are left")
        return self._outcome()

    _selector_files = 3  # the loop's own, which has been closed

    def _close(self):
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        with contextlib.suppress(Stuck):
            self.loop.run_until_complete(asyncio.sleep(0))
            self.loop.run_until_complete(asyncio.sleep(0))
        for child in self.machine.alive:
            child.die(-signal.SIGKILL)
        self.loop.run_until_complete(asyncio.sleep(0.001))
        self.loop.close()
        asyncio.set_event_loop(None)
        shutil.rmtree(self.folder, ignore_errors=True)

    async def _course(self):
        for name in self.scene.sizes:
            (self.folder / name).write_bytes(weights())
        for program in ("llama-server", "llama-fit-params"):
            (self.folder / program).touch()
            (self.folder / program).chmod(0o755)
        living = self.task(self._live(), "instance")
        callers = [Client(self, n, habits) for n, habits in enumerate(self.scene.habits)]
        asking = [self.task(c.live(), f"client {c.number}") for c in callers]
        if self.scene.visits:
            asking.append(self.task(Visitor(self).live(), "visitor"))
        self.task(faults.befall(self), "faults")
        self.task(invariants.watch(self), "watch")
        self.task(self._end(), "end")
        done, _ = await asyncio.wait({living}, timeout=self.scene.seconds + LONGEST)
        if not done:
            return self.violated(f"the instance has not ended {LONGEST:.0f} s later")
        self.ended_at, self.quiet = self.loop.time(), True
        self.trace(f"the instance ends with {self.status}")
        await asyncio.sleep(0.01)  # who was killed last is gone by now
        invariants.at_the_end(self)
        if self.scene.agent:
            clearml.agent_ends(self.clearml, self.status)
            invariants.last_words(self)
        await asyncio.wait(asking, timeout=1000)
        await asyncio.sleep(SETTLE)
        invariants.afterwards(self)

    async def _live(self):
        agent, cache = self.scene.agent, str(self.folder / "cache")
        environment = {"LLAMA_SERVER": str(self.folder / "llama-server"), "HOME": str(self.folder)}
        if agent:
            environment["CLEARML_TASK_ID"] = clearml.TASK
            wanted = Invocation(cache_dir=cache)
        else:
            wanted = Invocation(self._form(), offline=True, cache_dir=cache, recorded=False)
        self.status = await Observed(self, wanted, environment).run()

    async def _end(self):
        await asyncio.sleep(self.scene.seconds)
        end = self.scene.end
        if end == "idle":
            self.quiet = True
            return
        self.asked_to_end = self.loop.time()
        self.trace(f"the end: {end}")
        if end.startswith("SIG"):
            self.loop.signal(getattr(signal, end))
        elif end == "abort":
            self.clearml.state.tasks_stop({"task": clearml.TASK})
        elif end == "taken":
            self.clearml.state.tasks_reset({"task": clearml.TASK, "force": True})

    def _outcome(self):
        return Outcome(
            self.seed,
            self.violations,
            self.digest,
            self.loop.time(),
            self.status,
            self.counts,
            self.happened,
            self.lines,
        )


def simulate(seed, scale=QUICK, *, keeps_trace=False):
    """The outcome of one world."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        return World(seed, scale, keeps_trace=keeps_trace).run()
    finally:
        if collecting:
            gc.enable()
