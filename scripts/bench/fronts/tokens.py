"""Tokens per second of the real llama-server through the app, beside the same process asked
directly; and through llama-server's own router."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import uvloop

from app.machine import network
from app.models import tiny
from scripts.bench.fronts import load
from scripts.bench.fronts.bench import Bench, Row, in_turns, median
from scripts.bench.fronts.peers import ROOT, Missing, real_server, running, serving

LOADED_IN = 60.0  # seconds


def model(bench: Bench) -> Path:
    """A random one of 722 MB, as scripts/bench/memory makes it; for a small run a tiny one."""
    if bench.small:
        return tiny.ensure(bench.folder)
    kept = Path(os.environ.get("BENCH_MODELS", bench.folder))
    code = "import sys; sys.argv=['memory']; import memory, pathlib; memory.NAMES='a'; "
    code += f"memory.make(pathlib.Path({str(kept)!r}))"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT / "scripts/bench", check=True)
    return kept / "a.gguf"


def request(name: str, tokens: int, prefix: str = "", key: str = "") -> bytes:
    said = [{"role": "user", "content": "Hello"}]
    fields = {"model": name, "messages": said, "stream": True, "max_tokens": tokens}
    body = json.dumps({**fields, "ignore_eos": True, "seed": 1, "temperature": 0}).encode()
    key = f"authorization: Bearer {key}\r\n" if key else ""
    return (
        f"POST {prefix}/v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n{key}"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode() + body


Asked = dict[str, tuple[load.Where, bytes]]  # by peer: where, and the request


def tokens(bench: Bench) -> Iterator[Row]:
    try:
        real_server()
        path = model(bench)
    except Missing as error:
        bench.missing.add(str(error))
        return
    many = bench.size(8, 2)
    fields = [{"model": str(path), "endpoint_name": "a", "threads": 1, "parallel": many}]
    sets = ["--set", f"General/models={json.dumps(fields)}"]
    with serving(bench.folder, ROOT, sets) as app, router(bench, path, many) as port:
        (child,) = app.process.children()
        line = child.cmdline()
        where, key = line[line.index("--host") + 1], child.environ()["LLAMA_API_KEY"]
        wait_for(port, request(path.stem, 1))
        asked: Asked = {}
        for streams in (1, many):
            count = bench.size(24 if streams == 1 else 16, 4)
            asked["app"] = app.port, request("a", count, "/a")
            asked["direct"] = where, request("a", count, key=key)
            asked["router"] = port, request(path.stem, count)
            yield compared(bench, asked, streams, path)


def wait_for(port: int, data: bytes) -> None:
    """Until the router answers: for a moment it says of a model that comes that it is loading."""
    until = time.monotonic() + LOADED_IN
    while True:
        try:
            uvloop.run(load.streams(port, data, 1))
            return
        except ConnectionError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def rate(asked: tuple[load.Where, bytes], streams: int) -> float:
    """Tokens per second from the first event on: to read the prompt is llama-server's work."""
    found = uvloop.run(load.streams(*asked, streams))
    return sum(stream.events for stream in found) / max(stream.took for stream in found)


def compared(bench: Bench, asked: Asked, streams: int, path: Path) -> Row:
    routed = [rate(asked["router"], streams) for _ in range(bench.size(3, 1))]
    for name in ("app", "direct"):
        rate(asked[name], streams)
    turns = bench.size(max(bench.rounds, 5), 1)  # of two pairs each
    measures = {n: lambda n=n: rate(asked[n], streams) for n in ("app", "direct")}
    found = in_turns(measures, turns)
    pairs = zip(found["app"], found["direct"], strict=True)
    ratio = median([ours / direct for ours, direct in pairs if direct] or [0.0])
    size = path.stat().st_size / 1e6
    return Row(
        f"tokens per second, real llama-server, model of {size:.0f} MB, `-t 1`, {streams} at a "
        f"time, {2 * turns} pairs",
        f"{median(found['app']):.1f}",
        f"the same process directly {median(found['direct']):.1f}, "
        f"its router mode {median(routed):.1f}",
        f"{ratio:.3f}",
        "≥ 0.99",
    )


@contextlib.contextmanager
def router(bench: Bench, path: Path, parallel: int) -> Iterator[int]:
    """The port of a llama-server in router mode, with the model in its folder."""
    folder = bench.folder / "models"
    folder.mkdir(exist_ok=True)
    link = folder / path.name
    if not link.exists():
        os.symlink(path, link)
    port = network.free_port()
    line = [str(real_server()), "--models-dir", str(folder), "--models-max", "1", "--port"]
    line += [str(port), "-t", "1", "-tb", "1", "-np", str(parallel), "--no-ui", "--fit", "off"]
    with running([*line, "-c", "4096"], port, quiet=True) as process:
        try:
            yield port
        finally:
            for child in process.children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.terminate()
