"""One instance at work, and what can be seen of it from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.chaos import models

ROOT = Path(__file__).resolve().parent.parent.parent.parent
CHATS, EMBEDS = ("a", "b", "c"), "e"
ROOM = 0.12  # GiB: two of those that chat, or the one for embeddings
COMES, ENDS = 120.0, 60.0  # seconds
LEFT_OUT = ("CLEARML", "TRAINS", "HF_", "LLAMACPP")


class Instance:
    """`folder` has everything that it writes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.places = [folder / name for name in ("run", "tmp", "cache", "home")]
        for place in self.places:
            place.mkdir()
        models.write(folder, (*CHATS, EMBEDS))
        self.log, self.tasks_file = folder / "app.log", folder / "tasks"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self._command(), cwd=ROOT, env=self._environment(), stdout=log, stderr=log
            )
        self.app = psutil.Process(self.process.pid)
        self.base = ""

    def _command(self) -> list[str]:
        listed: list[dict[str, object]] = [
            {"model": str(self.folder / f"{name}.gguf"), "endpoint_name": name, "threads": 1}
            for name in (*CHATS, EMBEDS)
        ]
        listed[-1]["embedding"] = True
        fields = {
            "General/models": json.dumps(listed),
            "General/max_cuda_memory": str(ROOM),
            "General/disk_swapping": "true",
        }
        sets = [text for key, value in fields.items() for text in ("--set", f"{key}={value}")]
        given = ["--offline", "--host", "127.0.0.1", "--port", "0", *sets]
        given += ["--cache-dir", str(self.folder / "cache")]
        watched = [sys.executable, "-m", "scripts.bench.soaks.watched", str(self.tasks_file)]
        return [*watched, *given]

    def _environment(self) -> dict[str, str]:
        ours = {k: v for k, v in os.environ.items() if not k.startswith(LEFT_OUT)}
        run, tmp, _, home = map(str, self.places)
        more = {"XDG_RUNTIME_DIR": run, "TMPDIR": tmp, "HOME": home, "PYTHONUNBUFFERED": "1"}
        return {**ours, **more, "CLEARML_CACHE_DIR": f"{home}/clearml"}

    def ready(self) -> None:
        """Raises RuntimeError where it ends, or does not come."""
        until = time.monotonic() + COMES
        while "\nready\n" not in (told := self.log.read_text()):
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"it does not serve:\n{told}")
            time.sleep(0.05)
        self.base = told.partition("listening on ")[2].split()[0]

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.base + path, timeout=60) as answer:
            return str(answer.read().decode())

    def post(self, path: str, body: object) -> None:
        data = json.dumps(body).encode()
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(self.base + path, data, headers)
        with urllib.request.urlopen(request, timeout=300) as answer:
            answer.read()

    def at_rest(self, seconds: float) -> dict[str, float]:
        """After one request to each model in turn: so the same ones are in memory each time."""
        for name in CHATS:
            self.post("/v1/completions", {"model": name, "prompt": "hello", "max_tokens": 2})
        self.post("/v1/embeddings", {"model": EMBEDS, "input": "hello"})
        time.sleep(seconds)
        return self.sample()

    def sample(self) -> dict[str, float]:
        children = self.app.children(recursive=True)
        servers = [child for child in children if _name(child) == "llama-server"]
        files = [path for place in self.places[:3] for path in _files(place)]
        return {
            "resident memory, MB": self.app.memory_info().rss / 1e6,
            "descriptors": self.app.num_fds(),
            "threads": self.app.num_threads(),
            "asyncio tasks": float(self.tasks_file.read_text() or 0),
            "llama-servers": len(servers),
            "other processes": len(children) - len(servers),
            "files": len(files),
        }

    def end(self) -> list[str]:
        """What is wrong with its end, if anything is."""
        children = self.app.children(recursive=True)
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(ENDS)
        found = [] if status == 128 + signal.SIGTERM else [f"its exit status is {status}"]
        _, alive = psutil.wait_procs(children, timeout=10)
        found += [f"a process is left: {child}" for child in alive]
        found += [f"a folder is left: {path}" for path in self.places[0].glob("lmd-*")]
        told = self.log.read_text(errors="replace")
        return found + (["there is a traceback in its log"] if "Traceback" in told else [])


def _name(process: psutil.Process) -> str:
    """ "" for one that has just ended."""
    try:
        return str(process.name())
    except psutil.NoSuchProcess:
        return ""


def _files(folder: Path) -> Iterator[str]:
    for _, _, names in os.walk(folder):
        yield from names


@contextmanager
def running(folder: Path) -> Iterator[Instance]:
    instance = Instance(folder)
    try:
        instance.ready()
        yield instance
    finally:
        if instance.process.poll() is None:
            instance.process.kill()
            instance.process.wait()
