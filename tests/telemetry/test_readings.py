import asyncio
import os
import threading

import pytest

from app.gateway.pages.status import status
from app.machine import clock
from app.machine.gpu import Device
from app.telemetry import readings
from app.telemetry.overview import Details, Overview
from app.telemetry.readings import MemoryUse, Reading, Readings
from tests.fakes import until
from tests.telemetry.examples import view


class Machine:
    """What is read: how often, in which thread and of whom; `busy` makes it take its time."""

    def __init__(self):
        self.pids, self.threads = [], []
        self.busy, self.begun = threading.Event(), threading.Event()
        self.busy.set()

    def read(self, pids):
        self.pids.append(list(pids))
        self.threads.append(threading.get_ident())
        self.begun.set()
        assert self.busy.wait(10)
        device = Device("0", "CUDA0", "H200", len(self.pids), 100)
        return Reading([device], (1, 2), {pid: MemoryUse({"CUDA0": pid}, 5) for pid in pids})


class Process:
    def __init__(self, pid, running=True):
        self.pid, self.running = pid, running


@pytest.fixture
def now(monkeypatch):
    """A clock that a test turns."""
    time = [100.0]
    monkeypatch.setattr(clock, "now", lambda: time[0])
    return time


def test_a_status_of_many_models_is_one_reading_and_none_of_it_on_the_loop(run, now):
    async def scenario():
        machine = Machine()
        found = Readings(machine.read)
        names = [f"m{n}" for n in range(8)]
        views = [view(name) for name in names]
        details = {name: Details() for name in names}
        for pid, each in enumerate(details.values()):
            found.follow(Process(pid))
            each.memory = lambda pid=pid: found.latest().processes[pid]
        overview = Overview(
            "1",
            details,
            None,
            60,
            devices=lambda: found.latest().devices,
            view=lambda: views,
            host=lambda: found.latest().host,
        )
        now[0] += 10
        await found.renew()
        told = status(overview, 0.0)
        assert [model["memory"] for model in told["models"]] == [
            {"gpu": {"0": pid}, "host": 5} for pid in range(8)
        ]
        assert told["devices"][0]["used"] == 2  # the first is the one of the beginning
        assert machine.pids == [[], list(range(8))]
        assert machine.threads[1] != threading.get_ident()

    run(scenario)


def test_what_is_fresh_is_not_read_again(run, now):
    async def scenario():
        machine = Machine()
        found = Readings(machine.read)
        await found.renew()
        now[0] += readings.FRESH
        await found.renew()
        assert len(machine.pids) == 1
        now[0] += 0.01
        await asyncio.gather(*(found.renew() for _ in range(50)))
        assert len(machine.pids) == 2  # all wait for the same one

    run(scenario)


def test_a_reading_that_began_before_is_not_new_enough(run, now):
    async def scenario():
        machine, process = Machine(), Process(7, running=False)
        found = Readings(machine.read)
        found.follow(process)
        now[0] += 10
        machine.busy.clear()
        machine.begun.clear()
        early = asyncio.ensure_future(found.renew(0))
        await asyncio.to_thread(machine.begun.wait, 10)
        process.running = True
        now[0] += 0.5
        late = asyncio.ensure_future(found.renew(0))
        await asyncio.sleep(0)
        machine.busy.set()
        await early
        await late
        assert machine.pids == [[], [], [7]]

    run(scenario)


def test_whoever_does_not_wait_sees_the_last_reading_and_has_the_next_one_begun(run, now):
    async def scenario():
        machine = Machine()
        found = Readings(machine.read)
        now[0] += 10
        assert found.latest().devices[0].used == 1
        await found.renew()
        assert found.latest().devices[0].used == 2 and len(machine.pids) == 2

    run(scenario)


def test_a_driver_that_hangs_costs_one_thread_and_a_moment(run, monkeypatch):
    monkeypatch.setattr(readings, "PATIENCE", 0.05)
    monkeypatch.setattr(readings, "FRESH", 0.0)

    async def scenario():
        machine = Machine()
        found = Readings(machine.read)
        machine.busy.clear()
        for _ in range(3):
            await found.renew(0)
            assert found.latest().devices[0].used == 1
        assert len(machine.pids) == 2
        machine.busy.set()
        await until(lambda: found.latest().devices[0].used > 1)

    run(scenario)


def test_a_reading_that_fails_leaves_the_last_one(run, now, caplog):
    async def scenario():
        machine = Machine()
        found = Readings(machine.read)
        found._read = lambda pids: 1 / 0
        now[0] += 10
        await found.renew()
        assert found.latest().devices[0].used == 1 and "could not be read" in caplog.text
        found._read = machine.read
        now[0] += 10
        await found.renew()
        assert found.latest().devices[0].used == 2

    run(scenario)


def test_this_process_is_read():
    found = readings.read([os.getpid(), 1 << 22])
    assert found.processes[os.getpid()].host > 1 << 20
    assert found.processes[1 << 22] == MemoryUse() and 0 < found.host[0] < found.host[1]
