"""The app for long: four tiny models, memory for two, mixed callers; and what has grown.

Callers stream, ask for short answers and embeddings, leave in mid-stream and while they wait, send
requests that are refused, and read the pages. Every ten seconds a sample is taken.

It exits with 1 where something leaked, by these rules. At rest, before and after, after one request
to each model in turn: no more descriptors, threads, asyncio tasks, processes or files than REST
more. In runs of JUDGED minutes or more: the lower end of a slope's 95 % confidence interval is not
above its LIMITS an hour. And whatever the length: every answer is right, `/metrics` has counted
what the callers have, and the instance ends with its status and leaves nothing. Latencies are
shown, not judged: they are the machine's as much as ours.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import aiohttp

from app.gateway.body import workers
from scripts.bench.soaks.instance import CHATS, EMBEDS, Instance, running
from scripts.bench.soaks.slopes import Slope, quantile, slope
from tests.chaos.callers import Callers
from tests.chaos.ledger import CALMS, Ledger, busy, counted, differences

JUDGED = 10.0  # minutes
WARM_UP = 0.1  # of the time
EVERY, PROBE = 10.0, 0.25  # seconds between two samples, and between two probes of the front
SHOWN = 30  # samples from one line to the next
BOUND = 120.0  # seconds in which every request must end
# What may be more at rest, after than before: the connections of one more llama-server (how many
# there are is the policy's to say), threads of the pool, the processes that parse large bodies.
REST = {
    "descriptors": 8,
    "threads": 4,
    "asyncio tasks": 4,
    "other processes": workers.MOST,  # they stay for ten minutes
    "files": 4,
}
LIMITS = {  # an hour
    "resident memory, MB": 4.0,
    "descriptors": 2.0,
    "threads": 1.0,
    "asyncio tasks": 2.0,
    "llama-servers": 1.0,
    "other processes": 1.0,
    "files": 4.0,
}


class Soak:
    def __init__(self, instance: Instance, options: argparse.Namespace) -> None:
        self.instance, self.options = instance, options
        self.ledger: Any = Ledger()
        self.times: list[float] = []
        self.rows: dict[str, list[float]] = {}
        self.probes: list[float] = []
        self.wrong: list[str] = []

    def run(self) -> bool:
        """Whether nothing leaked."""
        instance, rest = self.instance, min(5.0, self.options.minutes * 5)
        instance.at_rest(0.0)  # everything has been there once
        before = instance.at_rest(rest)
        counts = counted(instance.get("/metrics"))
        asyncio.run(self._callers())
        after_counts = counted(self._calm())
        after = instance.at_rest(rest)
        self._requests(differences(self.ledger, counts, after_counts))
        self._slopes()
        self._rest(before, after)
        self.wrong += instance.end()
        for each in self.wrong:
            print(f"WRONG {each}")
        print("nothing leaked" if not self.wrong else f"{len(self.wrong)} things are wrong")
        return not self.wrong

    def _calm(self) -> str:
        """`/metrics` once nothing is under way: whom a client has left is counted when the app has
        seen it."""
        over = time.monotonic() + CALMS
        while found := busy(text := self.instance.get("/metrics")):
            if time.monotonic() > over:
                self.wrong.append(f"nobody asks, and yet: {found}")
                break
            time.sleep(0.2)
        return text

    async def _callers(self) -> None:
        seconds, seed = 60 * self.options.minutes, self.options.seed
        more = {"bound": BOUND, "pause": 1.0, "embedding": [EMBEDS]}
        callers = Callers(self.instance.base, CHATS, self.ledger, **more)
        crowd = [
            asyncio.create_task(callers.live(random.Random(f"{seed} {number}")))
            for number in range(self.options.callers)
        ]
        probe = asyncio.create_task(self._probe())
        every = min(EVERY, seconds / 30)
        begun = time.monotonic()
        while (now := time.monotonic() - begun) < seconds:
            await asyncio.sleep(every - now % every)
            self._sample(time.monotonic() - begun, every)
        callers.quiet = True
        await asyncio.gather(*crowd)
        probe.cancel()

    async def _probe(self) -> None:
        async with aiohttp.ClientSession(self.instance.base) as http:
            while True:
                begun = time.monotonic()
                async with http.get("/v1/models") as answer:
                    await answer.read()
                self.probes.append(time.monotonic() - begun)
                await asyncio.sleep(PROBE)

    def _sample(self, now: float, every: float) -> None:
        if now > WARM_UP * 60 * self.options.minutes:
            since = time.monotonic() - every
            first = [wait for when, wait in self.ledger.waits if when > since]
            row = self.instance.sample()
            for name, values in (("a page", self.probes), ("first byte", first)):
                for part in (50, 99):
                    row[f"{name}, p{part}, ms"] = 1000 * quantile(values, part / 100)
            self.times.append(now)
            self._progress(now, row)
            for name, value in row.items():
                self.rows.setdefault(name, []).append(value)
        self.probes.clear()
        self.ledger.waits.clear()

    def _progress(self, now: float, row: dict[str, float]) -> None:
        """A line now and then, for who waits, or ends it."""
        if len(self.times) % SHOWN == 1:
            told = ", ".join(f"{name} {value:.1f}" for name, value in row.items())
            print(f"after {now:.0f} s: {self.ledger.requests} requests, {told}", flush=True)

    def _requests(self, different: list[str]) -> None:
        ledger, how = self.ledger, {}
        for (_, end), count in ledger.ended.items():
            how[end] = how.get(end, 0) + count
        told = ", ".join(f"{count} {end}" for end, count in sorted(how.items()))
        print(f"requests: {ledger.requests}: {told}")
        failed = ", ".join(f"{n} {end}" for end, n in ledger.failed().items())
        print(f"failed: {failed or 'none'}")
        print(f"/metrics counted the same: {'no' if different else 'yes'}")
        self.wrong += different + ledger.problems[:20]
        self.wrong += [f"{ledger.failed()} failed"] if ledger.failed() else []
        status = self.instance.get("/metrics").splitlines()
        moved = [row for row in status if row.startswith("llamacpp_model_switches_total")]
        print(f"model switches: {sum(float(row.split()[-1]) for row in moved):.0f}")

    def _slopes(self) -> None:
        print("\n| quantity | mean | an hour | 95 % | most |\n| --- | --- | --- | --- | --- |")
        for name, values in self.rows.items():
            found = slope(self.times, values)
            interval = f"{found.low:+.2f} to {found.high:+.2f}"
            limit = LIMITS.get(name)
            most = "–" if limit is None else f"{limit:g}"
            print(f"| {name} | {found.mean:.1f} | {found.slope:+.2f} | {interval} | {most} |")
            self._judge(name, found, limit)
        print()

    def _judge(self, name: str, found: Slope, limit: float | None) -> None:
        if limit is not None and self.options.minutes >= JUDGED and found.low > limit:
            self.wrong.append(f"{name} grows by {found.low:.2f} an hour at least")

    def _rest(self, before: dict[str, float], after: dict[str, float]) -> None:
        told = ", ".join(f"{name} {before[name]:g} → {after[name]:g}" for name in before)
        print(f"at rest, before and after: {told}")
        for name, more in REST.items():
            if after[name] > before[name] + more:
                self.wrong.append(f"at rest {name}: {before[name]:g} before, {after[name]:g} after")


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench/soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--callers", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--small", action="store_true", help="a minute of it, for tests")
    options = parser.parse_args()
    if options.small:
        options.minutes = 1.0
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    print(f"{now}: {options.minutes:g} minutes, {options.callers} callers, seed {options.seed}")
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="soak-") as name:
        with running(Path(name)) as instance:
            good = Soak(instance, options).run()
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
