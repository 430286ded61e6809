"""One instance and its surroundings, each where a fault can reach it: file systems of its own, a
control group, a wall clock that can jump, a llama-server that can be told how to come up, nginx in
front, a hub and a ClearML server."""

import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil

from app.engine.capabilities import find
from tests.chaos import models
from tests.clearml_api import ApiServer
from tests.end_to_end.conftest import App, free_port
from tests.end_to_end.test_gateway import nginx
from tests.hub import Hub

NAMES = ("a", "b", "c")  # c comes from the hub
KEY = "key-of-the-chaos"
REPOSITORY, SIZE = "org/repo", "2g"  # of each file system; llama-server's caches want 1 GiB free
CGROUP = Path("/sys/fs/cgroup/memory")
# GiB, for one or two models, and where the others are.
ROOMS = tuple(
    (room, how) for room in ("0.11", "0.22") for how in ("disk_swapping", "cpu_offloading")
)
COMES = 120.0  # seconds
# Each llama-server looks how it is to come up; one that is mute takes connections and says nothing.
SERVER = """#!/bin/sh
case " $* " in
*" --model "*)
    case $(cat {mode}) in
    crash) kill -SEGV $$ ;;
    exit) echo "error: told to" >&2; exit 1 ;;
    mute) {python} {mute} {mode} "$@" ;;
    esac ;;
esac
exec {program} "$@"
"""
MUTE = """
import pathlib, socket, sys, time
mode, given = pathlib.Path(sys.argv[1]), sys.argv[2:]
place = given[given.index("--host") + 1]
listener = socket.socket(socket.AF_UNIX)
listener.bind(place)
listener.listen()
while mode.read_text() == "mute":
    time.sleep(0.02)
listener.close()
pathlib.Path(place).unlink()
"""


class Stage:
    """`lacking` are the means of faults that this machine does not have."""

    def __init__(self, dice):
        self.dice, self.stack = dice, ExitStack()
        self.lacking, self.excuses = set(), []
        self.folder = Path(tempfile.mkdtemp(prefix="chaos-", dir="/tmp"))
        self.stack.callback(shutil.rmtree, self.folder, ignore_errors=True)

    def __enter__(self):
        try:
            self._build()
        except BaseException:
            self.stack.close()
            raise
        return self

    def __exit__(self, *_):
        self.stack.close()

    def _build(self):
        models.write(self.folder, NAMES)
        self.weights = {name: self.folder / f"{name}.gguf" for name in NAMES}
        self.cache, self.temp = self._file_system("cache"), self.folder / "temp"
        self.runtime = self._file_system("run")
        self.temp.mkdir()
        hosted = {"c.gguf": self.weights["c"].read_bytes()}
        self.hub = self.stack.enter_context(Hub({REPOSITORY: hosted}))
        self.api = self.stack.enter_context(ApiServer())
        self._server()
        self.app = App(self.folder, self._arguments(), self._environment(), alone=True)
        self.stack.callback(self.app.clean_up)
        self.cgroup = self._control_group()
        if not (shutil.which("nginx") or Path("/usr/sbin/nginx").exists()):
            self.lacking.add("nginx")
        self.gateway, self.gateway_port = None, free_port()

    def _file_system(self, name):
        place = self.folder / name
        place.mkdir()
        line = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "chaos", str(place)]
        if subprocess.run(line, capture_output=True).returncode:
            self.lacking.add("mount")
        else:
            self.stack.callback(subprocess.run, ["umount", "-l", str(place)], check=True)
        return place

    def resize(self, place, size):
        """What is there stays; nothing more fits if `size` is that of what is there."""
        line = ["mount", "-o", f"remount,size={size}", str(place)]
        subprocess.run(line, check=True, capture_output=True)

    def _server(self):
        self.mode = self.folder / "mode"
        self.mode.write_text("well")
        mute, server = self.folder / "mute.py", self.folder / "llama-server"
        mute.write_text(MUTE)
        told = {"mode": self.mode, "python": sys.executable, "mute": mute}
        server.write_text(SERVER.format(program=find("", os.environ), **told))
        server.chmod(0o755)
        self.server = server

    def _clock(self):
        """The variables that have it jump."""
        self.clock = self.folder / "clock"
        self.clock.write_bytes(struct.pack("q", 0))
        library, source = self.folder / "clock.so", Path(__file__).parent / "clock.c"
        line = ["cc", "-shared", "-fPIC", "-O2", "-o", library, source, "-ldl"]
        if shutil.which("cc") is None or subprocess.run(line).returncode:
            self.lacking.add("cc")
            return {}
        return {"LD_PRELOAD": str(library), "CHAOS_CLOCK": str(self.clock)}

    def jump(self, seconds):
        with self.clock.open("r+b") as file:
            file.write(struct.pack("q", int(seconds)))

    def _arguments(self):
        listed = [
            {"model": str(self.weights[name]), "endpoint_name": name, "threads": 1}
            for name in NAMES
        ]
        listed[-1]["model"] = f"{REPOSITORY}/c.gguf"
        room, elsewhere = self.dice.choice(ROOMS)
        fields = {
            "General/models": json.dumps(listed),
            "General/max_cuda_memory": room,
            f"General/{elsewhere}": "true",
            "General/wait_timeout": "20",
            "General/drain_timeout": "3",
        }
        sets = [text for key, value in fields.items() for text in ("--set", f"{key}={value}")]
        given = ["--cache-dir", str(self.cache), "--host", "127.0.0.1", "--port", "0"]
        return [*given, *sets]

    def _environment(self):
        self.agent = self.dice.random() < 0.4
        task = {"CLEARML_TASK_ID": self.api.state.new_task()["id"]} if self.agent else {}
        return {
            **self.api.environment,
            **self._clock(),
            **task,
            "TMPDIR": str(self.temp),
            "XDG_RUNTIME_DIR": str(self.runtime),
            "HF_ENDPOINT": self.hub.url,
            "LLAMA_SERVER": str(self.server),
            "LLAMACPP_API_KEY": KEY,
        }

    def _control_group(self):
        """Of the app and all that it starts from now on; None where that is not allowed."""
        group = CGROUP / f"chaos-{self.app.process.pid}"
        try:
            group.mkdir()
            (group / "cgroup.procs").write_text(str(self.app.process.pid))
        except OSError:
            self.lacking.add("cgroup")
            return None
        self.stack.callback(self._without_group, group)
        return group

    def _without_group(self, group):
        self.app.clean_up()
        for _ in range(100):
            try:
                return group.rmdir()
            except OSError:
                time.sleep(0.1)

    def serve(self):
        """Wait until it serves, and start nginx before it."""
        self.app.line("^ready$", COMES)
        if "nginx" not in self.lacking:
            self.gateway = nginx(
                self.folder, self.gateway_port, int(self.app.url.rpartition(":")[2])
            )
            self.gateway.__enter__()
            self.stack.callback(lambda: self.gateway.__exit__())

    @property
    def through_nginx(self):
        return f"http://127.0.0.1:{self.gateway_port}"

    @property
    def process(self):
        return psutil.Process(self.app.process.pid)

    def child(self):
        """The pid of one of its llama-servers; None while there is none."""
        children = sorted(self.app.children)
        return self.dice.choice(children) if children else None

    def task(self):
        return next(iter(self.api.state.tasks.values()), None)

    @contextmanager
    def excused(self, what):
        """Meanwhile, and a moment later, connections may be lost for this reason."""
        excuse = [what, time.monotonic(), float("inf")]
        self.excuses.append(excuse)
        try:
            yield
        finally:
            excuse[2] = time.monotonic() + 2.0

    def lost(self, since, *reasons):
        return any(what in reasons and end >= since for what, _, end in self.excuses)

    def left(self):
        """What it has left behind."""
        for process in psutil.process_iter(["cmdline"]):
            if any(str(self.folder) in word for word in process.info["cmdline"] or ()):
                if "nginx" not in (process.info["cmdline"] or [""])[0]:
                    yield f"a process is left: {process.info['cmdline'][:4]}"
        for path in (*self.runtime.iterdir(), *self.temp.iterdir()):
            if not path.name.startswith("clearml_"):  # a lock of the SDK's own
                yield f"a file is left: {path}"
