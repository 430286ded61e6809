"""Universal Memory measured: three models of ~700 MB, memory for one, `-t 1`, on the CPU.

1. `wake`: a model comes back and another makes room for it, and one comes from disk, beside a bare
   llama-server that starts on a warm page cache; interleaved.
2. `turns`: 60 requests of 8 tokens that alternate over 3 models, 4 callers; beside llama-server's
   router mode with room for one model, and llama-swap where it is on the PATH; in turns.
3. `agents`: two agents, each with a model of its own, whose conversations grow from 600 tokens by
   100 a turn, in 10 turns with 0.5 to 1.5 s between them; and 40 requests by two workers for a
   third model. Beside the same.
4. `kept`: the follow-up of a long chat after a trip to disk and back, beside a chat as long that
   is new.
5. `decision`: one call of the policy for 50 models.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from app.engine.capabilities import find  # noqa: E402
from app.machine import network  # noqa: E402
from app.memory.turns import Stage, Standing, assign  # noqa: E402
from app.models import tiny_writer  # noqa: E402

NAMES = "abc"
PORT, ROUTER_PORT, SWAP_PORT = (network.free_port() for _ in range(3))
ENDS = 15.0  # seconds for a process to end before it is asked again
CONTEXT = 2048
TOKEN = "#token="  # before it, in the address that the app prints
admin: dict[str, str] = {}  # the header that an admin call needs


def make(folder: Path, *, small: bool = False, vocabulary: int = 0) -> None:
    """Random models of 24 layers and 680 million parameters, at 8 bits; tiny ones if `small`; with
    a `vocabulary` of so many tokens at least. Those that are in the folder stay as they are."""
    if not small:
        tiny_writer.LAYERS, tiny_writer.WIDTH, tiny_writer.FEED_FORWARD = 24, 1024, 8192
        tiny_writer.HEADS, tiny_writer.KV_HEADS = 16, 8
    # Words are tokens, those of the chat template too, as they are to a trained model.
    words = [*("\u0120" + word for word in tiny_writer.WORDS), "user", "assistant"]
    merges = (f"{word[:n]} {word[n]}" for word in words for n in range(1, len(word)))
    tiny_writer.MERGES = tuple(dict.fromkeys(merges))
    for seed, name in enumerate(NAMES):
        path = folder / f"{name}.gguf"
        if not path.exists():
            tiny_writer.write(
                path, seed=seed, context=CONTEXT, quantised=True, vocabulary=vocabulary
            )


Messages = list[dict[str, str]]


def ask(base: str, model: str, messages: Messages, tokens: int = 8) -> dict[str, Any]:
    body = {"model": model, "messages": messages, "max_tokens": tokens}
    data = json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{base}/v1/chat/completions", data, headers)
    with urllib.request.urlopen(request, timeout=600) as answer:
        return json.load(answer)


def user(text: str) -> Messages:
    return [{"role": "user", "content": text}]


def get(base: str, path: str) -> Any:
    with urllib.request.urlopen(base + path, timeout=30) as answer:
        return json.load(answer)


@contextlib.contextmanager
def running(command: list[str], line: str) -> Iterator[subprocess.Popen[str]]:
    """The process, once it has printed `line`; its output is read on. RuntimeError where it ends
    without."""
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for text in process.stdout or ():
            if TOKEN in text:
                admin["X-Api-Key"] = text.strip().partition(TOKEN)[2]
            if line in text:
                break
        else:
            raise RuntimeError(f"it has ended with {process.wait()}: {' '.join(command)}")
        reader = threading.Thread(target=lambda: [None for _ in process.stdout or ()])
        reader.start()
        try:
            yield process
        finally:
            end(process)
            reader.join()


def end(process: subprocess.Popen[str]) -> None:
    """A llama-server that has only just begun to listen can miss a SIGTERM."""
    for _ in range(3):
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(ENDS)
            return
    process.kill()


def ours(folder: Path, room: float, how: str = "cpu_offloading") -> list[str]:
    models = [
        {"model": str(folder / f"{n}.gguf"), "endpoint_name": n, "threads": 1, "parallel": 4}
        for n in NAMES
    ]
    fields = {
        "General/models": json.dumps(models),
        "General/max_cuda_memory": str(room),
        f"General/{how}": "true",
    }
    sets = [text for key, value in fields.items() for text in ("--set", f"{key}={value}")]
    return [sys.executable, "-m", "app", "--offline", "--port", str(PORT), *sets]


def router(folder: Path) -> list[str]:
    line = [str(find("", os.environ)), "--models-dir", str(folder), "--models-max", "1"]
    line += ["--port", str(ROUTER_PORT), "-t", "1", "-c", str(CONTEXT), "-np", "4", "--no-ui"]
    return [*line, "--kv-unified", "--fit", "off"]  # as ours: one request may have all of it


def swap(folder: Path) -> list[str]:
    """llama-swap, which has one model at a time where nothing else is said."""
    rest = f"-t 1 -c {CONTEXT} -np 4 --kv-unified --no-ui --fit off"
    server = find("", os.environ)
    lines = [
        f"  {n}:\n    cmd: {server} --port ${{PORT}} -m {folder / n}.gguf {rest}" for n in NAMES
    ]
    file = folder / "swap.yaml"
    file.write_text("\n".join(["models:", *lines, ""]))
    return ["llama-swap", "-config", str(file), "-listen", f"127.0.0.1:{SWAP_PORT}"]


def bare(folder: Path, name: str) -> float:
    """Seconds from the start of a llama-server, with our arguments, until it listens; `name` is
    one of our models, or a path."""
    path = folder / "bare.sock"
    path.unlink(missing_ok=True)
    model = name if "/" in name else str(folder / f"{name}.gguf")
    line = [str(find("", os.environ)), "-m", model, "--host", str(path)]
    line += ["-t", "1", "-tb", "1", "-c", str(CONTEXT), "-np", "4", "--kv-unified", "--no-ui"]
    line += ["--no-cache-idle-slots", "--cache-ram", "800", "--metrics", "--slots", "--log-jsonl"]
    begun = time.monotonic()
    with running([*line, "--fit", "off"], "listening on"):
        return time.monotonic() - begun


def wake(folder: Path, base: str, rounds: int) -> None:
    found: dict[str, list[float]] = {"switch": [], "from disk": [], "bare": []}
    for number in range(rounds):
        for what in sorted(found, reverse=bool(number % 2)):
            if what == "bare":
                found[what].append(bare(folder, "a"))
                continue
            load(base, "a")
            if what == "from disk":
                unload(base, "a")
            load(base, "b")
            if what == "from disk":
                unload(base, "b")  # so that what is measured is the coming alone
            found[what].append(load(base, "a"))
    middle = {what: statistics.median(seconds) for what, seconds in found.items()}
    told = ", ".join(f"{what} {seconds:.3f} s" for what, seconds in middle.items())
    ratios = " and ".join(f"{middle[k] / middle['bare']:.2f}" for k in ("switch", "from disk"))
    print(f"wake: {told}; of bare: {ratios}")


def load(base: str, name: str) -> float:
    begun = time.monotonic()
    post(base, f"/api/models/{name}/load")
    until(lambda: state(base, name) == "ready")
    return time.monotonic() - begun


def unload(base: str, name: str) -> None:
    post(base, f"/api/models/{name}/unload")
    until(lambda: state(base, name) == "cold")


def state(base: str, name: str) -> str:
    return next(m["state"] for m in get(base, "/api/status")["models"] if m["name"] == name)


def post(base: str, path: str) -> None:
    urllib.request.urlopen(urllib.request.Request(base + path, b"", admin)).close()


def takes_connections(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5):
        return True
    return False


def until(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.003)


def turns(base: str, requests: int, callers: int) -> tuple[float, float, int]:
    """Seconds for all, the longest of one, failures."""
    longest, failed = 0.0, 0

    def caller(number: int) -> None:
        nonlocal longest, failed
        for turn in range(requests // callers):
            begun = time.monotonic()
            try:
                ask(base, NAMES[(turn + number) % len(NAMES)], user(f"caller {number} says hello"))
            except OSError:
                failed += 1
            longest = max(longest, time.monotonic() - begun)

    begun = time.monotonic()
    with ThreadPoolExecutor(callers) as pool:
        list(pool.map(caller, range(callers)))
    return time.monotonic() - begun, longest, failed


@contextlib.contextmanager
def peer(what: str, folder: Path, room: float) -> Iterator[str]:
    """Its address, once it serves."""
    command, line, port = {
        "ours": (lambda: ours(folder, room), "ready\n", PORT),
        "router": (lambda: router(folder), "listening on", ROUTER_PORT),
        "llama-swap": (lambda: swap(folder), "listening on", SWAP_PORT),
    }[what]
    with running(command(), line):
        until(lambda: takes_connections(port))  # llama-swap says so before it does
        yield f"http://127.0.0.1:{port}"


def peers() -> list[str]:
    return ["ours", "router", *(["llama-swap"] if shutil.which("llama-swap") else [])]


def in_turns(pairs: int) -> list[str]:
    """There and back again, so that what changes with time falls on all alike; each once, where no
    pair is asked for."""
    return [*peers(), *reversed(peers())] * pairs or peers()


def switching(base: str) -> str:
    """How often our models came, and where the time went."""
    switches = sum(m["switches"] for m in get(base, "/api/status")["models"])
    stages: dict[str, float] = {}
    with urllib.request.urlopen(f"{base}/metrics", timeout=30) as answer:
        for row in answer.read().decode().splitlines():
            if row.startswith("llamacpp_model_switch_seconds_total"):
                stage = row.partition('stage="')[2].partition('"')[0]
                stages[stage] = stages.get(stage, 0.0) + float(row.split()[-1])
    spent = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in stages.items() if seconds)
    return f", {switches} switches: {spent}"


def beside(what: str, found: dict[str, list[float]]) -> None:
    middle = {name: statistics.median(values) for name, values in found.items()}
    told = ", ".join(f"{name} {value:.1f} s" for name, value in middle.items())
    best = min(value for name, value in middle.items() if name != "ours")
    worst = max(found["ours"]) / best
    print(f"{what}: {told}; ours / better peer {middle['ours'] / best:.2f}, worst {worst:.2f}")


def compare_turns(folder: Path, room: float, options: argparse.Namespace) -> None:
    found: dict[str, list[float]] = {name: [] for name in peers()}
    for what in in_turns(options.pairs):
        with peer(what, folder, room) as base:
            ask(base, "a", user("hello"))
            seconds, longest, failed = turns(base, options.requests, 4)
            found[what].append(seconds)
            more = switching(base) if what == "ours" else ""
            print(f"turns: {what} {seconds:.1f} s, longest {longest:.1f} s, {failed} failed{more}")
    beside("turns", found)


@dataclass
class Crew:
    """Two agents and a batch: seconds of all, of the batch, and until the agents' first tokens."""

    total: float = 0.0
    batch: float = 0.0
    failed: int = 0
    first: list[float] = field(default_factory=list)


def words(count: int, seed: int) -> str:
    return " ".join(random.Random(seed).choices(tiny_writer.WORDS, k=count))


def first_token(base: str, model: str, messages: Messages, tokens: int) -> tuple[float, str]:
    """Seconds until the first token, and the answer."""
    body = {"model": model, "messages": messages, "max_tokens": tokens, "stream": True}
    headers = {"Content-Type": "application/json"}
    url = f"{base}/v1/chat/completions"
    begun, first, said = time.monotonic(), 0.0, ""
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=600) as answer:
        for line in answer:
            if not line.startswith(b"data: {"):
                continue
            delta = json.loads(line[6:])["choices"][0]["delta"].get("content")
            if delta:
                first = first or time.monotonic() - begun
                said += delta
    return first or time.monotonic() - begun, said  # an empty answer has come, too


def crew(base: str, options: argparse.Namespace) -> Crew:
    found, begun = Crew(), time.monotonic()
    longest, more = (20, 5) if options.small else (600, 100)

    def agent(name: str, seed: int) -> None:
        dice, chat = random.Random(seed), user(words(longest, seed))
        for turn in range(options.agent_turns):
            try:
                first, said = first_token(base, name, chat, 16)
            except OSError:
                found.failed += 1
                continue
            found.first.append(first)
            again = user(words(more, 1000 * seed + turn))
            chat += [{"role": "assistant", "content": said}, *again]
            time.sleep(dice.uniform(0.5, 1.5))

    def worker(seed: int) -> None:
        for number in range(options.batch // 2):
            try:
                ask(base, "c", user(words(longest // 12, seed + number)), 8)
            except OSError:  # the router answers 400 at times while models take turns
                found.failed += 1
        found.batch = time.monotonic() - begun

    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(agent, name, seed) for seed, name in enumerate("ab")]
        jobs += [pool.submit(worker, 100 * seed) for seed in (1, 2)]
        for job in jobs:
            job.result()
    found.total = time.monotonic() - begun
    return found


def compare_agents(folder: Path, room: float, options: argparse.Namespace) -> None:
    parts: dict[str, dict[str, list[float]]] = {}
    for what in in_turns(options.pairs):
        with peer(what, folder, room) as base:
            ask(base, "c", user("hello"))
            found = crew(base, options)
            told = {
                "total": found.total,
                "first token p50": statistics.median(found.first),
                "first token p95": sorted(found.first)[math.ceil(0.95 * len(found.first)) - 1],
                "batch done": found.batch,
            }
            for part, seconds in told.items():
                every = parts.setdefault(part, {name: [] for name in peers()})
                every[what].append(seconds)
            seconds = ", ".join(f"{part} {value:.1f} s" for part, value in told.items())
            seconds += f", {found.failed} failed"
            print(f"agents: {what}: {seconds}{switching(base) if what == 'ours' else ''}")
    for part, every in parts.items():
        beside(f"agents: {part}", every)


def kept(base: str, words: int, trips: int) -> None:
    """A long chat that is new, asked again as it was, and gone on with: each after a trip to disk,
    with the way back."""
    text = " ".join(f"word{n}" for n in range(words))
    seconds: dict[str, list[float]] = {}
    for number in range(trips):
        chat = user(f"{number} {text}")
        for what in ("new", "asked again", "gone on with"):
            ask(base, "b", user("hello"))
            begun = time.monotonic()
            answer = ask(base, "a", chat, 1)
            seconds.setdefault(what, []).append(time.monotonic() - begun)
            timings = answer["timings"]
            print(
                f"kept: {what}: of {answer['usage']['prompt_tokens']} tokens {timings['prompt_n']} "
                f"read, first token in {seconds[what][-1]:.2f} s"
            )
            if what == "asked again":
                said = answer["choices"][0]["message"]["content"]
                chat += [{"role": "assistant", "content": said}, *user("?")]
    new = seconds.pop("new")
    for what, times in seconds.items():
        ratios = [cold / warm for cold, warm in zip(new, times, strict=True)]
        print(f"kept: {what}: {statistics.median(ratios):.0f} times sooner (median of {trips})")


def decision() -> None:
    rows = [
        Standing(str(n), {"d": 10}, Stage.AWAY, waiting_since=float(n), waiting=1)
        for n in range(45)
    ]
    rows += [Standing(f"h{n}", {"d": 2}, Stage.HERE, last_used=float(n)) for n in range(5)]
    times = []
    for _ in range(200):
        begun = time.perf_counter()
        assign(rows, {"d": 10}, 50.0, 60.0)
        times.append(time.perf_counter() - begun)
    print(f"decision: 50 models in {statistics.median(times) * 1000:.2f} ms")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="of wake")
    parser.add_argument(
        "--pairs", type=int, default=1, help="of rounds there and back; 0: each once"
    )
    parser.add_argument("--requests", type=int, default=60)
    parser.add_argument("--words", type=int, default=300, help="of the long chat")
    parser.add_argument("--trips", type=int, default=3, help="of kept")
    only = ["", "wake", "turns", "agents", "kept", "decision"]
    parser.add_argument("--only", default="", choices=only)
    parser.add_argument("--agent-turns", type=int, default=10)
    parser.add_argument("--batch", type=int, default=40, help="requests beside the agents")
    about = "tokens; real models have up to 262144"
    parser.add_argument("--vocabulary", type=int, default=0, help=about)
    parser.add_argument("--folder", help="keep the models here")
    parser.add_argument("--room", type=float, default=1.6, help="GiB for models")
    about = "all of it in a few seconds, with tiny models, for tests"
    parser.add_argument("--small", action="store_true", help=about)
    options = parser.parse_args()
    if options.small:
        options.rounds = options.trips = 1
        options.requests, options.words, options.room = 6, 20, 0.1
        options.agent_turns, options.batch = 2, 2
    return options


def main() -> None:
    options = arguments()
    with contextlib.ExitStack() as stack:
        name = options.folder or stack.enter_context(tempfile.TemporaryDirectory(dir="/tmp"))
        folder = Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        make(folder, small=options.small, vocabulary=options.vocabulary)
        base = f"http://127.0.0.1:{PORT}"
        if options.only in ("", "decision"):
            decision()
        if options.only in ("", "wake"):
            with running(ours(folder, options.room), "ready\n"):
                wake(folder, base, options.rounds)
        if options.only in ("", "kept"):
            with running(ours(folder, options.room, "disk_swapping"), "ready\n"):
                kept(base, options.words, options.trips)
        if options.only in ("", "turns"):
            compare_turns(folder, options.room, options)
        if options.only in ("", "agents"):
            compare_agents(folder, options.room, options)


if __name__ == "__main__":
    main()
