import json
import sys
from pathlib import Path

import pytest

from app.engine import server
from app.engine.http import Address, Client
from app.engine.lifecycle import State
from app.engine.program import Program
from app.engine.server import LlamaServer, meta_of
from app.errors import LoadError
from tests.fakes import Child, body_of, reply


@pytest.mark.parametrize(
    "answer, expected",
    [
        (b'{"data":[{"meta":{"n_vocab":3}}]}', {"n_vocab": 3}),
        (b'{"data":[{"meta":null}]}', {}),
        (b'{"data":[]}', {}),
        (b'{"data":{}}', {}),
        (b"[]", {}),
        (b"<html>", {}),
        (b"\xff", {}),
    ],
)
def test_what_a_llama_server_says_of_its_model(run, tmp_path, answer, expected):
    async def answering(reader, writer, head):
        await body_of(reader, head)
        writer.write(reply(answer))

    async def scenario():
        async with Child(tmp_path / "x.sock", answering) as child:
            client = Client(Address(str(tmp_path / "x.sock")), "k")
            assert await meta_of(client) == expected
            assert child.heads[0].startswith("GET /v1/models ")
            client.close()
            assert await meta_of(Client(Address(str(tmp_path / "none")), "k")) == {}

    run(scenario)


class Ahead:
    """Notes what it is asked."""

    def __init__(self, files):
        self.files, self.asked = files, []
        ALL.append(self)

    def begin(self):
        self.asked.append("begin")

    def end(self):
        self.asked.append("end")


ALL = []


@pytest.fixture
def reading(tmp_path, monkeypatch):
    """Makes a llama-server that cannot start, whose reads ahead are noted in ALL."""
    monkeypatch.setattr(server, "ReadAhead", Ahead)
    ALL.clear()
    program = Program(["/bin/false"], {}, files=[Path("m.gguf")])
    return lambda: LlamaServer("m", program, Client(Address(str(tmp_path / "x.sock")), "k"))


def test_files_are_read_ahead_from_the_moment_it_is_expected_until_the_start_ends(run, reading):
    async def scenario():
        llama = reading()
        llama.expect()
        llama.expect()
        assert [(each.files, each.asked) for each in ALL] == [([Path("m.gguf")], ["begin"])]
        for _ in range(2):
            with pytest.raises(LoadError):
                await llama.start()
        assert [each.asked for each in ALL] == [["begin", "end"]] * 2  # each start anew
        llama.expect()
        await llama.stop()
        assert ALL[2].asked == ["begin", "end"]

    run(scenario)


def test_files_are_read_ahead_for_a_process_that_has_stayed_and_for_the_next_one(run, reading):
    async def scenario():
        llama = reading()
        llama.process.state = State.READY
        llama.expect()
        await llama.start()
        assert [each.asked for each in ALL] == [["begin"]]  # what serves already needs the rest
        llama.process.state = State.STOPPED  # it has crashed
        llama.expect()
        with pytest.raises(LoadError):
            await llama.start()
        assert ALL[1].asked == ["begin", "end"]

    run(scenario)


def test_what_stands_in_the_place_of_its_socket_fails_the_load_alone(run, tmp_path):
    """A fault that the pool does not know would end the instance."""
    (tmp_path / "x.sock").mkdir()

    async def scenario():
        client = Client(Address(str(tmp_path / "x.sock")), "k")
        blocked = LlamaServer("m", Program(["true"], {}), client)
        with pytest.raises(LoadError, match="x.sock cannot be removed: Is a directory"):
            await blocked.start()

    run(scenario)


REMOVES_ITS_SOCKET = """
import os, socket, sys
end = socket.socket(socket.AF_UNIX)
end.bind(sys.argv[1])
end.listen()
print('cmd_child_to_router:state:{"state": "ready", "payload": {}}', flush=True)
while True:
    asker, _ = end.accept()
    asker.recv(65536)
    os.unlink(sys.argv[1])
    asker.sendall(b"HTTP/1.1 200 OK\\r\\ncontent-length: 2\\r\\n\\r\\n{}")
"""


def test_one_whose_socket_goes_as_it_gets_ready_has_not_come(run, tmp_path):
    """Or it would fail at the first request that wants a connection of its own."""
    path = str(tmp_path / "x.sock")
    program = Program([sys.executable, "-uc", REMOVES_ITS_SOCKET, path], {})

    async def scenario():
        lost = LlamaServer("m", program, Client(Address(path), "k"), grace=0.1)
        with pytest.raises(LoadError, match=f"somebody has removed its socket {path}"):
            await lost.start()
        assert not lost.process.running

    run(scenario)


def test_one_whose_socket_somebody_removes_while_it_loads_is_not_waited_for(run, tmp_path):
    """It says that it listens, and nobody can find it."""
    said = f"print('cmd_child_to_router:state:{json.dumps({'state': 'ready', 'payload': {}})}')"
    program = Program([sys.executable, "-uc", f"{said}; import time; time.sleep(60)"], {})

    async def scenario():
        client = Client(Address(str(tmp_path / "x.sock")), "k")
        lost = LlamaServer("m", program, client, grace=0.1)
        with pytest.raises(LoadError, match=f"somebody has removed its socket {tmp_path}/x.sock"):
            await lost.start()
        assert not lost.process.running

    run(scenario)
