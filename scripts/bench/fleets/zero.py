"""From zero: the stamps of one request that finds no instance, and a real agent."""

from __future__ import annotations

import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import httpx

from scripts.bench.fleets.added import BODY, bearer
from scripts.bench.fleets.chats import CHAT, read
from scripts.bench.fleets.machines import Machines
from tests.end_to_end.test_fleet import KEY

LOOK = 0.01  # seconds
PATIENCE = 180.0


def measure(machines: Machines) -> Iterator[str]:
    machines.agent()
    door = machines.door(machines.routes(max=1))
    api = machines.api
    stamps: dict[str, float] = {}
    watcher = threading.Thread(target=watch, args=(machines, stamps), daemon=True)
    watcher.start()
    time.sleep(5.0)  # the agent has begun to ask
    begun = time.monotonic()
    with httpx.stream(
        "POST",
        door.url + CHAT,
        json={**BODY, "max_tokens": 4, "stream": True},
        headers=bearer(KEY),
        timeout=PATIENCE,
    ) as answer:
        first = next(time.monotonic() for line in answer.iter_lines() if read(line).get("choices"))
    watcher.join(PATIENCE)
    asked = api.times["tasks.enqueue"]
    yield f"from zero: request to enqueued {asked - begun:.2f} s (target ≤ 0.5)"
    yield f"from zero: enqueued to in progress {stamps['in progress'] - asked:.2f} s"
    yield f"from zero: in progress to /ready {stamps['ready'] - stamps['in progress']:.2f} s"
    yield f"from zero: /ready to the first token {first - stamps['ready']:.2f} s (target ≤ 0.5)"
    yield f"from zero: all {first - begun:.2f} s"


def watch(machines: Machines, stamps: dict[str, float]) -> None:
    """When the ordered task is in progress, and when its instance's /ready answers 200."""
    until = time.monotonic() + 2 * PATIENCE
    while "ready" not in stamps and time.monotonic() < until:
        time.sleep(LOOK)
        for task in list(machines.tasks):
            if task["status"] != "in_progress":
                continue
            stamps.setdefault("in progress", time.monotonic())
            address = task["runtime"].get("llamacpp_address")
            if address and ready(address):
                stamps["ready"] = time.monotonic()


def ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/ready", timeout=1) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
