import asyncio
import json
import logging

import pytest

from app.console import ModelLogger
from app.engine.http import Address, Client
from app.memory.kv import LEAST_FREE, USELESS, Slots
from app.memory.ledger import Tier
from app.memory.tiers import NoRoomError, ParkingError, Tiered
from tests.fakes import Child, body_of, reply

LOG = ModelLogger(logging.getLogger("app.test"), "m")


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


class Cache:
    """The slots of a llama-server."""

    def __init__(self, *tokens, restored=None):
        self.tokens, self.restored, self.asked = tokens, restored, []

    async def __call__(self, reader, writer, head):
        line = head.decode().split("\r\n")[0]
        self.asked.append(line.split()[1])
        await body_of(reader, head)
        if line.startswith("GET"):
            found = [{"id": n, "n_prompt_tokens": t} for n, t in enumerate(self.tokens)]
        else:
            slot = int(self.asked[-1].split("/")[2].split("?")[0])
            saved = self.tokens[slot]
            found = {"n_saved": saved, "n_restored": self.restored or saved}
        writer.write(reply(json.dumps(found).encode()))


@pytest.fixture
def socket(tmp_path):
    return tmp_path / "s"


def test_slots_with_something_in_them_are_saved_and_restored(run, socket, tmp_path):
    async def scenario():
        cache = Cache(100, 3, 50)
        async with Child(socket, cache):
            client = Client(Address(str(socket)), "k")
            slots = Slots(client, tmp_path / "kv", LOG)
            await slots.save()
            await slots.restore()
            await slots.restore()  # they are restored once
            client.close()
        assert cache.asked == [
            "/slots",
            "/slots/0?action=save",
            "/slots/2?action=save",
            "/slots/0?action=restore",
            "/slots/2?action=restore",
        ]

    run(scenario)


def test_what_did_not_come_back_whole_and_a_dead_child_are_no_failure(
    run, socket, tmp_path, caplog
):
    async def scenario():
        async with Child(socket, Cache(100, restored=7)):
            client = Client(Address(str(socket)), "k")
            slots = Slots(client, tmp_path / "kv", LOG)
            await slots.save()
            await slots.restore()
            client.close()
        assert "did not come back whole" in caplog.text
        await slots.save()
        assert "could not be kept" in caplog.text

    run(scenario)


def test_what_there_is_no_room_for_is_not_kept(run, socket, tmp_path, caplog):
    """The size of a slot's file is known from the one before it."""
    caplog.set_level(logging.INFO)
    folder, room = tmp_path / "kv", [LEAST_FREE]

    async def scenario():
        cache = Cache(100, 200)
        async with Child(socket, cache):
            client = Client(Address(str(socket)), "k")
            slots = Slots(client, folder, LOG, lambda _: room[0])
            folder.mkdir()
            (folder / "0.bin").write_bytes(b"x" * 1000)  # 10 bytes a token
            await slots.save()
            assert cache.asked == ["/slots", "/slots/0?action=save"]
            assert "slot 1 is not kept: 1.0 GiB are free" in caplog.text
            room[0] = LEAST_FREE + 2000
            (folder / "1.bin").write_bytes(b"x" * 2000)
            await slots.save()
            assert cache.asked[3:] == ["/slots/0?action=save", "/slots/1?action=save"]
            client.close()

    run(scenario)


def test_a_file_that_was_not_finished_is_removed(run, socket, tmp_path):
    async def scenario():
        async def full(reader, writer, head):
            if head.startswith(b"GET"):
                return await Cache(100)(reader, writer, head)
            await body_of(reader, head)
            (tmp_path / "kv" / "0.bin").write_bytes(b"half")
            writer.write(reply(b"{}", status=500))

        async with Child(socket, full):
            client = Client(Address(str(socket)), "k")
            slots = Slots(client, tmp_path / "kv", LOG)
            await slots.save()
            assert not (tmp_path / "kv" / "0.bin").exists()
            client.close()

    run(scenario)


def test_a_cache_that_does_not_help_is_kept_no_longer(run, socket, tmp_path):
    async def scenario():
        cache = Cache(100)
        async with Child(socket, cache):
            client = Client(Address(str(socket)), "k")
            slots = Slots(client, tmp_path / "kv", LOG)
            for _ in range(USELESS):
                await slots.save()
                await slots.restore()
                slots.seen(10, 0)  # too short to tell
                slots.seen(1000, 0)
                slots.seen(1000, 900)  # of a later one: that is no longer the restored cache
            assert not slots.useful
            before = len(cache.asked)
            await slots.save()
            assert len(cache.asked) == before
            client.close()

    run(scenario)


def test_one_hit_forgives_the_misses(run, socket, tmp_path):
    async def scenario():
        async with Child(socket, Cache(100)):
            client = Client(Address(str(socket)), "k")
            slots = Slots(client, tmp_path / "kv", LOG)
            for number in range(3 * USELESS):
                await slots.save()
                await slots.restore()
                slots.seen(1000, 900 if number % 3 == 0 else 0)
            assert slots.useful
            client.close()
            await asyncio.sleep(0)

    run(scenario)
