"""Universal Memory measured: three models of ~700 MB, memory for one, `-t 1`, on the CPU.

1. `wake`: a model that makes room for another and comes back, beside a bare llama-server that
   starts on a warm page cache; interleaved.
2. `turns`: 60 requests of 8 tokens that alternate over 3 models, 4 callers; beside llama-server's
   router mode with room for one model; ABBA.
3. `kept`: the follow-up of a long chat after a trip to disk and back, beside a chat as long that
   is new.
4. `decision`: one call of the policy for 50 models.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from app.engine.capabilities import find  # noqa: E402
from app.machine import network  # noqa: E402
from app.memory.turns import Stage, Standing, assign  # noqa: E402
from app.models import tiny_writer  # noqa: E402

NAMES = "abc"
PORT, ROUTER_PORT = network.free_port(), network.free_port()
ENDS = 15.0  # seconds for a process to end before it is asked again
CONTEXT = 2048
TOKEN = "#token="  # before it, in the address that the app prints
admin: dict[str, str] = {}  # the header that an admin call needs


def make(folder: Path, *, small: bool = False) -> None:
    """Random models of 24 layers and 680 million parameters, at 8 bits; tiny ones if `small`."""
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
            tiny_writer.write(path, seed=seed, context=CONTEXT, quantised=True)


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


def ours(folder: Path, room: float) -> list[str]:
    models = [
        {"model": str(folder / f"{n}.gguf"), "endpoint_name": n, "threads": 1, "parallel": 4}
        for n in NAMES
    ]
    fields = {
        "General/models": json.dumps(models),
        "General/max_cuda_memory": str(room),
        "General/disk_swapping": "true",
    }
    sets = [text for key, value in fields.items() for text in ("--set", f"{key}={value}")]
    return [sys.executable, "-m", "app", "--offline", "--port", str(PORT), *sets]


def router(folder: Path) -> list[str]:
    line = [str(find("", os.environ)), "--models-dir", str(folder), "--models-max", "1"]
    line += ["--port", str(ROUTER_PORT), "-t", "1", "-c", str(CONTEXT), "-np", "4", "--no-ui"]
    return [*line, "--fit", "off"]


def bare(folder: Path, name: str) -> float:
    """Seconds from the start of a llama-server, with our arguments, until it listens; `name` is
    one of our models, or a path."""
    socket = folder / "bare.sock"
    socket.unlink(missing_ok=True)
    model = name if "/" in name else str(folder / f"{name}.gguf")
    line = [str(find("", os.environ)), "-m", model, "--host", str(socket)]
    line += ["-t", "1", "-tb", "1", "-c", str(CONTEXT), "-np", "4", "--kv-unified", "--no-ui"]
    line += ["--no-cache-idle-slots", "--cache-ram", "800", "--metrics", "--slots", "--log-jsonl"]
    begun = time.monotonic()
    with running([*line, "--fit", "off"], "listening on"):
        return time.monotonic() - begun


def wake(folder: Path, base: str, rounds: int) -> None:
    found: dict[str, list[float]] = {"ours": [], "bare": []}
    for number in range(rounds):
        for what in ("ours", "bare") if number % 2 else ("bare", "ours"):
            if what == "bare":
                found[what].append(bare(folder, "a"))
                continue
            load(base, "b")
            unload(base, "b")  # so that what is measured is the coming alone
            found[what].append(load(base, "a"))
            unload(base, "a")
    a, b = (statistics.median(found[k]) for k in ("ours", "bare"))
    print(f"wake: ours {a:.3f} s, bare start {b:.3f} s, ratio {a / b:.2f}, {a - b:+.3f} s")


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


def compare_turns(folder: Path, room: float, options: argparse.Namespace) -> None:
    found: dict[str, list[float]] = {"ours": [], "router": []}
    for what in ["ours", "router", "router", "ours"] * options.pairs:
        command = ours(folder, room) if what == "ours" else router(folder)
        base = f"http://127.0.0.1:{PORT if what == 'ours' else ROUTER_PORT}"
        with running(command, "ready\n" if what == "ours" else "listening on"):
            ask(base, "a", user("hello"))
            seconds, longest, failed = turns(base, options.requests, 4)
            found[what].append(seconds)
            more = ""
            if what == "ours":
                switches = sum(m["switches"] for m in get(base, "/api/status")["models"])
                more = f", {switches} switches"
            print(f"turns: {what} {seconds:.1f} s, longest {longest:.1f} s, {failed} failed{more}")
    a, b = (statistics.median(found[k]) for k in ("ours", "router"))
    print(f"turns: ours {a:.1f} s, router {b:.1f} s, ratio {a / b:.2f}")


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
    parser.add_argument("--pairs", type=int, default=1, help="ABBA pairs of turns")
    parser.add_argument("--requests", type=int, default=60)
    parser.add_argument("--words", type=int, default=300, help="of the long chat")
    parser.add_argument("--trips", type=int, default=3, help="of kept")
    parser.add_argument("--only", default="", help="wake, turns, kept or decision")
    parser.add_argument("--folder", help="keep the models here")
    parser.add_argument("--room", type=float, default=1.6, help="GiB for models")
    about = "all of it in a few seconds, with tiny models, for tests"
    parser.add_argument("--small", action="store_true", help=about)
    options = parser.parse_args()
    if options.small:
        options.rounds = options.trips = 1
        options.requests, options.words, options.room = 6, 20, 0.1
    return options


def main() -> None:
    options = arguments()
    with contextlib.ExitStack() as stack:
        name = options.folder or stack.enter_context(tempfile.TemporaryDirectory(dir="/tmp"))
        folder = Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        make(folder, small=options.small)
        base = f"http://127.0.0.1:{PORT}"
        if options.only in ("", "decision"):
            decision()
        if options.only in ("", "wake", "kept"):
            with running(ours(folder, options.room), "ready\n"):
                if options.only != "kept":
                    unload(base, "a")
                    wake(folder, base, options.rounds)
                if options.only != "wake":
                    kept(base, options.words, options.trips)
        if options.only in ("", "turns"):
            compare_turns(folder, options.room, options)


if __name__ == "__main__":
    main()
