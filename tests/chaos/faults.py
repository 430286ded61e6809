"""The faults: what begins before the `yield`, ends after it. `seconds` is how long each lasts."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psutil

from tests.chaos.stage import NAMES

FAULTS = {}
GROWS = """
import pathlib, sys, time
pathlib.Path("/proc/self/oom_score_adj").write_text("900")
pathlib.Path(sys.argv[1], "cgroup.procs").write_text(str(__import__("os").getpid()))
held = []
while len(held) < 96:
    held.append(bytearray(b"x") * (1 << 20))
    time.sleep(0.005)
time.sleep(60)
"""


@dataclass(frozen=True)
class Fault:
    """`run(stage, dice)` is a context manager; `needs`: a means that a machine may lack."""

    name: str
    run: object
    seconds: tuple
    needs: str = ""
    often: int = 1


def fault(name, seconds=(0.5, 4.0), needs="", often=1):
    def register(function):
        FAULTS[name] = Fault(name, contextmanager(function), seconds, needs, often)
        return function

    return register


def here(stage):
    """Those that this machine can have."""
    return [each for each in FAULTS.values() if each.needs not in stage.lacking]


def _signal(stage, signum):
    pid = stage.child()
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, signum)
    return pid


@fault("SIGKILL", (0.1, 1.0), often=2)
def killed(stage, dice):
    _signal(stage, signal.SIGKILL)
    yield


@fault("SIGSEGV", (0.1, 1.0))
def segfault(stage, dice):
    _signal(stage, signal.SIGSEGV)
    yield


@fault("SIGSTOP")
def stopped(stage, dice):
    """For a while. It takes connections, and never answers."""
    pid = _signal(stage, signal.SIGSTOP)
    yield
    with suppress(ProcessLookupError, TypeError):
        os.kill(pid, signal.SIGCONT)


@fault("SIGSTOP for good", (13.0, 16.0))
def wedged(stage, dice):
    """Until the app has replaced it; one that was not needed meanwhile goes on."""
    yield from stopped(stage, dice)


def _comes_up(how):
    def begin(stage, dice):
        stage.mode.write_text(how)
        yield
        stage.mode.write_text("well")

    return begin


fault("crash on load")(_comes_up("crash"))
fault("error on load")(_comes_up("exit"))
fault("mute on load")(_comes_up("mute"))


def _full(place):
    def begin(stage, dice):
        while True:  # somebody may write meanwhile, and then it is too small
            with suppress(subprocess.CalledProcessError):
                stage.resize(place(stage), max(4096, shutil.disk_usage(place(stage)).used))
                break
        yield
        stage.resize(place(stage), "2g")

    return begin


fault("cache is full", needs="mount")(_full(lambda stage: stage.cache))
fault("temp is full", needs="mount")(_full(lambda stage: stage.runtime))


def _file(stage, dice):
    """A model's file: one of ours, or the hub's in the cache."""
    full = shutil.disk_usage(stage.cache).free < 4 << 20  # it could not be put back
    name = dice.choice(NAMES[:2] if full else NAMES)
    if name != "c":
        return stage.weights[name]
    found = [path for path in stage.cache.rglob("c.gguf") if path.exists()]
    return found[0].resolve() if found else stage.weights["a"]


def _put_back(path, kept):
    fresh = path.with_name("fresh")
    fresh.write_bytes(kept)
    os.replace(fresh, path)


@fault("file deleted")
def deleted(stage, dice):
    path = _file(stage, dice)
    kept = path.read_bytes()
    path.unlink()
    yield
    _put_back(path, kept)


@fault("file away for long", (16.0, 18.5))
def away(stage, dice):
    """Until its model is tried as seldom as it will be."""
    yield from deleted(stage, dice)


@fault("file truncated")
def truncated(stage, dice):
    """Its pages are mapped by a running llama-server: SIGBUS."""
    path = _file(stage, dice)
    kept = path.read_bytes()
    os.truncate(path, len(kept) // 2)
    yield
    _put_back(path, kept)


@fault("file replaced")
def replaced(stage, dice):
    """By one of the same size that is no model."""
    path = _file(stage, dice)
    kept = path.read_bytes()
    _put_back(path, random.Random(0).randbytes(len(kept)))
    yield
    _put_back(path, kept)


@fault("ClearML is down")
def clearml_down(stage, dice):
    with stage.excused("ClearML"), stage.api.away():
        yield


@fault("ClearML is slow")
def clearml_slow(stage, dice):
    stage.api.delay = dice.uniform(1, 8)
    with stage.excused("ClearML"):
        yield
    stage.api.delay = 0.0


@fault("ClearML fails")
def clearml_fails(stage, dice):
    class Every(dict):
        __contains__ = __getitem__ = lambda self, key: 500

    stage.api.failing = Every()
    with stage.excused("ClearML"):
        yield
    stage.api.failing = {}


@fault("ClearML's token is refused")
def clearml_refuses(stage, dice):
    stage.api.locked = True
    with stage.excused("ClearML"):
        yield
    stage.api.locked = False


@fault("nginx restarts", (0.1, 2.0), needs="nginx")
def nginx_restarts(stage, dice):
    how = dice.choice(("terminate", "kill"))
    with stage.excused("nginx"):
        master = stage.gateway.process
        workers = psutil.Process(master.pid).children()
        for process in (master, *workers):
            with suppress(psutil.NoSuchProcess):
                getattr(process, how)()
        master.wait(30)
        yield
        stage.gateway.__enter__()


@fault("the clock jumps", needs="cc")
def clock_jumps(stage, dice):
    stage.jump(dice.choice((-7200, -30, 30, 3600, 86400 * 3)))
    yield
    stage.jump(0)


@fault("out of descriptors", often=2)
def no_descriptors(stage, dice):
    app = stage.process
    _, hard = app.rlimit(psutil.RLIMIT_NOFILE)
    soft, _ = app.rlimit(psutil.RLIMIT_NOFILE)
    with stage.excused("descriptors"):
        app.rlimit(psutil.RLIMIT_NOFILE, (app.num_fds() + dice.randint(0, 3), hard))
        yield
        with suppress(psutil.NoSuchProcess):
            app.rlimit(psutil.RLIMIT_NOFILE, (soft, hard))


@fault("out of memory", (0.1, 1.0), needs="cgroup")
def no_memory(stage, dice):
    """Another process takes what the group may have, until the kernel has killed a llama-server, or
    that process."""
    before = set(stage.app.children)
    for pid in before:
        with suppress(OSError), open(f"/proc/{pid}/oom_score_adj", "w") as file:
            file.write("1000")
    used = int((stage.cgroup / "memory.usage_in_bytes").read_text())
    limit = stage.cgroup / "memory.limit_in_bytes"
    limit.write_text(str(used + (32 << 20)))
    other = subprocess.Popen([sys.executable, "-c", GROWS, str(stage.cgroup)])
    until = time.monotonic() + 3
    while other.poll() is None and before <= set(stage.app.children) and time.monotonic() < until:
        time.sleep(0.01)
    limit.write_text("-1")
    other.kill()
    other.wait()
    yield


@contextmanager
def download(stage, dice):
    """The hub, while the app comes up: well, slow, cut off, or away in mid-download."""
    how = dice.choice(("well", "slow", "cut", "away"))
    hub = stage.hub
    if how != "well":
        hub.pause = 0.1
    if how == "cut":
        hub.cut = 300_000
    if how == "away":
        until = time.monotonic() + 20
        while not hub.sent and time.monotonic() < until:
            time.sleep(0.01)
        with hub.away():
            time.sleep(dice.uniform(0.5, 3))
    elif how == "cut":
        time.sleep(dice.uniform(1, 4))
        hub.cut = None
    hub.pause = 0.0
    yield how
