"""What the callers saw, request by request, and whether `/metrics` counted the same."""

import re
import time
from collections import Counter
from dataclasses import dataclass, field

CALMS = 15.0  # seconds until nothing is under way, once nobody asks
GAUGES = tuple(
    f"llamacpp_{name}{{"
    for name in ("requests_in_flight", "requests_waiting", "kv_tokens_reserved")
)
REQUESTS = re.compile(r'llamacpp_requests_total\{model="(.*?)",status="(\d+)"\} (\S+)')


@dataclass
class Ledger:
    """`ended`: (model, how) → requests; `how` is the status that the client was told (by the head,
    or by the error in a stream), "left" for those that it left itself after the first bytes, "left
    early" for those of which nothing had come, "lost" where the connection ended without a word,
    "no connection" where there was none.
    `problems` are answers as none may be."""

    ended: Counter = field(default_factory=Counter)
    kinds: Counter = field(default_factory=Counter)
    problems: list = field(default_factory=list)
    waits: list = field(default_factory=list)  # (when it ended, seconds until the first byte)
    under_way: int = 0
    errors: Counter = field(default_factory=Counter)  # (status, what was told) → requests

    def end(self, model, how, kind):
        self.ended[model, how] += 1
        self.kinds[kind, how] += 1

    def first_byte(self, sent):
        now = time.monotonic()
        self.waits.append((now, now - sent))

    @property
    def requests(self):
        return sum(self.ended.values())

    def failed(self):
        """how → requests, of those that were neither served nor left."""
        found = Counter()
        for (_, how), count in self.ended.items():
            if how not in ("200", "left", "left early", "refused"):
                found[how] += count
        return found


def counted(text):
    """(model, status) → requests that the app has counted, from the text of `/metrics`."""
    return {(model, status): int(float(n)) for model, status, n in REQUESTS.findall(text)}


def busy(text):
    """What `/metrics` shows under way: the gauges that are not 0."""
    rows = (row.rpartition(" ") for row in text.splitlines())
    return {gauge: n for gauge, _, n in rows if gauge.startswith(GAUGES) and float(n)}


def differences(ledger, before, after):
    """What the app counted between two looks and the callers did not, line by line. A request that
    was left is counted with 499, or with 200 where its answer was whole before that was seen; one
    that was left early or lost perhaps not at all, and a refusal only once it has its place."""
    found = []
    for model in sorted({name for name, _ in ledger.ended if name}):
        app = Counter()
        for (name, status), count in after.items():
            if name == model:
                app[status] = count - before.get((name, status), 0)
        ours = Counter({how: n for (name, how), n in ledger.ended.items() if name == model})
        unsure = ours["left early"] + ours["lost"]
        if not ours["200"] <= app["200"] <= ours["200"] + ours["left"] + unsure:
            found.append(f"{model}: {app['200']} served by /metrics, {ours['200']} by the callers")
        known = ours["200"] + ours["left"]
        told = app["200"] + app["499"]
        if not known <= told <= known + unsure:
            found.append(f"{model}: {told} served or left by /metrics, {known} by the callers")
        for status in app.keys() - {"200", "499"}:
            most = ours[status] + ours["refused"] + unsure
            if app[status] > most:
                found.append(
                    f"{model}: {app[status]} times {status}, at most {most} by the callers"
                )
    return found
