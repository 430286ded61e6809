"""What an idle app takes: its share of a core, and its resident memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

from scripts.bench.fronts import peers
from scripts.bench.fronts.bench import Bench, Row
from scripts.bench.fronts.peers import Missing

MEASURED = 60.0  # seconds: whole rounds of what the app does every 5 and every 15
SETTLED = 8.0  # seconds after which the SDK is loaded, and what starts with the app is over


def resting(bench: Bench) -> Iterator[Row]:
    seconds, settle = (0.5, 0.5) if bench.small else (MEASURED, SETTLED)
    for models in (1,) if bench.small else (1, 10, 100):
        try:
            with partial(peers.app, models=models)(bench.folder) as peer:
                at_ready = peer.resident()
                time.sleep(settle)
                before = peer.cpu()
                time.sleep(seconds)
                share = (peer.cpu() - before) / seconds
                resident = peer.resident()
        except Missing as error:
            bench.missing.add(str(error))
            return
        what = f"idle, {models} models: share of a core, in {seconds:g} s"
        yield Row(what, f"{100 * share:.2f} %", "–", "–", "≤ 0.5 %")
        if models == 1:
            ours = f"{at_ready / 1e6:.0f} MB at `ready`, {resident / 1e6:.0f} MB with the SDK"
            yield Row("resident memory of the app, one model, offline", ours, "–", "–", "≤ 80 MB")
