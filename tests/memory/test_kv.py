import asyncio
import json
import logging
import os
import socket as sockets

import pytest

from app.console import ModelLogger
from app.engine.http import Address, Client
from app.errors import LoadError, StuckError
from app.memory.kv import LEAST_FREE, NOT_RESTORED, USELESS, Slots, of_use
from app.models.header import Header
from tests.fakes import Child, body_of, reply

LOG = ModelLogger(logging.getLogger("app.test"), "m")


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


def test_its_folder_is_made_again_for_what_is_saved(run, socket, tmp_path, caplog):
    async def scenario():
        async with Child(socket, Cache(100)):
            client = Client(Address(str(socket)), "k")
            make = (tmp_path / "kv").mkdir
            await Slots(client, tmp_path / "kv", LOG, restore_folder=make).save()
            assert (tmp_path / "kv").is_dir() and caplog.text == ""
            client.close()

    run(scenario)


def test_where_its_folder_cannot_be_made_nothing_is_saved(run, socket, tmp_path, caplog):
    def fails():
        raise LoadError("no such folder")

    async def scenario():
        cache = Cache(100)
        async with Child(socket, cache):
            client = Client(Address(str(socket)), "k")
            await Slots(client, tmp_path / "kv", LOG, restore_folder=fails).save()
            assert cache.asked == []
            assert "its KV cache could not be kept: no such folder" in caplog.text
            client.close()

    run(scenario)


def by_another_file(weights):
    other = weights.with_name("other")
    other.write_bytes(b"two")
    other.replace(weights)


def in_place(weights):
    """With the same size, and dated back."""
    was = weights.stat()
    weights.write_bytes(b"six")
    os.utime(weights, ns=(was.st_atime_ns, was.st_mtime_ns))


def as_it_loads(weights):
    by_another_file(weights)


def by_another_adapter(weights):
    """It was not there at first."""
    (weights.parent / "adapter").write_bytes(b"a")


def by_another_socket(weights):
    """As each start has one."""
    (weights.parent / "socket").unlink(missing_ok=True)
    with sockets.socket(sockets.AF_UNIX) as bound:
        bound.bind(str(weights.parent / "socket"))
    (weights.parent / "folder").mkdir(exist_ok=True)
    (weights.parent / "folder" / "new").touch()


TRIPS = [
    *((None, True), (by_another_file, False), (None, True), (in_place, False), (None, True)),
    *((by_another_adapter, False), (None, True), (by_another_socket, True), (None, True)),
    # What it has loaded then is not certain, so what it saves is not, either.
    *((as_it_loads, False), (as_it_loads, False), (None, False), (None, True)),
]


def test_what_was_saved_with_other_weights_is_not_restored(run, socket, tmp_path, caplog):
    """The file has been replaced while the model was away. Result: nothing of it is left, and the
    next trip is as any other."""
    caplog.set_level(logging.INFO)
    weights = tmp_path / "m.gguf"
    weights.write_bytes(b"one")

    async def scenario():
        cache = Cache(100)
        async with Child(socket, cache):
            client = Client(Address(str(socket)), "k")
            (tmp_path / "kv").mkdir()
            others = [tmp_path / name for name in ("adapter", "socket", "folder", "none")]
            slots = Slots(client, tmp_path / "kv", LOG, weights=[weights, *others])
            slots.loaded(slots.which())
            for way, restored in TRIPS:
                await slots.save()
                (tmp_path / "kv" / "0.bin").touch()
                if way not in (None, as_it_loads):
                    way(weights)
                before = slots.which()
                if way is as_it_loads:
                    way(weights)
                cache.asked.clear()
                slots.loaded(before)
                await slots.restore()
                assert len(cache.asked) == restored, way
                assert not (tmp_path / "kv" / "0.bin").exists()
            client.close()
        assert caplog.text.count("not restored: one of its files has changed since") == 6

    run(scenario)


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


@pytest.mark.parametrize(
    "architecture, own, embedding, useful, said",
    [
        ("llama", {}, False, True, False),
        ("lfm2", {"shortconv.l_cache": 3}, False, True, False),
        ("gemma3", {"attention.sliding_window": 512}, False, False, True),
        ("llama", {}, True, False, False),
        ("nomic-bert", {"attention.causal": False}, False, False, False),
    ],
    ids=["plain", "hybrid", "sliding window", "embeddings of a plain one", "an encoder"],
)
def test_files_are_of_use_where_llama_server_uses_what_it_restores(
    caplog, architecture, own, embedding, useful, said
):
    caplog.set_level(logging.INFO)
    keys = {f"{architecture}.{key}": value for key, value in own.items()}
    header = Header({"general.architecture": architecture, **keys}, (), 0)
    assert of_use(header, embedding=embedding, log=LOG) is useful
    assert (NOT_RESTORED in caplog.text) is said


@pytest.mark.parametrize("action", ["save", "restore"])
def test_a_llama_server_that_does_not_go_on_with_it_owes_it(run, socket, tmp_path, action):
    """It takes the request, and never answers. Result: the guard sees that it owes something, and
    once it is given up, the model leaves, or comes, without its cache."""

    async def scenario():
        cache, silent = Cache(100), asyncio.Event()

        async def answer(reader, writer, head):
            if action in head:
                silent.set()
                await asyncio.Event().wait()
            await cache(reader, writer, head.encode())

        async with Child(socket, lambda r, w, head: answer(r, w, head.decode())):
            client = Client(Address(str(socket)), "k")
            slots = Slots(client, tmp_path / "kv", LOG)
            if action == "restore":
                await slots.save()
            moving = asyncio.ensure_future(getattr(slots, action)())
            await silent.wait()
            assert client.owed == 1
            client.give_up(StuckError("stopped"))
            await moving
            client.close()

    run(scenario)
