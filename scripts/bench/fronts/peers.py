"""The proxies that are compared, each as a process that takes connections at a port."""

from __future__ import annotations

import contextlib
import getpass
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from app.engine.capabilities import find
from app.errors import ConfigError
from app.machine import network
from app.models import tiny

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
PATIENCE = 60.0  # seconds for a process to take connections
NGINX = """
user {user}; daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr crit;
events {{ worker_connections 4096; }}
http {{
  access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  client_max_body_size 1g; client_body_buffer_size 32m; keepalive_requests 1000000;
  upstream child {{ server unix:{folder}/x.sock; keepalive 1024; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=2048;
    location / {{
      proxy_pass http://child; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""
HAPROXY = """
global
  maxconn 4096
  nbthread 1
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  option http-keep-alive
listen front
  bind 127.0.0.1:{port}
  http-reuse always
  server child unix@{folder}/x.sock
"""
SWAP = """
models:
  bench:
    cmd: "{python} -m scripts.bench.fronts.upstream '' ${{PORT}}"
    checkEndpoint: /health
    concurrencyLimit: 100000
"""
# Says what the real one says of itself, then serves as the stub does.
STUB_SERVER = """#!/bin/sh
case "$1" in --help|--list-devices) exec {real} "$1" 2>&1 ;; esac
while [ $# -gt 0 ]; do [ "$1" = --host ] && host=$2; shift; done
exec {python} {script} "$host"
"""


class Missing(Exception):
    """The peer is not on this machine; says what is missing."""


@dataclass(frozen=True)
class Peer:
    """`prefix` stands before the paths of the model `bench`; CPU time counts the process and, with
    `family`, its children."""

    port: int
    process: psutil.Process
    prefix: str = ""
    family: bool = False

    def cpu(self) -> float:
        """Seconds of user and system time so far."""
        members = [self.process]
        members += self.process.children(recursive=True) if self.family else []
        return sum(cpu_seconds(member) for member in members)

    def resident(self) -> int:
        return int(self.process.memory_info().rss)

    def wake(self) -> None:
        """Let the model `asleep` come into memory."""
        self.process.send_signal(signal.SIGUSR1)


def cpu_seconds(process: psutil.Process) -> float:
    """To the nanosecond where Linux tells it by thread; else in ticks of 10 ms."""
    try:
        threads = Path(f"/proc/{process.pid}/task").iterdir()
        return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9
    except (OSError, ValueError):
        return float(sum(process.cpu_times()[:2]))


@contextlib.contextmanager
def running(
    command: list[str], port: int, cwd: Path = ROOT, *, quiet: bool = False
) -> Iterator[psutil.Process]:
    """A process, once it takes connections there."""
    errors = subprocess.DEVNULL if quiet else None
    with subprocess.Popen(command, cwd=cwd, stdout=subprocess.DEVNULL, stderr=errors) as process:
        try:
            deadline = time.monotonic() + PATIENCE
            while not network.answers("127.0.0.1", port, 1.0):
                assert process.poll() is None, f"it has ended: {command}"
                assert time.monotonic() < deadline, f"it takes no connection: {command}"
                time.sleep(0.02)
            yield psutil.Process(process.pid)
        finally:
            process.terminate()


def installed(name: str, source: str) -> str:
    """The program's path. Raises Missing."""
    program = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        raise Missing(f"{name} ({source})")
    return program


@contextlib.contextmanager
def upstream(folder: Path) -> Iterator[None]:
    """The stub behind most peers."""
    port = network.free_port()
    command = [sys.executable, "-m", "scripts.bench.fronts.upstream", f"{folder}/x.sock", str(port)]
    with running(command, port):
        yield


@contextlib.contextmanager
def nginx(folder: Path) -> Iterator[Peer]:
    program = installed("nginx", "Debian: nginx-light")
    port = network.free_port()
    conf = folder / "nginx.conf"
    conf.write_text(NGINX.format(folder=folder, port=port, user=getpass.getuser()))
    with running([program, "-c", str(conf), "-p", str(folder)], port) as process:
        yield Peer(port, process, family=True)


@contextlib.contextmanager
def haproxy(folder: Path) -> Iterator[Peer]:
    program = installed("haproxy", "Debian: haproxy")
    port = network.free_port()
    conf = folder / "haproxy.cfg"
    conf.write_text(HAPROXY.format(folder=folder, port=port))
    with running([program, "-db", "-f", str(conf)], port) as process:
        yield Peer(port, process)


@contextlib.contextmanager
def llama_swap(folder: Path) -> Iterator[Peer]:
    program = installed("llama-swap", "go install github.com/mostlygeek/llama-swap@latest")
    port = network.free_port()
    conf = folder / "swap.yaml"
    conf.write_text(SWAP.format(python=sys.executable))
    command = [program, "-config", str(conf), "-listen", f"127.0.0.1:{port}"]
    with running(command, port) as process:
        yield Peer(port, process)


@contextlib.contextmanager
def aiohttp(folder: Path) -> Iterator[Peer]:
    if importlib.util.find_spec("aiohttp") is None:
        raise Missing("aiohttp (pip install aiohttp)")
    port = network.free_port()
    command = [sys.executable, str(HERE / "aiohttp_proxy.py"), f"{folder}/x.sock", str(port)]
    with running(command, port) as process:
        yield Peer(port, process)


@contextlib.contextmanager
def classes(folder: Path, checkout: Path = ROOT) -> Iterator[Peer]:
    port = network.free_port()
    arguments = [str(checkout), f"{folder}/x.sock", str(port)]
    command = [sys.executable, str(HERE / "classes.py"), *arguments]
    with running(command, port, checkout) as process:
        yield Peer(port, process, "/bench")


@contextlib.contextmanager
def direct(folder: Path) -> Iterator[Peer]:
    """The stub itself."""
    port = network.free_port()
    command = [sys.executable, "-m", "scripts.bench.fronts.upstream", "", str(port)]
    with running(command, port) as process:
        yield Peer(port, process)


def real_server() -> Path:
    try:
        return find("", os.environ)
    except ConfigError as error:
        raise Missing(str(error)) from None


@contextlib.contextmanager
def app(folder: Path, checkout: Path = ROOT, models: int = 1) -> Iterator[Peer]:
    """The whole app with stubs as its llama-servers: the first model is `bench`."""
    stub = folder / "llama-server"
    script = f"-S -E {HERE}/idle_child.py" if models > 1 else f"{HERE}/child.py"
    stub.write_text(STUB_SERVER.format(real=real_server(), python=sys.executable, script=script))
    stub.chmod(0o755)
    model = str(tiny.ensure(folder))
    names = ["bench", *(f"m{number}" for number in range(1, models))]
    slots = {"parallel": 256, "extra_args": "--no-kv-unified"}  # for as many streams at once
    listed = [{"model": model, "endpoint_name": name, **slots} for name in names]
    sets = ["--set", f"General/models={json.dumps(listed)}"]
    sets += ["--set", f"General/llama_server={stub}"]
    with serving(folder, checkout, sets) as peer:
        yield peer


@contextlib.contextmanager
def serving(folder: Path, checkout: Path, arguments: list[str]) -> Iterator[Peer]:
    """`python -m app`, once it is ready."""
    port = network.free_port()
    command = [sys.executable, "-m", "app", "--offline", "--port", str(port)]
    environment = {**os.environ, "CLEARML_CACHE_DIR": str(folder), "CLEARML_OFFLINE_MODE": "1"}
    command += ["--cache-dir", str(folder), *arguments]
    with subprocess.Popen(
        command,
        cwd=checkout,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        said = []
        try:
            for line in process.stdout or ():
                said.append(line)
                if line == "ready\n":
                    break
            else:
                raise RuntimeError("".join(said[-20:]))
            reader = threading.Thread(target=lambda: [None for _ in process.stdout or ()])
            reader.daemon = True
            reader.start()
            yield Peer(port, psutil.Process(process.pid), "/bench")
        finally:
            process.terminate()
            process.wait()


Make = Callable[[Path], contextlib.AbstractContextManager[Peer]]
OTHERS: dict[str, Make] = {
    "nginx": nginx,
    "HAProxy": haproxy,
    "llama-swap": llama_swap,
    "aiohttp": aiohttp,
}
