"""What happens in a world: its trace, what was violated, and what the simulated parts tell."""

import hashlib
import random
import re
from collections import Counter, defaultdict

MOST = 20  # violations that are told of a world
RANDOM_NAME = re.compile(r"lmd-\w{8}|sim-\w{8}")


class Records:
    def __init__(self, seed, loop, *, keeps_trace):
        self.seed, self.loop = seed, loop
        loop.set_exception_handler(self._complained)
        self._draws, self._hash = {}, hashlib.sha256()
        self.lines, self._keeps = [], keeps_trace
        self.violations, self.counts, self.happened = [], Counter(), Counter()
        self.calls, self.samples = [], defaultdict(list)  # requests, and how they were counted
        self.begun = defaultdict(list)  # by request: when which llama-server got it
        self.broken, self.still = set(), Counter()
        self.weathers, self.cleared = [], []  # of ClearML: when each began, and ended
        self.tasks, self.reported = set(), []
        self.used_at = 0.0  # a request was under way
        self.reason_at, self.opened_at = None, 0.0
        self.reason = self.opened = self.status = self.ended_at = self.asked_to_end = None

    @property
    def digest(self):
        """Of the trace: the same whenever this world is run."""
        return self._hash.hexdigest()

    def draw(self, name):
        """A source of chance of its own for each purpose: one more draw here changes none there."""
        if name not in self._draws:
            self._draws[name] = random.Random(f"{self.seed}/{name}")
        return self._draws[name]

    def jitter(self):
        return self.draw("jitter").uniform(0.7, 1.5)

    def trace(self, text):
        line = RANDOM_NAME.sub("~", f"{self.loop.time():.6f} {text}")
        self._hash.update(line.encode())
        if self._keeps:
            self.lines.append(line)

    def violated(self, text):
        self.trace(f"VIOLATED: {text}")
        if len(self.violations) < MOST:
            self.violations.append(text)

    def _complained(self, loop, context):
        error = context.get("exception")
        self.violated(f"the loop: {context['message']}: {error!r} {context.get('future') or ''}")

    def task(self, coroutine, name):
        task = self.loop.create_task(coroutine, name=f"sim {name}")
        self.tasks.add(task)
        task.add_done_callback(self._task_ended)
        return task

    def _task_ended(self, task):
        self.tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            error = task.exception()
            self.violated(f"{task.get_name()}: {error!r}")
            if not isinstance(error, AssertionError):
                raise error

    # What the simulated parts tell.

    def began(self, name, server):
        self.begun[name].append((self.loop.time(), server))

    def touched(self, name):
        """A fault has met this request."""
        self.broken.add(name)

    def stood_still(self, model):
        self.still[model] += 1

    def file_server_answers(self):
        return True

    def listens(self, at):
        """Whether somebody has to take connections then."""
        return self.network.since.get(self.port, at) < at and not self.ending(at)

    def ending(self, at):
        """Whether the instance may be about to end then."""
        known = [m for m in (self.asked_to_end, self.reason_at) if m is not None]
        return bool(known) and at >= min(known)

    def sampled(self, sample):
        self.samples[sample.request].append(sample)
        if sample.wait is not None:
            self.used_at = self.loop.time()
        self.trace(f"{sample.request}: {sample.status} by {sample.model}")
