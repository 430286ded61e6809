"""Universal Memory on this machine's GPU, as a table: footprints predicted and held, seconds to
park and wake against a warm and a cold start, GPU memory after a park, KV cache kept, alternations
of two models that fit only one at a time, and what is shown of the GPU. Exit status 1 where
something does not hold.

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
import urllib.request
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts" / "bench")]

import memory as bench  # noqa: E402

from app.machine import gpu  # noqa: E402

PORT = 18141
REPORTED = 40.0  # seconds after which ClearML's monitor has reported
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


def reported(folder: Path) -> None:
    """What ClearML's own monitor has written of the GPUs, in the offline task's record."""
    found = {}
    for record in folder.glob("offline/*/metrics.jsonl"):
        for line in record.read_text().splitlines():
            for event in json.loads(line):
                if event.get("metric") == ":monitor:gpu":
                    found[event["variant"]] = event["value"]
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
    again = bench.ask(BASE, "a", bench.user(text), 1)["timings"]
    kept = again["cache_n"] / max(1, first["prompt_n"])
    row("KV cache kept", f"{again['cache_n']} tokens of {first['prompt_n']}", ok=kept > 0.9)
    warm = bench.bare(Path(tempfile.mkdtemp(dir="/tmp")), models[0])
    forget_pages(models[0])
    cold = bench.bare(Path(tempfile.mkdtemp(dir="/tmp")), models[0])
    row("bare llama-server, warm / cold start", f"{warm:.2f} / {cold:.2f} s")
    if gpu.devices() and tier == "ram":
        row("wake against a warm start", f"{warm / wake:.1f} times sooner", ok=warm >= 3 * wake)


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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", action="append", default=[], help="two of them")
    parser.add_argument("--room", type=float, help="GiB for models: less than both, enough for one")
    parser.add_argument("--alternations", type=int, default=100)
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        if len(options.model) < 2:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/tmp")))
            bench.make(folder)
            options.model = [str(folder / f"{name}.gguf") for name in NAMES]
        found = checked(options.model)
        memories = [m["memory"] for m in found["models"]]
        for name, memory in zip(NAMES, memories, strict=False):
            sizes = {**memory["devices"], "host": memory["host"]}
            said = ", ".join(f"{d} {size / 1e9:.2f} GB" for d, size in sizes.items())
            row(f"predicted for {name}", said)
        largest = max(sum(m["devices"].values()) or m["host"] for m in memories)
        room = options.room or (largest + (600 << 20)) / (1 << 30)
        row("room for models", f"{room:.2f} GiB")
        record = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/tmp")))
        os.environ["CLEARML_CACHE_DIR"] = str(record)
        begun = time.monotonic()
        with bench.running(command(options.model, room), "ready\n"):
            moves(options.model, memories[0]["devices"])
            alternate(options.alternations)
            if gpu.devices():
                shown()
                time.sleep(max(0.0, REPORTED - (time.monotonic() - begun)))
        if gpu.devices():
            reported(record)
    print("all is well" if not problems else f"{len(problems)} bad: {', '.join(problems)}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
