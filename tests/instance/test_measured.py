import threading

import pytest

from app.instance import measured
from app.instance.measured import MemoryMeter, OnHost
from app.planning.learned import Learned, Record
from tests.memory.test_tiers import Llama


@pytest.fixture
def record(tmp_path):
    return Record(Learned(tmp_path), "m")


def test_the_most_that_a_model_held_is_measured_off_the_loop(run, record):
    async def scenario():
        llama, holds, threads = Llama(), [5, 9, 7], []

        def measure(pid):
            threads.append(threading.get_ident())
            llama.log.append(f"measure {pid}")
            return {"host": holds.pop(0)}

        meter = MemoryMeter(llama, measure, record)
        assert await meter.measure() == {"host": 5}
        assert await meter.measure() == {"host": 9}
        assert await meter.measure() == {"host": 9}  # it may grow so again
        assert llama.log == ["measure 7"] * 3
        assert record.seen() == {"host": 9}
        assert threading.get_ident() not in threads

    run(scenario)


def test_one_that_has_ended_is_not_measured(run, record):
    async def scenario():
        llama = Llama()
        llama.running = False
        meter = MemoryMeter(llama, lambda pid: 1 / 0, record)
        assert await meter.measure() == {}

    run(scenario)


def test_where_nobody_can_measure_it_what_earlier_runs_have_seen_counts(run, record):
    async def scenario():
        record.put({"CUDA0": 3})
        assert await MemoryMeter(Llama(), lambda pid: {}, record).measure() == {"CUDA0": 3}

    run(scenario)


def test_files_that_are_mapped_count_once(monkeypatch):
    for private, holds in ((3, 13), (12, 12)):
        monkeypatch.setattr(measured.host, "private_memory", lambda pid, private=private: private)
        on_host = OnHost(10)
        assert on_host(7) == {"host": holds} and on_host.private == private
