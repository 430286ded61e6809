"""`python -m app` many times over, without the half a second of imports that each start costs.

A process of its own imports the app and what the SDK imports, and then forks for each start: the
fork runs `app` as `python -m app` does, with the arguments, variables and output that it is given.
It imports neither the SDK nor the hub's library, which read variables as they are imported.

Two things differ from a process of its own: /proc shows the forge's command line, and the parent is
the forge. Where a test is about one of these, or sets a variable of the interpreter itself, it
starts a process of its own.
"""

import contextlib
import gc
import importlib
import json
import os
import pkgutil
import runpy
import selectors
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
OWN = "PYTHON", "LD_", "LC_", "LANG", "MALLOC", "OPENBLAS"  # what an interpreter reads at its start
UNBUFFERED = "PYTHONUNBUFFERED"
LATE = "clearml", "huggingface_hub"
OF_THE_SDK = (
    *("PIL.Image", "attr", "concurrent.futures.thread", "dateutil.parser", "jsonschema", "jwt"),
    *("multiprocessing.pool", "numpy", "pathlib2", "pyparsing", "requests", "tqdm", "yaml"),
)
LENGTH = struct.Struct("!I")
LARGEST = 1 << 20  # bytes of arguments and variables


def own(variables):
    """Those that an interpreter reads before it runs anything, but the one that `become` heeds."""
    names = [name for name in variables if name.startswith(OWN) and name != UNBUFFERED]
    return {name: variables[name] for name in names}


class Forge:
    """`start` as subprocess.Popen: what it returns is used as one."""

    def __init__(self):
        self._folder = tempfile.TemporaryDirectory(prefix="t-", dir="/tmp")
        path = f"{self._folder.name}/forge"
        self.variables = {**os.environ, UNBUFFERED: "1", "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.end_to_end.forge", path],
            cwd=ROOT,
            env=self.variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout.readline() == b"hot\n"
        self._path = path

    def starts(self, variables):
        """Whether a process with these can come from here."""
        return own({"OPENBLAS_NUM_THREADS": "1", **variables}) == own(self.variables)

    def start(self, arguments, variables):
        """Its output and its errors together are its `stdout`."""
        ours, theirs = os.pipe()
        process = self._start(arguments, variables, theirs, theirs)
        os.close(theirs)
        process.stdout = open(ours, errors="replace")
        return process

    def run(self, arguments, variables, timeout):
        """As subprocess.run, with its output and its errors apart."""
        pipes = os.pipe(), os.pipe()
        process = self._start(arguments, variables, *(theirs for _, theirs in pipes))
        for _, theirs in pipes:
            os.close(theirs)
        with ThreadPoolExecutor(len(pipes)) as pool:
            texts = [pool.submit(all_of, ours) for ours, _ in pipes]
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        return subprocess.CompletedProcess(arguments, process.wait(), *(t.result() for t in texts))

    def _start(self, arguments, variables, output, errors):
        order = json.dumps([[str(each) for each in arguments], variables]).encode()
        assert len(order) <= LARGEST
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self._path)
        socket.send_fds(connection, [LENGTH.pack(len(order))], [output, errors])
        connection.sendall(order)
        (pid,) = LENGTH.unpack(read(connection, LENGTH.size))
        return Forged(pid, connection)

    def close(self):
        """What it has started and still runs is killed."""
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._folder.cleanup()


class Forged:
    stdout = None

    def __init__(self, pid, connection):
        self.pid, self.returncode = pid, None
        self._connection = connection

    def poll(self):
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout=None):
        if self.returncode is None:
            with selectors.DefaultSelector() as selector:
                selector.register(self._connection, selectors.EVENT_READ)
                if not selector.select(timeout):
                    raise subprocess.TimeoutExpired(f"app, process {self.pid}", timeout)
            try:
                (status,) = LENGTH.unpack(read(self._connection, LENGTH.size))
                self.returncode = os.waitstatus_to_exitcode(status)
            except EOFError:  # the forge has broken down
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGKILL)
                self.returncode = -signal.SIGKILL
            self._connection.close()
        return self.returncode

    def send_signal(self, signum):
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(self.pid, signum)

    def kill(self):
        self.send_signal(signal.SIGKILL)


def all_of(file):
    with open(file) as opened:
        return opened.read()


def read(connection, size):
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise EOFError("the other end is closed")
        data += part
    return data


def heat():
    """Import what each start imports, but the LATE ones and what needs these at once."""
    import app

    gc.disable()
    sys.modules.update(dict.fromkeys(LATE))
    names = [module.name for module in pkgutil.walk_packages(app.__path__, "app.")]
    for name in [name for name in names if name != "app.__main__"] + list(OF_THE_SDK):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for name in LATE:
        del sys.modules[name]
    gc.freeze()  # else each fork's collector goes through all that, and copies it
    gc.enable()


def take_orders(path):
    """Fork for each order until stdin ends. Returns in the child, with its arguments."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    woken, wakes = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(wakes, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes)
    callers = {}
    sys.stdout.write("hot\n")
    sys.stdout.flush()
    with selectors.DefaultSelector() as selector:
        for file in (listener, 0, woken):
            selector.register(file, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in selector.select()}
            if 0 in ready:
                end(callers)
            if woken in ready:
                os.read(woken, 1 << 16)
                tell(callers)
            if listener in ready:
                connection, _ = listener.accept()
                arguments, variables, outputs = order_of(connection)
                pid = os.fork()
                if not pid:
                    selector.close()
                    become(outputs, variables)
                    return arguments
                answer(connection, pid, outputs)
                callers[pid] = connection


def end(callers):
    for pid in callers:
        os.kill(pid, signal.SIGKILL)
    tell(callers, wait=True)
    os._exit(0)


def answer(connection, pid, outputs):
    for output in outputs:
        os.close(output)
    connection.sendall(LENGTH.pack(pid))


def tell(callers, wait=False):
    """Whoever has started one that has ended."""
    for pid in list(callers):
        ended, status = os.waitpid(pid, 0 if wait else os.WNOHANG)
        if ended:
            with callers.pop(pid) as connection, contextlib.suppress(OSError):
                connection.sendall(LENGTH.pack(status))


def order_of(connection):
    head, files, *_ = socket.recv_fds(connection, LENGTH.size, 2)
    (length,) = LENGTH.unpack(head)
    return (*json.loads(read(connection, length)), files)


def become(outputs, variables):
    """In the child: what a fresh interpreter has."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, output in enumerate(outputs, 1):
        os.dup2(output, number)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.closerange(3, 1024)
    if UNBUFFERED not in variables:
        sys.stdout = open(1, "w", closefd=False)
    os.environ.clear()
    os.environ.update(variables)
    time.tzset()


if __name__ == "__main__":
    heat()
    sys.argv = ["app", *take_orders(sys.argv[1])]
    runpy.run_module("app", run_name="__main__", alter_sys=True)
