"""Four instances: through the door, in turns, by sglang-router, and beside them one as large."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

from app.machine import network
from scripts.bench.fleets.chats import Found, Size, converse
from scripts.bench.fleets.machines import Machines
from scripts.bench.fronts.load import percentile
from scripts.bench.fronts.peers import ROOT
from tests.end_to_end.agent import wait_for
from tests.end_to_end.conftest import App
from tests.end_to_end.test_fleet import KEY, get

INSTANCES, SLOTS, TOKENS, CACHE = 4, 8, 4096, 16  # of each: slots, tokens a slot, MiB of prompts
ROUTER = ROOT / "build/sglang-router/bin/python"
PATIENCE = 60.0  # seconds


def measure(machines: Machines, size: Size, rounds: int) -> Iterator[str]:
    several = [machines.serve("chat", SLOTS, SLOTS * TOKENS, CACHE) for _ in range(INSTANCES)]
    total = INSTANCES * SLOTS
    single = machines.serve("single", total, total * TOKENS, INSTANCES * CACHE)
    door = machines.door(machines.routes(min=0, max=INSTANCES))
    ready = lambda: get(door)["routes"][0]["serving"] == INSTANCES  # noqa: E731
    wait_for(ready, lambda: door.output)
    ways = {"door": [door.url], "round robin": urls(several), "one instance": [single.url]}
    with contextlib.ExitStack() as stack:
        try:
            ways["sglang-router"] = [stack.enter_context(router(urls(several), machines.folder))]
        except RuntimeError as error:
            yield f"sglang-router: not measured: {error}"
        found: dict[str, list[Found]] = {name: [] for name in ways}
        for number in range(rounds):
            for name in list(ways) if number % 2 == 0 else list(reversed(ways)):
                try:
                    told = asyncio.run(converse(ways[name], size, f"{name} {number}"))
                except RuntimeError as error:
                    yield f"{name}: failed: {error}"
                    continue
                found[name].append(told)
                yield f"{name}, round {number + 1}: {told}"
    yield from ratios({name: together(each) for name, each in found.items() if each})


def urls(instances: Sequence[App]) -> list[str]:
    return [instance.url for instance in instances]


def together(found: Sequence[Found]) -> Found:
    firsts = [first for each in found for first in each.firsts]
    return Found(sum(f.prompt for f in found), sum(f.cached for f in found), firsts)


def ratios(found: dict[str, Found]) -> Iterator[str]:
    for name, each in found.items():
        yield f"affinity, {name}: {each}"
    of_one = found["door"].share / max(1e-9, found["one instance"].share)
    yield f"affinity, cached tokens, door / one instance: {of_one:.3f} (target ≥ 0.9)"
    ours = percentile(found["door"].firsts, 0.5)
    for name in found:
        if name != "door":
            ratio = ours / percentile(found[name].firsts, 0.5)
            target = " (target ≤ 0.5)" if name == "round robin" else ""
            yield f"affinity, first token p50, door / {name}: {ratio:.2f}{target}"


@contextlib.contextmanager
def router(workers: Sequence[str], folder: Path) -> Iterator[str]:
    """`sglang-router` with its cache_aware policy. Raises RuntimeError that says what is wrong."""
    if not ROUTER.exists():
        raise RuntimeError("it is not in build/sglang-router (python -m venv, pip install)")
    port, ports = network.free_port(), network.free_port()
    command = [str(ROUTER), "-m", "sglang_router.launch_router", "--policy", "cache_aware"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--prometheus-port", str(ports)]
    command += ["--api-key", KEY, "--worker-urls", *workers]
    log = folder / "router.log"
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + PATIENCE
        while not answers(f"{url}/readiness"):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"it does not get ready: {log.read_text()[-1500:]}")
            time.sleep(0.2)
        yield url
    finally:
        process.kill()
        process.wait()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False
