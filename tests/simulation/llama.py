"""A simulated llama-server: its process, which loads a model, listens, and gives its slots to
requests."""

import asyncio
import json
import os
from dataclasses import dataclass

from tests.simulation.answering import Served
from tests.simulation.wire import Listener

STATE = "cmd_child_to_router:state:"


def said(state, **payload):
    return STATE + json.dumps({"state": state, "payload": payload})


@dataclass
class Manners:
    """How the servers of a simulation behave; a fault changes that for a while. Seconds, but for
    `prompt_rate` in tokens per second."""

    load: float = 3.0
    token: float = 0.02
    prompt_rate: float = 2000.0
    end: float = 0.2
    crash_on_load: float = 0.0  # how likely
    stubborn: bool = False  # does not heed SIGTERM
    breaks: float = 0.0  # how likely an answer is broken off


@dataclass(eq=False)
class Slot:
    number: int
    job: object = None
    seat: int = 0  # the mark of its request, or of its last one
    prompt: int = 0
    decoded: int = 0

    @property
    def tokens(self):
        return self.prompt + self.decoded if self.job is not None else 0

    def told(self):
        return {
            "id": self.number,
            "is_processing": self.job is not None,
            "params": {"n_discard": self.seat},
            "next_token": [{"n_decoded": self.decoded}],
            "n_prompt_tokens": self.prompt,
            "n_decoded": self.decoded,
        }


class LlamaServer:
    """One run of it, in one child."""

    def __init__(self, world, child):
        self.world, self.child = world, child
        argv = child.argv
        given = dict(zip(argv, argv[1:], strict=False))
        self.alias, self.path = given["--alias"], given["--host"]
        self.file = os.path.basename(given["--model"])
        self.key = child.environment["LLAMA_API_KEY"]
        self.context = int(given["--ctx-size"])
        self.folder = given.get("--slot-save-path", "")
        self.slots = [Slot(n) for n in range(int(given["--parallel"]))]
        self.embeds = "--embedding" in argv or "--embeddings" in argv
        self.manners = world.manners
        self.ready = self.wedged = False
        self.connections, self.waiting = {}, []
        self.listener = None
        self.told_at = 0.0  # when there was a result for anybody
        self._tasks = set()
        self.run(self._live(warm="--no-warmup" not in argv))

    def run(self, coroutine):
        task = self.world.task(coroutine, f"llama {self.alias}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def results(self):
        """There is one for somebody: whoever waits for another one begins to wait anew."""
        self.told_at = self.world.loop.time()

    def end(self):
        """The process is gone."""
        for task in list(self._tasks):
            task.cancel()
        if self.listener is not None:
            self.listener.close()
        for connection in list(self.connections):
            connection.transport.abort()

    def told(self, word):
        if b"exit" in word:
            self.terminate()

    def terminate(self):
        if not self.manners.stubborn and not self.child.frozen:
            self.run(self._leave())

    async def _leave(self):
        await asyncio.sleep(self.manners.end * self.world.jitter())
        self.child.die(0)

    async def awake(self, seconds):
        """What takes so long, unless the process is stopped."""
        await asyncio.sleep(seconds)
        while self.child.frozen:
            await asyncio.sleep(0.5)

    async def working(self, seconds):
        """The same, of work."""
        await self.awake(seconds)
        while self.wedged:
            await asyncio.sleep(0.5)

    async def _live(self, *, warm):
        self.listener = Listener(self.world.network, lambda: Served(self), self.path)
        self.child.say(said("loading", stages=["text_model"], current="text_model", value=0.0))
        _, needed = self.world.machine.sizes[self.file]
        seconds = self.manners.load * (needed / (4 << 30)) * self.world.jitter()
        draw = self.world.draw("load")
        if draw.random() < self.manners.crash_on_load:
            await self.working(seconds * draw.random())
            self.child.say("E failed to load the model: the file is broken")
            return self.child.die(1)
        for step in range(4):
            await self.working(seconds / 4)
            if not self.world.machine.take(self.child, needed // 4):
                self.child.say("error: failed to allocate buffer: cudaMalloc: out of memory")
                return self.child.die(1)
            value = (step + 1) / 4
            self.child.say(
                said("loading", stages=["text_model"], current="text_model", value=value)
            )
        await self.working(0.3 if warm else 0.0)
        self.ready = True
        self.child.say(said("ready", meta={"n_ctx": self.context}))

    # Work.

    def used(self):
        return sum(slot.tokens for slot in self.slots)

    def start_next(self):
        while self.waiting and (free := [s for s in self.slots if s.job is None]):
            job = self.waiting.pop(0)
            if job.gone:
                continue
            slot = free[0]
            slot.job, slot.seat, slot.prompt, slot.decoded = job, job.mark, 0, 0
            job.slot = slot
            self.run(self._work(job))

    async def _work(self, job):
        try:
            await job.work()
        finally:
            job.slot.job = None
            if self.child.returncode is None:
                self.start_next()

    def check_buffer(self):
        """All at work fail where the slots hold more than there is."""
        if self.used() > self.context:
            jobs = [
                (s.job.name, s.tokens, s.job.given.get("n_predict")) for s in self.slots if s.job
            ]
            self.world.violated(
                f"{self.child.name}: {self.used()} of {self.context} KV tokens: {jobs}"
            )
