import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import pytest

from app.models import tiny

# A shell ignores it for what it runs in the background, and so would every process of ours.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parent.parent.parent
READY, LISTENING = "ready", re.compile(r"listening on (http://\S+)")
LEFT_OUT = ("CLEARML", "TRAINS", "HF_", "LLAMACPP", "XDG_RUNTIME")


def name_of(process):
    """Its program; "" for one that has just ended."""
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""


def pytest_collection_modifyitems(items):
    for item in items:
        if "end_to_end" in str(item.path):
            item.add_marker(pytest.mark.end_to_end)


class App:
    """`python -m app`, as a person starts it, with folders of its own."""

    def __init__(self, folder, arguments, environment):
        self.runtime = Path(tempfile.mkdtemp(prefix="t-", dir="/tmp"))  # a socket's path is short
        self.clearml = folder / "clearml"
        clean = {k: v for k, v in os.environ.items() if not k.startswith(LEFT_OUT)}
        environment = {
            **clean,
            "XDG_RUNTIME_DIR": str(self.runtime),
            "CLEARML_CACHE_DIR": str(self.clearml),
            "CLEARML_CONFIG_FILE": str(folder / "no.conf"),
            "PYTHONUNBUFFERED": "1",
            **environment,
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "app", *arguments],
            cwd=ROOT,
            env={k: v for k, v in environment.items() if v is not None},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self.lines, self.clients = [], []
        self._grew = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            with self._grew:
                self.lines.append(line.rstrip("\n"))
                self._grew.notify_all()
        with self._grew:
            self.lines.append(None)
            self._grew.notify_all()

    @property
    def output(self):
        return "\n".join(line for line in self.lines if line is not None)

    def line(self, pattern, timeout=60):
        """Wait for a line that matches; its match."""
        deadline, seen = time.monotonic() + timeout, 0
        with self._grew:
            while True:
                for line in self.lines[seen:]:
                    assert line is not None, f"ended without {pattern!r}:\n{self.output}"
                    if found := re.search(pattern, line):
                        return found
                    seen += 1
                left = deadline - time.monotonic()
                assert left > 0, f"no {pattern!r} in {timeout} s:\n{self.output}"
                self._grew.wait(left)

    def ready(self):
        self.line(f"^{READY}$")
        return self

    @property
    def url(self):
        return self.line(LISTENING)[1]

    @property
    def children(self):
        """The pids of its llama-servers."""
        try:
            family = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        return [child.pid for child in family if name_of(child) == "llama-server"]

    @property
    def folders(self):
        return list(self.runtime.glob("lmd-*"))

    def end(self, signum=signal.SIGTERM, timeout=40):
        """Send a signal, and wait: the exit status."""
        self.process.send_signal(signum)
        return self.wait(timeout)

    def wait(self, timeout=60):
        status = self.process.wait(timeout)
        self._reader.join(10)
        return status

    def record(self):
        """The offline task's own record: its hyperparameters and scalars."""
        (session,) = [p for p in (self.clearml / "offline").iterdir() if p.is_dir()]
        task = json.loads((session / "task.json").read_text())
        sections = task["hyperparams"].items()
        parameters = {f"{s}/{n}": p["value"] for s, ps in sections for n, p in ps.items()}
        lines = (session / "metrics.jsonl").read_text().splitlines()
        events = [event for line in lines for event in json.loads(line)]
        return parameters, [e for e in events if e["type"] == "training_stats_scalar"]

    def clean_up(self):
        for client in self.clients:
            client.close()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._reader.join(10)
        self.process.stdout.close()
        shutil.rmtree(self.runtime, ignore_errors=True)


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def endless(tmp_path_factory):
    """A tiny model with room for a stream of a minute and more."""
    path = tmp_path_factory.mktemp("endless") / "endless.gguf"
    tiny.write(path, context=1 << 17)
    return path


@pytest.fixture
def start(tmp_path, cache):
    """Start the app offline on a free port: `start("--set", …, VARIABLE=…)`."""
    started = []

    def starter(*arguments, offline=True, port="0", host="127.0.0.1", **environment):
        folder = tmp_path / str(len(started))
        folder.mkdir()
        given = ["--cache-dir", str(cache), *arguments]
        given += ["--offline"] if offline else []
        given += ["--host", host] if host else []
        if port == "0":
            given += ["--port", str(free_port())]
        elif port:
            given += ["--port", port]
        started.append(App(folder, given, environment))
        return started[-1]

    yield starter
    for app in started:
        app.clean_up()


def free_port():
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]
