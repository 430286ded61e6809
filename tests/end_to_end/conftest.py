import atexit
import functools
import itertools
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from xdist.scheduler import LoadScopeScheduling

from app.models import tiny_writer
from tests.end_to_end.forge import Forge

# A shell ignores it for what it runs in the background, and so would every process of ours.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parent.parent.parent
READY, LISTENING = "ready", re.compile(r"listening on (http://\S+)")
OWN_THREADS = re.compile("General/models=|Model/threads=|--config|--threads")
LEFT_OUT = ("CLEARML", "TRAINS", "HF_", "LLAMACPP", "XDG_RUNTIME")
PATIENCE = 180  # seconds: on a busy machine everything comes, but late


def environment_of(home):
    """The variables of a person who has set up nothing, with a home of their own."""
    ours = {k: v for k, v in os.environ.items() if not k.startswith(LEFT_OUT)}
    return {**ours, "HOME": str(home)}


def name_of(process):
    """Its program; "" for one that has just ended."""
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""


def end_family(process):
    """Kill it with all that it has started, in whatever session, and reap it."""
    if process.poll() is None:
        family = psutil.Process(process.pid).children(recursive=True)
        for each in (process, *family):
            with suppress(psutil.NoSuchProcess):
                each.kill()
    process.wait()


# Their tests share a fixture that is costly, of a module or a folder: they stay together.
TOGETHER = "test_clearml_task.py", "test_page.py", "test_bodies.py", "test_shapes.py", "clients"


class Together(LoadScopeScheduling):
    def _split_scope(self, nodeid):
        module = nodeid.split("::")[0]
        for scope in (module, module.rpartition("/")[0]):
            if scope.endswith(TOGETHER):
                return scope
        return nodeid


def pytest_xdist_make_scheduler(config, log):
    return Together(config, log)


def pytest_collection_modifyitems(items):
    """What takes long begins first, and what takes a second last: the others fill the time until
    the end of these."""
    for item in items:
        if "end_to_end" in str(item.path):
            item.add_marker(pytest.mark.end_to_end)
    items.sort(key=lambda item: (not has(item, "long"), has(item, "quick")))


def has(item, mark):
    return item.get_closest_marker(mark) is not None


class App:
    """`python -m app`, as a person starts it, with folders of its own. It comes from the forge,
    unless it has to be `alone`, runs in another folder, or has variables of the interpreter."""

    def __init__(self, folder, arguments, environment, cwd=ROOT, alone=False):
        self.runtime = Path(tempfile.mkdtemp(prefix="t-", dir="/tmp"))  # a socket's path is short
        self.clearml = folder / "clearml"
        environment = {
            **environment_of(folder),
            "XDG_RUNTIME_DIR": str(self.runtime),
            "CLEARML_CACHE_DIR": str(self.clearml),
            "CLEARML_CONFIG_FILE": str(folder / "no.conf"),
            "PYTHONUNBUFFERED": "1",
            **environment,
        }
        environment = {k: v for k, v in environment.items() if v is not None}
        if not alone and cwd == ROOT and forge().starts(environment):
            self.process = forge().start(arguments, environment)
        else:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "app", *arguments],
                cwd=cwd,
                env=environment,
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

    def line(self, pattern, timeout=PATIENCE):
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
    def address(self):
        """Of the page, as the console prints it: with the token of this run."""
        return self.line(r"the page, .*(http://\S+/#token=\S+)")[1]

    @property
    def token(self):
        """What an admin call sends where there is no key."""
        return self.address.partition("#token=")[2]

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

    def end(self, signum=signal.SIGTERM, timeout=PATIENCE):
        """Send a signal, and wait: the exit status."""
        self.process.send_signal(signum)
        return self.wait(timeout)

    def wait(self, timeout=PATIENCE):
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


@functools.cache
def forge():
    """This worker's."""
    hot = Forge()
    atexit.register(hot.close)
    return hot


def finished(*arguments, environment):
    """`python -m app` with these, to its end: as subprocess.run, with its output and its errors."""
    if forge().starts(environment):
        return forge().run(arguments, environment, PATIENCE)
    line = [sys.executable, "-m", "app", *arguments]
    return subprocess.run(
        line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE
    )


def checked(folder, *arguments, offline=True, **environment):
    """`python -m app check`, which finds what a start finds, plans as it does, and is over in a
    fifth of the time: it needs no task."""
    environment = {**environment_of(folder), "XDG_RUNTIME_DIR": str(folder), **environment}
    return finished("check", *["--offline"] * offline, *arguments, environment=environment)


def refused(done, *problems):
    """What `check` ended with is a refusal with these words."""
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    for problem in problems:
        assert problem in done.stderr, done.stderr


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def endless(tmp_path_factory):
    """A tiny model with room for a stream of a minute and more."""
    path = tmp_path_factory.mktemp("endless") / "endless.gguf"
    tiny_writer.write(path, context=1 << 17)
    return path


@pytest.fixture
def start(tmp_path, cache):
    with starting(tmp_path, cache) as starter:
        yield starter


@contextmanager
def starting(folder, cache):
    """Start the app offline on a free port: `start("--set", …, VARIABLE=…)`. Its one model has
    `threads`; None: the app's own choice. Only where it is `recorded`, or online, the ClearML SDK
    is there, which costs more than all else of a short test."""
    started = []

    def starter(
        *arguments,
        offline=True,
        recorded=False,
        port="0",
        host="127.0.0.1",
        threads=1,
        alone=False,
        **environment,
    ):
        own = folder / str(len(started))
        own.mkdir()
        given = ["--cache-dir", str(cache), *arguments]
        if threads is not None and not any(map(OWN_THREADS.match, arguments)):
            # llama-server's threads wait for each other in a loop: with more of them than cores, as
            # when other tests run, nothing moves.
            given += ["--set", f"Model/threads={threads}"]
        if offline:
            given += ["--offline"] if recorded else ["--no-clearml"]
        given += ["--host", host] if host else []
        given += ["--port", port]
        started.append(App(own, given, environment, alone=alone))
        return started[-1]

    try:
        yield starter
    finally:
        for app in started:
            app.clean_up()


# Tests run side by side, and a port is taken some time after it was chosen. So each worker has
# ports of its own, none of which the kernel gives to a connection in the meantime.
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 32
PORTS = range(10000 + WORKER, 32000, 32)
next_port = itertools.count(random.randrange(len(PORTS)))


def free_port():
    while True:
        port = PORTS[next(next_port) % len(PORTS)]
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
