import threading

from app.instance import measured
from app.instance.measured import Measured, Meter, on_host
from app.memory.ledger import Tier
from app.memory.tiers import Parts
from tests.memory.test_tiers import Llama


def test_a_model_is_measured_off_the_loop_when_it_has_come_and_before_it_leaves(run):
    async def scenario():
        llama, holds, learned, threads = Llama(), [5, 9, 7], [], []

        def measure(pid):
            threads.append(threading.get_ident())
            llama.log.append(f"measure {pid}")
            return {"host": holds.pop(0)}

        meter = Meter(llama, measure, learned.append)
        model = Measured(Parts(llama), lambda: meter.most, {})
        model.meter = meter
        await model.start()
        assert llama.log == ["start", "measure 7"] and model.usage() == {"host": 5}
        assert await model.leave() is Tier.DISK
        assert llama.log[2:] == ["measure 7", "stop"]
        await model.start()
        assert model.usage() == {"host": 9}  # it may grow so again
        assert learned == [{"host": 5}, {"host": 9}, {"host": 7}]
        assert threading.get_ident() not in threads

    run(scenario)


def test_one_that_has_ended_is_not_measured(run):
    async def scenario():
        llama = Llama()
        llama.running = False
        meter = Meter(llama, lambda pid: 1 / 0, lambda held: None)
        await meter.measure()
        assert meter.most == {}

    run(scenario)


def test_files_that_are_mapped_count_once(monkeypatch):
    for private, holds in ((3, 13), (12, 12)):
        monkeypatch.setattr(measured.host, "private_memory", lambda pid, private=private: private)
        assert on_host(10)(7) == {"host": holds}
