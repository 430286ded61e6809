"""One seed: callers, faults, and then what must hold."""

import asyncio
import random
import signal
import statistics
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field

import aiohttp

from tests.chaos.callers import STREAMS, Callers
from tests.chaos.faults import FAULTS, download, here
from tests.chaos.ledger import CALMS, Ledger, busy, counted, differences
from tests.chaos.stage import KEY, NAMES, Stage
from tests.end_to_end.test_serving import until

BOUND = 75.0  # seconds for a request: its wait, a llama-server that is stuck, and its answer
ENDS = 45.0  # seconds for the app to end
RECOVERS = 10.0  # seconds after the last fault, until every model serves
PHASES = ("setting up", "downloading", "loading", "faults", "faults", *("rest",) * 5)
MORE = 12  # descriptors that may be more at rest than before: connections that are kept
HEADERS = {"authorization": f"Bearer {KEY}"}


@dataclass
class Report:
    """What a seed showed. `recovery` in seconds, by model."""

    seed: int
    phase: str = ""
    faults: Counter = field(default_factory=Counter)
    ledger: Ledger = field(default_factory=Ledger)
    recovery: list = field(default_factory=list)
    problems: list = field(default_factory=list)
    leaks: int = 0
    lacking: set = field(default_factory=set)
    story: list = field(default_factory=list)
    output: str = ""


def run(seed, seconds=25.0, callers=32, recovers=RECOVERS, only=tuple(FAULTS)):
    """The report of one seed, with these faults only; `recovers`: a bound for the recovery."""
    dice, report = random.Random(seed), Report(seed)
    report.phase = dice.choice(PHASES)
    with Stage(dice) as stage:
        world = World(stage, dice, report, recovers, only)
        try:
            world.run(seconds, callers)
        except Exception as error:  # noqa: BLE001 whatever it is, its seed is told
            status = stage.app.process.poll()
            report.problems.append(f"the chaos itself, app {status}: {error!r}"[:500])
        report.output = stage.app.output
        report.lacking = stage.lacking
    return report


class World:
    def __init__(self, stage, dice, report, recovers, only):
        self.stage, self.dice, self.report, self.recovers = stage, dice, report, recovers
        self.faults = [each for each in here(stage) if each.name in only]
        self.begun = time.monotonic()

    def run(self, seconds, callers):
        stage, phase = self.stage, self.report.phase
        if phase == "setting up":
            time.sleep(self.dice.uniform(0.05, 2.5))
        elif phase == "downloading":
            stage.hub.pause = 0.5
            stage.app.line("listening on")
            until(lambda: stage.hub.sent)
            time.sleep(self.dice.uniform(0, 2))
        elif phase == "loading":
            stage.app.line("listening on")
            time.sleep(self.dice.uniform(0, 0.3))
        else:
            with download(stage, self.dice) as how:
                self.report.faults[f"the hub is {how}"] += 1
                stage.serve()
            asyncio.run(self._serving(seconds, callers))
        if stage.app.process.poll() is None:
            self._end()
        self._ended()

    def tell(self, what):
        self.report.story.append(f"{time.monotonic() - self.begun:6.1f} {what}")

    def wrong(self, what):
        self.report.problems.append(what)
        self.tell(f"WRONG {what}")

    async def _serving(self, seconds, count):
        stage, ledger = self.stage, self.report.ledger
        async with aiohttp.ClientSession(stage.app.url, headers=HEADERS) as http:
            before = counted(await self._get(http, "/metrics"))
            descriptors = stage.process.num_fds()
            crowds = self._crowds(ledger)
            tasks = [
                asyncio.create_task(
                    crowds[n % 4 == 0].live(random.Random(f"{self.report.seed} {n}"))
                )
                for n in range(count)
            ]
            await self._faults(seconds if self.report.phase == "rest" else seconds / 3)
            for crowd in crowds:
                crowd.quiet = True
            if self.report.phase == "rest":
                await self._recover(http)
            await asyncio.gather(*tasks)
            for problem in ledger.problems:
                self.wrong(problem)
            if self.report.phase == "rest":
                await self._rest(http, before, descriptors)

    def _crowds(self, ledger):
        """Those that ask directly, and those behind nginx."""
        stage = self.stage
        more = {"bound": BOUND, "pause": 0.3, "kinds": STREAMS, "tokens": 200, "headers": HEADERS}

        def directly(since, begun):
            """An answer that had begun has its own end, also where the instance ends."""
            return stage.lost(since, "descriptors", *() if begun else ("the end",))

        def behind(since, begun):
            return stage.lost(since, "nginx") or directly(since, begun)

        url = stage.app.url
        through = url if "nginx" in stage.lacking else stage.through_nginx
        return (
            Callers(url, NAMES, ledger, excused=directly, **more),
            Callers(through, NAMES, ledger, excused=behind, **more),
        )

    async def _faults(self, seconds):
        """One after the other, and at times several at once, until the time is over."""
        over = time.monotonic() + seconds
        while time.monotonic() < over:
            await asyncio.sleep(self.dice.uniform(0.1, 1.5))
            with ExitStack() as stack:
                for chosen in self._chosen():
                    self.report.faults[chosen.name] += 1
                    self.tell(f"begins: {chosen.name}")
                    run = chosen.run(self.stage, self.dice)
                    await asyncio.to_thread(stack.enter_context, run)
                    await asyncio.sleep(self.dice.uniform(*chosen.seconds))
                if self.report.phase == "faults" and time.monotonic() > over:
                    await asyncio.to_thread(self._end)
                await asyncio.to_thread(stack.close)
            self.tell("ended")

    def _chosen(self):
        """Faults that differ."""
        often, count = [each.often for each in self.faults], self.dice.choice((1, 1, 2, 3))
        return dict.fromkeys(self.dice.choices(self.faults, often, k=count))

    async def _recover(self, http):
        """Every model serves again, soon."""
        begun = time.monotonic()

        async def served(name):
            body = {"model": name, "prompt": "hello", "max_tokens": 2}
            while True:
                async with http.post("/v1/completions", json=body) as answer:
                    told = await answer.text()
                    took = time.monotonic() - begun
                    self.extra[name, str(answer.status)] += 1
                    if answer.status == 200:
                        return took
                if took > 60:
                    self.wrong(f"{name} does not serve again: {answer.status} {told}")
                    return took
                await asyncio.sleep(0.1)

        self.extra = Counter()
        self.report.recovery = await asyncio.gather(*map(served, NAMES))
        self.tell(f"serves again after {max(self.report.recovery):.1f} s")
        if max(self.report.recovery) > self.recovers:
            self.wrong(f"serves again only after {max(self.report.recovery):.1f} s")

    async def _get(self, http, path):
        async with http.get(path) as answer:
            return await answer.text()

    async def _rest(self, http, before, descriptors):
        """Nobody asks any more: what the instance says of itself."""
        over = time.monotonic() + CALMS
        while found := busy(text := await self._get(http, "/metrics")):
            if time.monotonic() > over:
                self.wrong(f"at rest: {found}")
                break
            await asyncio.sleep(0.2)
        ledger = self.report.ledger
        ledger.ended += self.extra
        for different in differences(ledger, before, counted(text)):
            self.wrong(different)
        now = self.stage.process.num_fds()
        if now > descriptors + MORE:
            self.report.leaks += 1
            self.wrong(f"{now} descriptors at rest, {descriptors} before")

    def _end(self):
        """SIGTERM, and the right exit status in time."""
        stage = self.stage
        stage.excuses.append(["the end", time.monotonic(), float("inf")])
        self.report.faults[f"SIGTERM: {self.report.phase}"] += 1
        self.tell("SIGTERM")
        self.clearml_at_end = stage.lost(time.monotonic(), "ClearML")
        begun = time.monotonic()
        try:
            status = stage.app.end(signal.SIGTERM, ENDS)
        except Exception:  # noqa: BLE001 TimeoutExpired
            self.wrong(f"it has not ended {ENDS:.0f} s after SIGTERM")
            return
        self.tell(f"ended with {status} after {time.monotonic() - begun:.1f} s")
        allowed = {254} if stage.agent else {143}
        if self.report.phase == "setting up":
            allowed |= {143, -15, 130}  # before it has taken the signal over
        if status not in allowed:
            self.wrong(f"its exit status is {status}, not {allowed}")

    def _ended(self):
        stage = self.stage
        if not hasattr(self, "clearml_at_end"):
            self.wrong(f"it has ended by itself with {stage.app.wait(5)}")
            return
        for each in stage.left():
            self.report.leaks += 1
            self.wrong(each)
        # Where descriptors have run out, a row of the plots is lost, and says why.
        told = [
            part for part in stage.app.output.split("Traceback")[1:] if "[Errno 24]" not in part
        ]
        if told:
            self.wrong(f"a traceback in its output: {told[0][:1500]}")
        self._task()

    def _task(self):
        """In ClearML; an agent writes the end of its tasks itself."""
        task = self.stage.task()
        if task is None:
            return self.report.phase == "setting up" or self.wrong("there is no task in ClearML")
        right = {"in_progress", "created"} if self.stage.agent else {"stopped"}
        if self.report.phase == "setting up" and not self.stage.agent:
            right |= {"created", "in_progress"} if "ready" not in self.stage.app.output else set()
        if self.clearml_at_end:
            right |= {"in_progress"}
        if task["status"] not in right:
            self.wrong(f"its task is {task['status']}, not {right}: {task['status_message']}")


def table(reports, seconds):
    """What `make chaos` prints at its end."""
    faults, ended, recovery = Counter(), Counter(), []
    for report in reports:
        faults += report.faults
        recovery += report.recovery
        for (_, how), count in report.ledger.ended.items():
            ended[how] += count
    served = ended["200"]
    others = ", ".join(f"{how}: {n}" for how, n in sorted(ended.items()) if how != "200")
    yield f"seeds: {len(reports)}, in {seconds / 60:.1f} minutes"
    yield f"faults: {faults.total()}: " + ", ".join(f"{k} {n}" for k, n in sorted(faults.items()))
    yield f"requests: {ended.total()}: served: {served}, {others}"
    if recovery:
        middle, most = statistics.median(recovery), max(recovery)
        yield f"recovery: p50 {middle:.2f} s, longest {most:.2f} s, of {len(recovery)}"
    yield f"leaks: {sum(report.leaks for report in reports)}"
    yield f"seeds that found something: {[r.seed for r in reports if r.problems]}"
    lacking = set().union(*(report.lacking for report in reports))
    yield f"left out, for this machine lacks it: {', '.join(sorted(lacking)) or 'nothing'}"
