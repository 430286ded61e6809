"""With the real llama-server, looked after as an instance does it."""

import asyncio
import contextlib
import json
import os
import signal
import sys

import pytest

from app.engine import guard as guarding
from app.engine import stuck
from app.engine.capabilities import find
from app.engine.environment import child_environment
from app.engine.exchange import Waits
from app.engine.http import Address, Client
from app.engine.lifecycle import State
from app.engine.process import Process
from app.engine.program import Program
from app.engine.server import LlamaServer
from app.engine.stuck import Patience
from app.errors import LoadError, NotConnectedError, StuckError, UpstreamError
from app.gateway import counting
from app.gateway.counting import count
from app.gateway.demand import CHAT, COMPLETION
from app.machine import activity
from app.machine.activity import Activity, Standing
from app.machine.deadline import within
from app.models import tiny_writer
from tests.fakes import Child, until

RESTS, WORKS = {"id": 0, "is_processing": False}, {"id": 1, "is_processing": True}
HASTY = Patience(stopped=0.2, still=1e9, silent=1e9)
PROMPT = {"prompt": " time" * 12000, "max_tokens": 4, "stream": True}


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """A tiny model that a CPU reads a prompt of many seconds with."""
    path = tmp_path_factory.mktemp("long") / "long.gguf"
    tiny_writer.write(path, context=1 << 17)
    return path


class Told:
    """A sink that counts what it is told."""

    passage = None

    def __init__(self):
        self.chunks, self.error = [], None
        self.ended = asyncio.Event()

    def head(self, status, headers):
        self.status = status

    def flush(self): ...

    def data(self, chunk):
        self.chunks.append(chunk)

    def complete(self):
        self.ended.set()

    def failed(self, error):
        self.error = error
        self.ended.set()


def server(folder, model, *more, patience, nice=19):
    environment = child_environment(os.environ, str(folder), api_key="k")
    client = Client(Address(str(folder / "x.sock")), "k")
    leaves = ["nice", "-n", str(nice)]  # it gets what others leave
    argv = [*leaves, str(find("", os.environ)), "-m", str(model), "--host", str(folder / "x.sock")]
    argv += ["-t", "1", "-np", "1", "-ub", "64", "-b", "256", "--slots", "--no-ui", *more]

    return LlamaServer("m", Program(argv, environment, patience=patience), client)


async def ask(server, body=PROMPT):
    sink = Told()
    head = "POST", "/v1/completions", [(b"content-type", b"application/json")]
    await server.client.exchange(head, json.dumps(body).encode(), sink)
    return sink


@pytest.fixture
def often(monkeypatch):
    monkeypatch.setattr(guarding, "EVERY", 0.05)
    monkeypatch.setattr(guarding, "ASKED", 0.0)


def test_one_that_a_signal_stops_is_ended_and_can_be_started_again(run, tmp_path, long, often):
    async def scenario():
        stopped = server(tmp_path, long, patience=HASTY)
        await stopped.start()
        asked = await ask(stopped)
        os.kill(stopped.process.pid, signal.SIGSTOP)
        await asked.ended.wait()
        assert isinstance(asked.error, StuckError) and "SIGSTOP" in str(asked.error)
        with pytest.raises(NotConnectedError):
            await ask(stopped)
        code = await stopped.exited()
        assert code == -signal.SIGKILL
        assert "ended: stopped by a signal (SIGSTOP)" in stopped.explain(code)
        await stopped.start()
        again = await ask(stopped, {"prompt": "a", "max_tokens": 2})
        await again.ended.wait()
        assert again.error is None
        await stopped.stop()
        assert "SIGSTOP" not in stopped.explain(await stopped.exited())

    run(scenario)


def test_one_that_somebody_else_tells_to_end_does_not_keep_its_callers(run, tmp_path, long, often):
    """llama-server works on nothing from then on. It ends once its connections are closed: mostly
    it does not close them itself."""

    async def scenario():
        ended = server(tmp_path, long, patience=Patience(), nice=0)
        await ended.start()
        under_way = await ask(ended, {"prompt": "a", "max_tokens": 30000, "stream": True})
        await until(lambda: under_way.chunks)
        os.kill(ended.process.pid, signal.SIGTERM)
        await under_way.ended.wait()
        assert isinstance(under_way.error, UpstreamError)
        await ended.exited()
        with pytest.raises(NotConnectedError):
            await ask(ended)

    run(scenario)


DEAF = """
import itertools, json, signal, sys, threading, time
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingUnixStreamServer
path, mode = sys.argv[1:]
counted, working = itertools.count(), []

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        decoded = next(counted) if mode == "slow" else 0
        slot = {"id": 0, "is_processing": bool(working), "next_token": [{"n_decoded": decoded}]}
        body = json.dumps([slot]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        if self.path == "/tokenize":
            self.rfile.read(int(self.headers["Content-Length"]))
            if mode == "counts":
                time.sleep(0.2)
            return self.do_GET()
        if self.path.endswith("/completions"):
            working.append(self.path)  # for ever, if it hangs
        if mode == "counts":
            time.sleep(0.8)
            working.clear()
            return self.do_GET()
        while mode == "spins":
            pass
        threading.Event().wait()

    def log_message(self, *_): pass

    def address_string(self): return ""

ThreadingUnixStreamServer.daemon_threads = True
server = ThreadingUnixStreamServer(path, Handler)
if mode == "closes":
    signal.signal(signal.SIGTERM, lambda *_: server.socket.close())
def block(*_):
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    while mode == "masks later":
        pass
if mode == "masks":
    block()
if mode in ("hangs", "masks later"):
    signal.signal(signal.SIGTERM, block)
if mode == "masks later":  # and answers meanwhile
    threading.Thread(target=server.serve_forever, daemon=True).start()
    signal.pause()
try:
    server.serve_forever()
finally:
    threading.Event().wait()
"""


def scripted(folder, mode, patience):
    """A llama-server that behaves as DEAF's `mode` says."""
    socket = str(folder / "x.sock")
    program = Program([sys.executable, "-c", DEAF, socket, mode], {}, patience=patience)
    server = LlamaServer("m", program, Client(Address(socket), "k"), grace=0.1)
    server.meta = {"asked": True}  # nobody else asks it
    return server


@pytest.mark.parametrize(
    "mode, patience, why",
    [
        ("waits", Patience(1e9, still=0.5, silent=1e9), "neither work nor progress"),
        ("spins", Patience(1e9, still=0.5, silent=2.0), "at work for 2 s without progress"),
        ("slow", Patience(1e9, still=0.5, silent=2.0), ""),
    ],
)
def test_one_that_answers_health_and_makes_no_progress(
    run, tmp_path, often, monkeypatch, mode, patience, why
):
    """Threads that wait for each other, or a loop without end; and one that is only slow, as its
    slots show."""
    # On a slow machine, to answer every 50 ms would be work by itself (`AT_WORK`).
    monkeypatch.setattr(guarding, "EVERY", 0.25)

    async def scenario():
        deaf = scripted(tmp_path, mode, patience)
        await deaf.start()
        asked = await ask(deaf, {})
        if why:
            await asked.ended.wait()
            assert isinstance(asked.error, StuckError) and why in str(asked.error)
            assert why in deaf.explain(await deaf.exited())
        else:
            await asyncio.sleep(4)
            assert asked.error is None and deaf.process.state is State.READY
            await deaf.stop()

    run(scenario)


def test_one_that_counts_a_prompt_for_ever_is_ended_too(run, tmp_path, often, monkeypatch):
    """A client waits for that, though it is we who ask."""
    monkeypatch.setattr(guarding, "EVERY", 0.25)

    async def scenario():
        deaf = scripted(tmp_path, "waits", Patience(1e9, still=0.5, silent=1e9))
        await deaf.start()
        with pytest.raises(StuckError, match="neither work nor progress"):
            await count(deaf.client, CHAT, [b"{}"], 1)
        await deaf.exited()

    run(scenario)


async def completion(server):
    await server.client.post("/v1/completions", {}, 60, Waits.CLIENT)


def test_one_that_only_counts_is_well(run, tmp_path, often, monkeypatch):
    """Where it owes no work, what its HTTP threads answer is all that it has to do; also after a
    client has left before anybody asked what its slots show."""
    monkeypatch.setattr(guarding, "EVERY", 0.25)
    monkeypatch.setattr(guarding, "ASKED", 1.5)

    async def scenario():
        well = scripted(tmp_path, "counts", Patience(1e9, still=2.5, silent=2.5))
        await well.start()

        async def counts():
            for _ in range(18):
                assert await count(well.client, COMPLETION, [b'{"prompt": "a"}'], 1)

        async def leaves():
            with contextlib.suppress(TimeoutError, asyncio.TimeoutError):
                await within(0.7, completion(well))

        await asyncio.gather(leaves(), counts(), counts(), counts())
        await well.stop()

    run(scenario)


def test_a_count_is_waited_for_longer_than_one_that_sleeps():
    assert counting.PATIENCE > stuck.PATIENCE.still


def test_slots_that_rest_show_that_it_is_well_only_where_it_owes_no_work(run):
    """One that hangs in work that nobody waits for any more has a slot at work."""

    async def scenario():
        told = [None, [RESTS], [RESTS], [WORKS, RESTS], [WORKS, RESTS], None, [WORKS, RESTS]]
        for rests_well, expected in ((True, "-+++---"), (False, "---+---")):
            replies = map(asyncio.sleep, [0] * len(told), told)
            shown = guarding.Shown(replies.__next__)
            moved = [await shown.moves(rests_well=rests_well) for _ in told]
            assert "".join("-+"[each] for each in moved) == expected

    run(scenario)


@pytest.mark.parametrize("gives_up", [False, True])
def test_counts_do_not_keep_alive_what_hangs(run, tmp_path, often, monkeypatch, gives_up):
    """llama-server's HTTP threads count also where the thread that computes hangs; one caller waits
    for it, or it gives up, has its prompt counted, and tries again."""
    monkeypatch.setattr(guarding, "EVERY", 0.25)

    async def scenario():
        deaf = scripted(tmp_path, "waits", Patience(1e9, still=1.5, silent=6.0))
        await deaf.start()
        asked = None if gives_up else await ask(deaf, {})
        with pytest.raises((StuckError, NotConnectedError)):
            while True:
                assert await count(deaf.client, COMPLETION, [b'{"prompt": "a"}'], 1)
                if gives_up:
                    with contextlib.suppress(TimeoutError, asyncio.TimeoutError):
                        await within(0.7, completion(deaf))
                else:
                    await asyncio.sleep(0.3)
        assert asked is None or isinstance(asked.error, StuckError)
        await deaf.exited()

    run(scenario)


@pytest.mark.parametrize("mode", ["hangs", "masks", "masks later"])
def test_one_that_hangs_in_the_handler_of_a_signal_is_ended(run, tmp_path, often, mode):
    """As llama-server, whose handler takes a lock that the interrupted thread may have. What has
    the signal blocked when it serves shows nothing by that, nor does one that computes."""

    async def scenario():
        socket = str(tmp_path / "x.sock")
        program = Program([sys.executable, "-c", DEAF, socket, mode], {})
        hung = LlamaServer("m", program, Client(Address(socket), "k"), grace=0.1)
        hung.meta = {"asked": True}  # nobody else asks it
        await hung.start()
        asked = await ask(hung, {})
        os.kill(hung.process.pid, signal.SIGTERM)
        if mode == "hangs":
            assert guarding.HANGS in hung.explain(await hung.exited())
            assert isinstance(asked.error, StuckError)
        else:
            await asyncio.sleep(1)
            assert hung.process.state is State.READY
            await hung.stop()

    run(scenario)


@pytest.mark.parametrize("answered", [False, True])
def test_one_that_takes_no_connection_any_more_is_ended(
    run, tmp_path, often, monkeypatch, answered
):
    """As llama-server after SIGTERM, while a client's connection is open. It owes an answer, or a
    new request finds out."""

    async def scenario():
        socket = str(tmp_path / "x.sock")
        program = Program([sys.executable, "-c", DEAF, socket, "closes"], {})
        closed = LlamaServer("m", program, Client(Address(socket), "k"), grace=0.1)
        closed.meta = {"asked": True}  # nobody else asks it
        monkeypatch.setattr(guarding, "ASKED", 1e9)
        await closed.start()
        asked = None if answered else await ask(closed, {})
        os.kill(closed.process.pid, signal.SIGTERM)
        if answered:
            with pytest.raises(NotConnectedError):
                while True:
                    await ask(closed, {})
        assert guarding.CLOSED in closed.explain(await closed.exited())
        assert asked is None or isinstance(asked.error, StuckError)

    run(scenario)


def test_one_that_rests_is_not_looked_at_until_it_is_asked(run, tmp_path, long, often, monkeypatch):
    """Then each look costs the more, the more models there are."""
    waits = []
    ends = Process.ends

    async def counted(process, within, unless=None):
        if within is not None:
            waits.append(within)
        return await ends(process, within, unless)

    monkeypatch.setattr(Process, "ends", counted)

    async def scenario():
        resting = server(tmp_path, long, patience=HASTY, nice=0)
        await resting.start()
        await until(lambda: resting.client.rests and len(waits) > 1)
        await asyncio.sleep(0.2)
        before = len(waits)
        await asyncio.sleep(1)
        assert len(waits) == before
        os.kill(resting.process.pid, signal.SIGSTOP)  # and it is looked at from now on
        asked = await ask(resting)
        await asked.ended.wait()
        assert isinstance(asked.error, StuckError) and "SIGSTOP" in str(asked.error)
        await resting.exited()

    run(scenario)


class Looked:
    """A llama-server's process that a signal has stopped, as the guard sees it."""

    pid = 1

    def __init__(self, state, then=lambda: None):
        self.state, self._then, self.looks, self.why = state, then, 0, ""
        self.pauses = []
        self._exit = asyncio.get_running_loop().create_future()

    async def ends(self, within, unless=None):
        waited = {self._exit} if unless is None else {self._exit, unless}
        await asyncio.wait(waited, timeout=within, return_when=asyncio.FIRST_COMPLETED)
        if within is not None:
            self.pauses.append(within)
            self.looks += 1
            self._then()
        return self._exit.done()

    def give_up(self, why):
        self.why = why
        self._exit.set_result(-9)


async def never(reader, writer, head):
    await asyncio.Event().wait()


def guarded(process, client, stopped, monkeypatch):
    async def no_slots():
        return None

    monkeypatch.setattr(activity, "of", lambda pid: Activity(Standing.STOPPED))
    ending = guarding.Ending(process, client, lambda: False)
    patience = Patience(stopped=stopped, still=1e9, silent=1e9)
    return asyncio.ensure_future(guarding.guard(process, client, no_slots, patience, ending))


def test_one_that_loads_is_looked_at_although_nobody_asks_it(run, tmp_path, often, monkeypatch):
    async def scenario():
        client, process = Client(Address(str(tmp_path / "x.sock")), "k"), Looked(State.STARTING)
        assert client.rests
        await guarded(process, client, 0.2, monkeypatch)
        assert "SIGSTOP" in process.why

    run(scenario)


def test_the_time_in_which_it_rested_does_not_count(run, tmp_path, often, monkeypatch):
    async def scenario():
        client = Client(Address(str(tmp_path / "x.sock")), "k")
        async with Child(client.address.path, never) as child:
            process = Looked(State.READY)
            guard = guarded(process, client, 1.0, monkeypatch)
            await asyncio.sleep(1.5)
            assert process.looks == 1
            began = asyncio.get_running_loop().time()
            head = "POST", "/x", []
            await client.exchange(head, b"{}", Told())
            await guard
            assert asyncio.get_running_loop().time() - began > 0.9
            client.close()
            assert child.connections == 1

    run(scenario)


def test_one_that_refuses_a_request_is_looked_at_at_once(run, tmp_path, often, monkeypatch):
    monkeypatch.setattr(guarding, "ENDING", 0.1)

    async def scenario():
        client, process = Client(Address(str(tmp_path / "x.sock")), "k"), Looked(State.READY)
        guard = guarded(process, client, 1e9, monkeypatch)
        await until(lambda: process.looks)
        with pytest.raises(NotConnectedError):
            await client.acquire()
        await guard
        assert process.why == guarding.CLOSED
        assert process.pauses == [guarding.EVERY, 0.0, guarding.ENDING]

    run(scenario)


@pytest.mark.parametrize("rests", [True, False])
def test_one_that_refuses_a_request_after_a_doubt_is_looked_at_at_once(
    run, tmp_path, often, monkeypatch, rests
):
    """It closes the connection that was kept, and refuses another one a moment later: also while
    the guard waits for the time of its next look."""
    monkeypatch.setattr(guarding, "ENDING", 0.1)

    async def scenario():
        client, process = Client(Address(str(tmp_path / "x.sock")), "k"), Looked(State.READY)
        if rests:
            guard = guarded(process, client, 1e9, monkeypatch)
            await until(lambda: process.looks)
            monkeypatch.setattr(guarding, "EVERY", 3600)
        else:
            monkeypatch.setattr(guarding, "EVERY", 3600)
            guard = guarded(process, client, 1e9, monkeypatch)
            await asyncio.sleep(0.01)
        client.doubtful = True
        await asyncio.sleep(0.05)
        if not rests:
            with pytest.raises(NotConnectedError):
                await client.acquire()
        await asyncio.wait_for(guard, 10)
        assert process.why == guarding.CLOSED

    run(scenario)


def test_one_that_is_asked_just_as_the_guard_goes_to_rest_is_looked_at(
    run, tmp_path, often, monkeypatch
):
    """The request is in the loop's queue behind the guard."""

    async def scenario():
        client = Client(Address(str(tmp_path / "x.sock")), "k")
        async with Child(client.address.path, never):
            client.release(await client.acquire())  # so that the request waits for no connection
            asked = []

            def ask_once():
                if not asked:
                    head = "POST", "/x", []
                    asked.append(asyncio.ensure_future(client.exchange(head, b"{}", Told())))

            process = Looked(State.READY, ask_once)
            await guarded(process, client, 0.2, monkeypatch)
            assert "SIGSTOP" in process.why

    run(scenario)


@pytest.mark.parametrize("by", ["a connection that it closes", "the next request"])
def test_one_that_rests_and_is_told_to_end_is_found_out(run, tmp_path, often, by):
    async def scenario():
        socket = str(tmp_path / "x.sock")
        program = Program([sys.executable, "-c", DEAF, socket, "closes"], {})
        closed = LlamaServer("m", program, Client(Address(socket), "k"), grace=0.1)
        closed.meta = {"asked": True}  # nobody else asks it
        await closed.start()
        (connection,) = closed.client._idle
        if by == "the next request":
            connection.close()
        await asyncio.sleep(0.2)
        os.kill(closed.process.pid, signal.SIGTERM)
        await asyncio.sleep(0.2)
        assert closed.process.state is State.READY
        if by == "the next request":
            with pytest.raises(NotConnectedError):
                while True:
                    await ask(closed, {})
        else:
            connection.transport.abort()  # as if the child had closed it
        assert guarding.CLOSED in closed.explain(await closed.exited())

    run(scenario)


def test_one_that_is_stopped_while_nobody_asks_is_let_be(run, tmp_path, long, often):
    async def scenario():
        idle = server(tmp_path, long, patience=HASTY)
        await idle.start()
        os.kill(idle.process.pid, signal.SIGSTOP)
        await until(lambda: activity.of(idle.process.pid).standing is Standing.STOPPED)
        await asyncio.sleep(1)
        assert idle.process.state is State.READY
        os.kill(idle.process.pid, signal.SIGCONT)
        await idle.stop()

    run(scenario)


def test_one_that_is_stopped_does_not_keep_us_from_ending(run, tmp_path, long):
    """Its grace is longer than this test may take."""

    async def scenario():
        stopped = server(tmp_path, long, patience=Patience())
        stopped.process._grace = 3600
        await stopped.start()
        os.kill(stopped.process.pid, signal.SIGSTOP)
        await until(lambda: activity.of(stopped.process.pid).standing is Standing.STOPPED)
        await stopped.stop()
        assert await stopped.exited() == -signal.SIGKILL

    run(scenario)


def test_a_load_that_is_stopped_fails_and_says_why(run, tmp_path, long, often):
    async def scenario():
        stopped = server(tmp_path, long, patience=HASTY)
        starting = asyncio.ensure_future(stopped.start())
        await until(lambda: stopped.process.state is State.STARTING)
        os.kill(stopped.process.pid, signal.SIGSTOP)
        with pytest.raises(LoadError, match="SIGSTOP"):
            await starting

    run(scenario)


def test_one_at_work_on_a_long_prompt_is_not_stuck(run, tmp_path, long, often):
    """It runs at the lowest priority, sends nothing, and is looked at by a guard with
    no patience. Its slots tell the progress of its prompt."""
    looks = []

    async def scenario():
        busy = server(tmp_path, long, "-c", "131072", patience=Patience(0.2, 1.0, 5.0))
        told = busy.slots

        async def slots():
            shown = await told()
            looks.append(shown and shown[0].get("n_prompt_tokens_processed"))
            return shown

        busy.slots = slots
        await busy.start()
        asked = await ask(busy)
        await until(lambda: len(set(looks)) > 4, timeout=25)
        assert asked.error is None and busy.process.state is State.READY
        assert not busy.client.progress
        await busy.stop()

    run(scenario)
