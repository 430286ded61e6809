import os
import signal
import subprocess
import sys
import time

import pytest

from app.machine import activity
from app.machine.activity import Activity, Standing

BUSY = "print(flush=True)\nwhile True: pass"
ASLEEP = "import time; print(flush=True); time.sleep(60)"


@pytest.fixture
def child(request):
    process = subprocess.Popen([sys.executable, "-c", request.param], stdout=subprocess.PIPE)
    process.stdout.readline()
    with process:
        yield process
        process.kill()


def become(pid, standing):
    deadline = time.monotonic() + 30
    while activity.of(pid).standing is not standing:
        assert time.monotonic() < deadline, activity.of(pid)
        time.sleep(0.01)
    return activity.of(pid)


@pytest.mark.parametrize("child", [BUSY], indirect=True)
def test_one_that_works_uses_time_even_if_it_has_to_wait_for_a_core(child):
    os.setpriority(os.PRIO_PROCESS, child.pid, 19)
    before = become(child.pid, Standing.ACTIVE)
    deadline = time.monotonic() + 30
    while activity.of(child.pid).cpu <= before.cpu:
        assert activity.of(child.pid).standing is Standing.ACTIVE and time.monotonic() < deadline


@pytest.mark.parametrize("child", [ASLEEP], indirect=True)
def test_one_that_sleeps_is_stopped_goes_on_and_ends(child):
    become(child.pid, Standing.ASLEEP)
    child.send_signal(signal.SIGSTOP)
    become(child.pid, Standing.STOPPED)
    child.send_signal(signal.SIGCONT)
    become(child.pid, Standing.ASLEEP)
    child.kill()
    assert become(child.pid, Standing.GONE)  # not reaped yet
    child.wait()
    assert activity.of(child.pid) == Activity(Standing.GONE)


def test_a_thread_that_has_ended_meanwhile_is_not_the_end_of_all(monkeypatch):
    listed = os.listdir

    def with_one_that_is_gone(path):
        return [*listed(path), "999999999"]

    monkeypatch.setattr(os, "listdir", with_one_that_is_gone)
    assert activity.of(os.getpid()).standing is Standing.ACTIVE
