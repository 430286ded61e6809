import threading

from app.instance import measured
from app.instance.measured import Meter, on_host
from tests.memory.test_tiers import Llama


def test_the_most_that_a_model_held_is_measured_off_the_loop(run):
    async def scenario():
        llama, holds, learned, threads = Llama(), [5, 9, 7], [], []

        def measure(pid):
            threads.append(threading.get_ident())
            llama.log.append(f"measure {pid}")
            return {"host": holds.pop(0)}

        meter = Meter(llama, measure, learned.append)
        assert await meter.measure() == {"host": 5}
        assert await meter.measure() == {"host": 9}
        assert await meter.measure() == {"host": 9}  # it may grow so again
        assert llama.log == ["measure 7"] * 3
        assert learned == [{"host": 5}, {"host": 9}, {"host": 7}]
        assert threading.get_ident() not in threads

    run(scenario)


def test_one_that_has_ended_is_not_measured(run):
    async def scenario():
        llama = Llama()
        llama.running = False
        meter = Meter(llama, lambda pid: 1 / 0, lambda held: None)
        assert await meter.measure() == {}

    run(scenario)


def test_files_that_are_mapped_count_once(monkeypatch):
    for private, holds in ((3, 13), (12, 12)):
        monkeypatch.setattr(measured.host, "private_memory", lambda pid, private=private: private)
        assert on_host(10)(7) == {"host": holds}
