import asyncio

import pytest

from app.machine import clock
from app.memory import tiers
from app.memory.ledger import Tier
from app.memory.mover import MoveError, NoRoomError
from app.memory.tiers import TIERS, Parts, Tiered, TierRow


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

    def expect(self):
        self.log.append("expect")

    def expect_no_more(self):
        self.log.append("expect no more")


class Checkpoints:
    """Those of CUDA, as a mover sees them; each call raises the next of `errors`."""

    most_gpus = 2

    def __init__(self, *errors):
        self.errors, self.log = [*errors], []

    async def _do(self, what):
        self.log.append(what)
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error

    async def park(self, pid, usage):
        await self._do(("park", pid, usage))

    async def restore(self, pid, usage):
        await self._do(("restore", pid, usage))


def measured(**usage):
    async def measure():
        return usage

    return measure


def tiered(llama, checkpoints):
    parts = Parts(llama, None, checkpoints)
    return Tiered(parts, measured(host=1), {"host": 2, "CUDA0": 5})


def test_parked_and_restored(run):
    async def scenario():
        llama, checkpoints = Llama(), Checkpoints()
        model = tiered(llama, checkpoints)
        await model.measure()
        assert model.usage() == {"host": 1}
        assert await model.leave() is Tier.RAM and model.usage() == {}
        assert model.parked_size() == 5
        await model.start()
        assert checkpoints.log == [("park", 7, {"CUDA0": 5}), ("restore", 7, {"CUDA0": 5})]
        assert llama.log == ["close"] and model.usage() == {"host": 1}

    run(scenario)


class Slow(Llama):
    """Each step takes so many seconds of the clock `now`."""

    def __init__(self, now):
        super().__init__()
        self.now, self.done = now, []

    def _do(self, what, seconds):
        self.done.append(what)
        self.now[0] += seconds

    async def start(self):
        self._do("start", 4)

    async def stop(self):
        self._do("stop", 2)

    async def save(self):
        self._do("save", 1)

    def which(self):
        return "these"

    def loaded(self, before):
        self.done.append(f"loaded {before}")

    def drop(self):
        self.done.append("drop")

    async def restore(self):
        self._do("restore", 8)

    async def park(self, *_):
        self._do("park", 16)
        raise NoRoomError("full")


def test_each_stage_of_its_trips_is_timed(run, monkeypatch):
    """Also of one that failed."""
    now = [0.0]
    monkeypatch.setattr(clock, "now", lambda: now[0])

    async def scenario():
        llama = Slow(now)
        llama.most_gpus = 1
        model = Tiered(Parts(llama, llama, llama), measured(), {"CUDA0": 5})
        await model.leave()
        await model.start()
        taken = {stage: seconds for stage, seconds in model.stages.seconds.items() if seconds}
        assert taken == {"park": 16, "save": 1, "end": 2, "start": 4, "restore": 8}
        await model.leave()
        assert model.stages.seconds["save"] == 2

    run(scenario)


def test_what_it_holds_decides_where_it_is_more_than_was_predicted(run):
    async def scenario():
        checkpoints = Checkpoints()
        predicted = {"CUDA0": 5, "CUDA1": 5}
        parts = Parts(Llama(), None, checkpoints)
        model = Tiered(parts, measured(CUDA0=8, CUDA1=4), predicted)
        assert model.parked_size() == 10
        await model.measure()
        assert model.parked_size() == 13
        await model.leave()
        assert checkpoints.log == [("park", 7, {"CUDA0": 8, "CUDA1": 5})]
        assert Tiered(Parts(Llama()), measured(), predicted).parked_size() == 0

    run(scenario)


def test_a_driver_that_does_not_answer_keeps_no_model_waiting(run, monkeypatch):
    monkeypatch.setattr(tiers, "PATIENCE", 0.001)

    async def scenario():
        model = Tiered(Parts(Llama()), lambda: asyncio.Event().wait(), {"CUDA0": 5})
        await model.measure()
        assert model.usage() == {}

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
    Tiered(Parts(Llama()), measured(), predicted, seen.append).took(took)
    assert seen == learned


def test_a_parked_one_is_only_ever_killed(run):
    async def scenario():
        llama = Llama()
        model = tiered(llama, Checkpoints())
        await model.leave()
        await model.stop()
        assert llama.log == ["close", "close", "kill"]
        assert model.parked_size() == 0

    run(scenario)


def staying(llama, private=3, slots=None):
    """On a machine without a GPU, where its process has so much memory for itself."""
    parts = Parts(llama, slots, private=lambda: private)
    return Tiered(parts, measured(host=9), {"host": 8})


def test_without_a_gpu_it_stays_and_comes_back_at_once(run):
    """Its weights may have left the page cache: only that is seen to."""

    async def scenario():
        llama = Llama()
        model = staying(llama)
        await model.measure()
        assert model.parked_size() == 3 and model.usage() == {"host": 9}
        assert await model.leave() is Tier.RAM
        assert model.parked_size() == 3 and model.usage() == {}
        model.expect()
        assert await model.start() is Tier.RAM
        assert llama.log == ["expect no more", "expect", "start"] and model.usage() == {"host": 9}
        await model.leave()
        await model.stop()
        assert llama.log[3:] == ["expect no more", "expect no more", "close", "kill"]

    run(scenario)


def test_one_that_is_frozen_needs_no_file_to_come_back(run):
    async def scenario():
        llama = Llama()
        model = tiered(llama, Checkpoints())
        model.expect()
        await model.leave()
        model.expect()
        assert llama.log == ["expect", "close"]

    run(scenario)


def test_where_nobody_knows_what_it_would_keep_it_goes_to_disk(run):
    async def scenario():
        llama = Llama()
        model = staying(llama, private=0)
        assert model.parked_size() == 0 and await model.leave() is Tier.DISK
        assert llama.log == ["stop"]

    run(scenario)


@pytest.mark.parametrize("made", [staying, lambda llama: tiered(llama, Checkpoints())])
def test_one_that_is_to_go_to_disk_goes_nowhere_else(run, made):
    async def scenario():
        llama = Llama()
        assert await made(llama).leave_for_disk() is Tier.DISK and llama.log == ["stop"]

    run(scenario)


def test_one_that_has_died_is_asked_nothing_on_its_way_to_disk(run):
    async def scenario():
        llama = Slow([0.0])
        llama.process.running = False
        assert await staying(llama, slots=llama).leave_for_disk() is Tier.DISK
        assert "save" not in llama.done

    run(scenario)


def test_one_that_stayed_goes_on_to_disk_with_its_conversations(run):
    """Its process answers; that of one that is frozen does not."""

    async def scenario():
        llama = Slow([0.0])
        model = staying(llama, slots=llama)
        await model.leave()
        await model.leave_for_disk()
        assert llama.done == ["save", "stop"] and model.parked_size() == 0
        await model.start()
        assert llama.done[2:] == ["start", "loaded these", "restore"]
        model.forget()
        assert llama.done[5:] == ["drop"]
        llama = Llama()
        model = tiered(llama, Checkpoints())
        await model.leave()
        await model.leave_for_disk()
        assert llama.log == ["close", "close", "kill"]

    run(scenario)


def test_without_room_it_goes_to_disk(run):
    async def scenario():
        llama = Llama()
        assert await tiered(llama, Checkpoints(NoRoomError("full"))).leave() is Tier.DISK
        assert llama.log == ["close", "stop"]

    run(scenario)


def test_a_failed_park_and_a_failed_restore_end_the_process_and_it_starts_anew(run):
    async def scenario():
        llama = Llama()
        assert await tiered(llama, Checkpoints(MoveError("x"))).leave() is Tier.DISK
        assert llama.log == ["close", "close", "kill"]
        llama = Llama()
        model = tiered(llama, Checkpoints(None, MoveError("stuck")))
        await model.leave()
        assert await model.start() is Tier.DISK
        assert llama.log == ["close", "close", "kill", "start"]

    run(scenario)


def test_one_whose_return_was_cancelled_is_only_ever_killed(run):
    """At shutdown. Nobody knows how far it has come; one that is frozen would sit out its grace."""

    async def scenario():
        llama, checkpoints = Llama(), Checkpoints(None, asyncio.CancelledError())
        model = tiered(llama, checkpoints)
        await model.leave()
        with pytest.raises(asyncio.CancelledError):
            await model.start()
        await model.stop()
        assert llama.log == ["close", "close", "kill"]

    run(scenario)


def test_one_that_is_cancelled_as_it_leaves_is_only_ever_killed(run):
    async def scenario():
        llama = Llama()
        model = tiered(llama, Checkpoints(asyncio.CancelledError()))
        with pytest.raises(asyncio.CancelledError):
            await model.leave()
        await model.stop()
        assert llama.log == ["close", "close", "kill"]

    run(scenario)


def test_one_that_ended_while_it_was_parked_is_started_anew(run):
    async def scenario():
        llama, checkpoints = Llama(), Checkpoints()
        model = tiered(llama, checkpoints)
        await model.leave()
        llama.running = False
        assert await model.start() is Tier.DISK
        await model.stop()
        assert checkpoints.log == [("park", 7, {"CUDA0": 5})]
        assert llama.log == ["close", "start", "stop"]

    run(scenario)


def test_one_on_more_gpus_than_were_tried_goes_to_disk(run):
    async def scenario():
        checkpoints = Checkpoints()
        predicted = {"CUDA0": 5, "CUDA1": 5, "CUDA2": 5, "host": 1}
        model = Tiered(Parts(Llama(), None, checkpoints), measured(), predicted)
        assert model.parked_size() == 0
        assert await model.leave() is Tier.DISK and not checkpoints.log

    run(scenario)


def test_a_new_tier_is_a_row_and_a_mover(run):
    class ByWish:
        def __init__(self, parts):
            self.log = parts.server.log

        async def leave(self, usage):
            self.log.append(("wished away", usage))

        async def back(self, usage):
            self.log.append(("wished back", usage))

        async def end(self):
            self.log.append("forgotten")

    async def scenario():
        llama = Llama()
        row = TierRow(Tier.NONE, "elsewhere", ByWish, lambda parts, gpus: gpus == 1)
        model = Tiered(Parts(llama), measured(), {"CUDA0": 5}, tiers=[row, *TIERS])
        assert await model.leave() is Tier.NONE and model.parked_size() == 0
        await model.start()
        await model.leave()
        await model.stop()
        went, came = ("wished away", {"CUDA0": 5}), ("wished back", {"CUDA0": 5})
        assert llama.log == [went, came, went, "forgotten"]

    run(scenario)


def test_the_last_tier_takes_every_model():
    assert all(TIERS[-1].may_take(Parts(Llama()), gpus) for gpus in range(9))
