import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time

import psutil
import pytest

from app.machine import children
from app.machine.children import exit_status, run

HOOKED = """
    import os, time
    os.register_at_fork(after_in_child=lambda: time.sleep(600))  # as a held import lock does
    import asyncio, sys, uvloop
    from app.engine.process import Process
    from app.engine.program import Program

    async def answers():
        return True

    async def main():
        process = Process("x", Program(["/bin/sleep", "60"], {}), answers, grace=0.5)
        await process.start()
        await process.stop()

    loop = uvloop.new_event_loop()
    loop.run_until_complete(main())
    print("done")
"""


def test_no_hook_of_pythons_runs_in_a_child():
    """A hook that hangs after a fork, under uvloop. Result: the process starts all the same."""
    script = textwrap.dedent(HOOKED)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=30)
    assert done.stdout == b"done\n", done.stderr


@pytest.mark.parametrize("command, expected", [("exit 3", 3), ("kill -9 $$", -signal.SIGKILL)])
def test_the_exit_status(run, command, expected):
    async def scenario():
        child = subprocess.Popen(["/bin/sh", "-c", command])
        assert await asyncio.wait_for(exit_status(child), 10) == expected

    run(scenario)


def test_without_pidfd_a_thread_waits(run, monkeypatch):
    def refused(_):
        raise OSError("no such system call")

    monkeypatch.setattr("os.pidfd_open", refused)

    async def scenario():
        child = subprocess.Popen(["/bin/sh", "-c", "exit 4"])
        assert await asyncio.wait_for(exit_status(child), 10) == 4

    run(scenario)


SHORT = """
    import sys, threading
    from app.machine.children import run
    threading.Thread(target=run, args=(["/bin/sleep", "600"], {}, 600.0)).start()
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_short_program_does_not_outlive_us(end):
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(SHORT)]) as parent:
        deadline = time.monotonic() + 60
        while not (below := asleep(parent.pid)) and time.monotonic() < deadline:
            time.sleep(0.01)
        parent.send_signal(end)
    gone, alive = psutil.wait_procs(below, timeout=10)
    assert gone and not alive


def asleep(pid):
    children = psutil.Process(pid).children(recursive=True)
    return [child for child in children if child.name() == "sleep"]


@pytest.mark.parametrize("name, problem", [("none", FileNotFoundError), ("file", PermissionError)])
def test_a_program_that_cannot_be_run(tmp_path, name, problem):
    (tmp_path / "file").touch()
    with pytest.raises(problem):
        run([str(tmp_path / name)], {}, 10.0)


def test_a_short_program():
    done = run_short("echo out; echo err >&2; exit 5")
    assert (done.status, done.output, done.errors) == (5, "out\n", "err\n")
    with pytest.raises(subprocess.TimeoutExpired):
        run_short("exec sleep 60", timeout=0.1)
    with pytest.raises(OSError):
        run(["/no/such/program"], {}, 1)


def run_short(script, timeout=10):
    return run(["/bin/sh", "-c", script], {"PATH": "/bin:/usr/bin"}, timeout)


def test_what_a_program_writes_is_bounded(monkeypatch):
    """It never ends writing. Result: it is killed at once, and nothing is kept of it."""
    monkeypatch.setattr(children, "MOST", 1 << 20)
    with pytest.raises(OSError, match="writes more than 1 MiB"):
        run(["sh", "-c", "echo begins; exec yes"], {"PATH": os.environ["PATH"]}, 60)
    assert not psutil.Process().children()


def test_output_and_errors_are_told_apart():
    done = run(["sh", "-c", "echo out; echo err >&2; exit 3"], {"PATH": os.environ["PATH"]}, 60)
    assert (done.status, done.output, done.errors) == (3, "out\n", "err\n")


def test_one_that_does_not_end_is_killed():
    with pytest.raises(subprocess.TimeoutExpired):
        run(["sleep", "60"], {"PATH": os.environ["PATH"]}, 0.2)
    assert not psutil.Process().children()
