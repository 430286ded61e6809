"""Universal Memory on this machine's GPU, as a table: footprints predicted and held, seconds to
park and wake against a warm and a cold start and the link's own rate, GPU memory after a park, KV
cache kept, a return refused while another program holds the room, alternations of two models that
fit only one at a time, and what is shown of the GPU. Exit status 1 where something does not hold.

Without models of your own, two random ones of ~700 MB are made. It runs without a GPU too: idle
models are then stopped and started.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts" / "bench")]

import memory as bench  # noqa: E402

from app.machine import gpu, network  # noqa: E402
from app.memory.room import LOOK  # noqa: E402
from app.planning.budget import CONTEXT  # noqa: E402

PORT = network.free_port()
READING = 1.5  # seconds after which what is shown of memory was read anew
COPIED = 1 << 30  # bytes, to measure the link
LARGE = 4e9  # bytes that have to move before their rate says anything of the link
REPORTED = 40.0  # seconds in which ClearML's monitor has reported
BASE = f"http://127.0.0.1:{PORT}"
NAMES = ("a", "b")
problems: list[str] = []


def row(what: str, value: str, *, ok: bool = True) -> None:
    print(f"{'ok ' if ok else 'BAD'}  {what:44} {value}", flush=True)
    if not ok:
        problems.append(what)


def command(models: list[str], room: float | None, *words: str) -> list[str]:
    items = [{"model": m, "endpoint_name": n} for m, n in zip(models, NAMES, strict=False)]
    fields = {"General/models": json.dumps(items), "General/cpu_offloading": "true"}
    if room is not None:
        fields["General/max_cuda_memory"] = f"{room:.3f}"
    sets = [text for key, value in fields.items() for text in ("--set", f"{key}={value}")]
    return [sys.executable, "-m", "app", *words, "--offline", "--port", str(PORT), *sets]


def checked(models: list[str]) -> dict[str, Any]:
    """What `check` says of the models."""
    done = subprocess.run(
        command(models, None, "check", "--json"), cwd=ROOT, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def used() -> int:
    return sum(device.used for device in gpu.devices())


def model(name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(
        m for m in bench.get(BASE, "/api/status")["models"] if m["name"] == name
    )
    return found


def away(name: str) -> float:
    begun = time.monotonic()
    bench.post(BASE, f"/api/models/{name}/park")
    bench.until(lambda: model(name)["state"] in ("parked", "cold"))
    return time.monotonic() - begun


def shown() -> None:
    """What people see of the GPUs: the status, the page's plots, /metrics."""
    bench.load(BASE, "a")
    time.sleep(READING)
    for device in bench.get(BASE, "/api/status")["devices"]:
        said = f"{device['used'] / 1e9:.2f} of {device['total'] / 1e9:.1f} GB"
        row(f"shown of GPU {device['id']}, {device['name']}", said, ok=0 < device["used"])
    held = model("a")["memory"]["gpu"]
    row(
        "shown of a", ", ".join(f"GPU {d} {n / 1e9:.2f} GB" for d, n in held.items()), ok=bool(held)
    )
    with urllib.request.urlopen(f"{BASE}/api/events", timeout=30) as events:
        columns, values = plotted(events)
    for (plot, series), value in zip(columns, values, strict=True):
        if plot.startswith("gpu"):
            row(f"plotted: {plot} of GPU {series}", f"{value}", ok=value is not None)
    with urllib.request.urlopen(f"{BASE}/metrics", timeout=30) as answer:
        told = b"gpu_memory_used_bytes{" in answer.read()
    row("/metrics tells of the GPU", str(told), ok=told)


def plotted(events: IO[bytes]) -> tuple[list[list[str]], list[float | None]]:
    """The columns of the page's plots, and the next row of them."""
    columns: list[list[str]] = []
    kind = ""
    for line in events:
        name, _, data = line.decode().rstrip("\n").partition(": ")
        if name == "event":
            kind = data
        elif name == "data" and kind == "hello":
            columns = json.loads(data)["columns"]
        elif name == "data" and kind == "row":
            return columns, json.loads(data)[1:]
    raise SystemExit("/api/events has ended")


def monitored(folder: Path) -> dict[str, float]:
    """What ClearML's own monitor has written of the GPUs, in the offline task's record."""
    found: dict[str, float] = {}
    for record in folder.glob("offline/*/metrics.jsonl"):
        for line in record.read_text().splitlines():
            with contextlib.suppress(ValueError):  # it is just being written
                events = [e for e in json.loads(line) if e.get("metric") == ":monitor:gpu"]
                found |= {event["variant"]: event["value"] for event in events}
    return found


def reported(folder: Path) -> None:
    """The monitor takes its time."""
    deadline = time.monotonic() + REPORTED
    while not (found := monitored(folder)) and time.monotonic() < deadline:
        time.sleep(0.5)
    for series in ("gpu_0_utilization", "gpu_0_mem_used_gb", "gpu_0_temperature"):
        row(f"reported: {series}", str(found.get(series)), ok=series in found)


def forget_pages(path: str) -> None:
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def moves(models: list[str], predicted: dict[str, int]) -> None:
    """Seconds and bytes of one model's trips."""
    bench.load(BASE, "a")  # b leaves, if it was there
    text = " ".join(f"word{n}" for n in range(150))
    first = bench.ask(BASE, "a", bench.user(text), 2)["timings"]
    held = used()
    parked = away("a")
    state, tier = model("a")["state"], model("a")["tier"]
    freed = held - used()
    row("tier of an idle model", f"{state}, {tier}")
    size = sum(predicted.values())
    if gpu.devices():
        row("GPU memory predicted / freed by a park", f"{size / 1e9:.2f} / {freed / 1e9:.2f} GB")
        row("  freed at least 0.9 of it", f"{freed / max(1, size):.2f}", ok=freed >= 0.9 * size)
    wake = bench.load(BASE, "a")
    row("park / wake", f"{parked:.2f} / {wake:.2f} s ({size / 1e9 / wake:.1f} GB/s)")
    if gpu.devices() and tier == "ram":
        link(predicted, wake)
    kept(text, first["prompt_n"])
    if gpu.devices():
        short(predicted)
        kept(text, first["prompt_n"])
    warm = bench.bare(Path(tempfile.mkdtemp(dir="/tmp")), models[0])
    forget_pages(models[0])
    cold = bench.bare(Path(tempfile.mkdtemp(dir="/tmp")), models[0])
    row("bare llama-server, warm / cold start", f"{warm:.2f} / {cold:.2f} s")
    if gpu.devices() and tier == "ram":
        sooner = warm / wake
        row("wake against a warm start", f"{sooner:.1f} times", ok=sooner >= 3 or size < LARGE)


def kept(text: str, tokens: int) -> None:
    again = bench.ask(BASE, "a", bench.user(text), 1)["timings"]
    said = f"{again['cache_n']} tokens of {tokens}"
    row("KV cache kept", said, ok=again["cache_n"] > 0.9 * tokens)


def cuda_memory(device: str, what: str, size: int) -> subprocess.Popen[str]:
    """scripts/cuda_memory.py on one of llama-server's devices."""
    program = str(ROOT / "scripts" / "cuda_memory.py")
    return subprocess.Popen(
        [sys.executable, program, device.removeprefix("CUDA"), what, str(size)],
        env={**os.environ, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def link(predicted: dict[str, int], wake: float) -> None:
    """What the link to the model's first GPU carries, and how much of that a wake makes use of."""
    device, size = next(iter(predicted)), sum(predicted.values())
    with cuda_memory(device, "copy", min(COPIED, size)) as child:
        told = (child.stdout.read() if child.stdout else "").split()
    if len(told) != 2:
        row("the link's rate", "not measured", ok=False)
        return
    to, back = map(float, told)
    row("the link's rate, to the GPU / from it", f"{to / 1e9:.1f} / {back / 1e9:.1f} GB/s")
    share = size / wake / to
    row("  used by a wake", f"{share:.2f}", ok=share >= 0.5 or size < LARGE)


@contextlib.contextmanager
def held_by_another(device: str, size: int) -> Iterator[None]:
    with cuda_memory(device, "hold", size) as child:
        assert child.stdin is not None and child.stdout is not None
        if child.stdout.readline().strip() != "held":
            row("another program holds the room", "it could not", ok=False)
        try:
            yield
        finally:
            child.stdin.close()


def short(predicted: dict[str, int]) -> None:
    """a is away, and another program takes the room: a is not brought back, which would leave it
    stuck; when the room is free again, it comes."""
    away("a")
    device = next(iter(predicted))
    free = gpu.free()[device]
    before = model("a")["state"]
    # Less what the other one's own context takes: half of the room is left.
    with held_by_another(device, free - predicted[device] // 2 - CONTEXT):
        time.sleep(3 * LOOK)
        begun = time.monotonic()
        try:
            bench.ask(BASE, "a", bench.user("hello"), 1)
            status = 200
        except urllib.error.HTTPError as error:
            status = error.code
        seconds = time.monotonic() - begun
        after = model("a")["state"]
        said = f"{status} after {seconds:.1f} s, {before} as before"
        row("a return without room is refused", said, ok=status == 503 and after == before)
    bench.load(BASE, "a")
    row("  and comes when there is room", model("a")["state"], ok=model("a")["state"] == "ready")


def alternate(times: int) -> None:
    failed, begun = 0, time.monotonic()
    for number in range(times):
        try:
            bench.ask(BASE, NAMES[number % 2], bench.user(f"hello {number}"), 4)
        except OSError as error:
            failed += 1
            print(f"     alternation {number}: {error}")
    seconds = time.monotonic() - begun
    row(f"{times} alternations", f"{seconds:.1f} s, {failed} failed", ok=not failed)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", action="append", default=[], help="two of them")
    parser.add_argument("--room", type=float, help="GiB for models: less than both, enough for one")
    parser.add_argument("--alternations", type=int, default=100)
    parser.add_argument("--quick", action="store_true", help="without what ClearML's monitor says")
    return parser.parse_args()


def planned(models: list[str], room: float | None) -> tuple[float, dict[str, int]]:
    """The room for models in GiB, and what is predicted of the first one, by GPU."""
    memories = [m["memory"] for m in checked(models)["models"]]
    for name, memory in zip(NAMES, memories, strict=False):
        sizes = {**memory["devices"], "host": memory["host"]}
        said = ", ".join(f"{d} {size / 1e9:.2f} GB" for d, size in sizes.items())
        row(f"predicted for {name}", said)
    largest = max(sum(m["devices"].values()) or m["host"] for m in memories)
    room = room or (largest + (600 << 20)) / (1 << 30)
    row("room for models", f"{room:.2f} GiB")
    return room, memories[0]["devices"]


def main() -> int:
    given = options()
    with contextlib.ExitStack() as stack:
        models = given.model
        if len(models) < 2:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/tmp")))
            bench.make(folder)
            models = [str(folder / f"{name}.gguf") for name in NAMES]
        room, predicted = planned(models, given.room)
        record = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/tmp")))
        os.environ["CLEARML_CACHE_DIR"] = str(record)
        with bench.running(command(models, room), "ready\n"):
            moves(models, predicted)
            alternate(given.alternations)
            if gpu.devices():
                shown()
            if gpu.devices() and not given.quick:
                reported(record)
    print("all is well" if not problems else f"{len(problems)} bad: {', '.join(problems)}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
