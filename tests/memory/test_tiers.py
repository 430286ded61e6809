import pytest

from app.memory.ledger import Tier
from app.memory.tiers import NoRoomError, ParkingError, Tiered


class Llama:
    """A llama-server, as Tiered sees it."""

    def __init__(self):
        self.log, self.process, self.client = [], self, self
        self.name, self.pid, self.running = "m", 7, True

    async def start(self):
        self.log.append("start")

    async def stop(self):
        self.log.append("stop")

    def close(self):
        self.log.append("close")

    def kill(self):
        self.log.append("kill")

    async def exited(self):
        return -9


class Parking:
    def __init__(self, *errors):
        self.errors, self.log = [*errors], []

    async def _do(self, what):
        self.log.append(what)
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error

    async def park(self, pid, size):
        await self._do(("park", pid, size))

    async def restore(self, pid):
        await self._do(("restore", pid))


def tiered(llama, parking):
    return Tiered(llama, None, parking, lambda: {"host": 1}, {"host": 2, "CUDA0": 5})


def test_parked_and_restored(run):
    async def scenario():
        llama, parking = Llama(), Parking()
        found = tiered(llama, parking)
        assert await found.leave() is Tier.RAM and found.measured() == {}
        assert found.parks() == 5
        await found.start()
        assert parking.log == [("park", 7, {"CUDA0": 5}), ("restore", 7)]
        assert llama.log == ["close"] and found.measured() == {"host": 1}

    run(scenario)


def test_what_it_holds_decides_where_it_is_more_than_was_predicted(run):
    async def scenario():
        parking = Parking()
        predicted = {"CUDA0": 5, "CUDA1": 5}
        found = Tiered(Llama(), None, parking, lambda: {"CUDA0": 8, "CUDA1": 4}, predicted)
        assert found.parks() == 13
        await found.leave()
        assert parking.log == [("park", 7, {"CUDA0": 8, "CUDA1": 5})]
        assert Tiered(Llama(), None, None, dict, predicted).parks() == 0

    run(scenario)


@pytest.mark.parametrize(
    "took, learned",
    [
        ({"CUDA0": 9 << 30, "CUDA1": 1 << 30}, [{"CUDA0": 9 << 30}]),
        ({"CUDA0": 90 << 30}, []),  # that was somebody else, too
        ({"CUDA0": -5}, []),
        ({}, []),
    ],
)
def test_what_was_seen_to_go_is_learned_if_it_is_likely(took, learned):
    seen = []
    predicted = {"host": 1, "CUDA0": 8 << 30}
    Tiered(Llama(), None, None, dict, predicted, seen.append).took(took)
    assert seen == learned


def test_a_parked_one_is_only_ever_killed(run):
    async def scenario():
        llama = Llama()
        found = tiered(llama, Parking())
        await found.leave()
        await found.stop()
        assert llama.log == ["close", "close", "kill"]

    run(scenario)


def test_without_room_it_goes_to_disk(run):
    async def scenario():
        llama = Llama()
        assert await tiered(llama, Parking(NoRoomError("full"))).leave() is Tier.DISK
        assert llama.log == ["close", "stop"]

    run(scenario)


def test_a_failed_park_and_a_failed_restore_end_the_process_and_it_starts_anew(run):
    async def scenario():
        llama = Llama()
        assert await tiered(llama, Parking(ParkingError("x"))).leave() is Tier.DISK
        assert llama.log == ["close", "close", "kill"]
        llama = Llama()
        found = tiered(llama, Parking(None, ParkingError("stuck")))
        await found.leave()
        await found.start()
        assert llama.log == ["close", "close", "kill", "start"]

    run(scenario)
