import asyncio
import json

import pytest

from app.engine import clearing
from app.engine.clearing import clear
from app.engine.http import Address, Client
from app.errors import UpstreamError
from tests.fakes import Child, reply

SLOTS = [{"id": 0, "is_processing": True}, {"id": 1, "is_processing": False}, {"id": 2}]


def scripted(run, tmp_path, slots, erased):
    """What a child with these answers was asked for."""
    asked = []

    async def answer(reader, writer, head):
        line = head.split(b"\r\n")[0].decode()
        asked.append(line.removesuffix(" HTTP/1.1"))
        writer.write(reply(json.dumps(slots).encode()) if "GET" in line else erased)

    async def scenario():
        socket = str(tmp_path / "x.sock")
        async with Child(socket, answer):
            client = Client(Address(socket), "secret")
            try:
                await clear(client)
            finally:
                client.close()

    run(scenario)
    return asked


def test_the_slots_that_rest_are_erased(run, tmp_path):
    asked = scripted(run, tmp_path, SLOTS[:2], reply(b"{}"))
    assert asked == ["GET /slots", "POST /slots/1?action=erase"]


@pytest.mark.parametrize(
    "slots, erased, told",
    [
        (SLOTS[:2], reply(b"{}", 501), "HTTP 501"),
        (SLOTS, reply(b"{}"), "is_processing"),
        ({"error": "none"}, reply(b"{}"), "/slots answers"),
    ],
)
def test_a_llama_server_that_cannot_is_told_of(run, tmp_path, slots, erased, told):
    with pytest.raises(UpstreamError, match=told):
        scripted(run, tmp_path, slots, erased)


def test_a_llama_server_that_does_not_answer_is_told_of(run, tmp_path):
    async def never(reader, writer, head):
        await asyncio.Event().wait()

    async def scenario():
        socket = str(tmp_path / "x.sock")
        async with Child(socket, never):
            client = Client(Address(socket), "secret")
            try:
                with pytest.raises(UpstreamError, match=r"cannot be cleared within 0\.1 s"):
                    await clear(client, 0.1)
            finally:
                client.close()

    run(scenario)


def test_it_is_waited_for_as_long_as_the_request_may_wait_but_not_for_ever():
    assert [clearing.patience(left) for left in (-1.0, 0.0, 20.0, 600.0)] == [5, 5, 20, 60]


@pytest.mark.parametrize("rests", [True, False])
def test_a_llama_server_in_a_long_step_is_waited_for_while_the_slot_rests(
    run, tmp_path, monkeypatch, rests
):
    """It erases after 0.3 s. Result: we go on then; at once if the slot has been given a request,
    which it will serve first."""
    monkeypatch.setattr(clearing, "LOOK", 0.05)

    async def scenario():
        erased, looks = [], []

        async def answer(reader, writer, head):
            if b"POST" in head:
                await asyncio.sleep(0.3)
                erased.append(1)
                writer.write(reply(b"{}"))
                return
            looks.append(1)
            works = len(looks) > 1 and not rests
            writer.write(reply(json.dumps([{"id": 0, "is_processing": works}]).encode()))

        socket = str(tmp_path / "x.sock")
        async with Child(socket, answer):
            client = Client(Address(socket), "secret")
            try:
                await clear(client)
                assert bool(erased) == rests and len(looks) > 1
            finally:
                client.close()

    run(scenario)
