import asyncio
import json

import psutil
import pytest

from app.errors import RequestError
from app.gateway.body import workers
from app.gateway.body.examine import examine
from app.gateway.body.workers import Workers
from app.machine import children as children_of_ours
from tests.fakes import until

BODY = json.dumps({"model": "m", "stream": True, "prompt": ["a"] * 3, "n": 2}).encode()


@pytest.fixture
def working(run):
    """Run a scenario with workers that end afterwards."""

    def runner(scenario):
        async def whole():
            crew = Workers()
            try:
                await asyncio.wait_for(scenario(crew), 60)
            finally:
                await crew.close()
            assert children() == []

        run(whole)

    return runner


def children():
    """The pids of the workers."""
    return [child.pid for child in psutil.Process().children() if is_worker(child)]


def is_worker(process):
    try:
        return any("body import worker" in word for word in process.cmdline())
    except psutil.NoSuchProcess:  # it has just ended
        return False


def ended(pid):
    """Whether a wait for the process would return: its command line is gone before that."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def asked_while_stopped(crew):
    """The pid of a worker that is stopped, and the answer that it owes."""
    await crew.examine([BODY], allow_remote=False)
    (pid,) = children()
    psutil.Process(pid).suspend()
    return pid, asyncio.ensure_future(crew.examine([BODY], allow_remote=False))


def test_a_worker_finds_the_same(working):
    async def scenario(crew):
        for size in (1, 50, 1000):
            pieces = [BODY[begin : begin + size] for begin in range(0, len(BODY), size)]
            found = await crew.examine(pieces, allow_remote=False)
            assert found == examine(BODY, allow_remote=False)
        assert len(children()) == 1

    working(scenario)


def test_a_repaired_body_comes_back_whole(working):
    async def scenario(crew):
        text = b"a" * (1 << 20)
        found = await crew.examine([b'{"prompt":"', text, b'\\ud83d"}'], allow_remote=False)
        assert found.repaired == b'{"prompt":"' + text + b'\\ufffd"}'

    working(scenario)


@pytest.mark.parametrize(
    "body, status",
    [(b"{", 400), (b'{"url":"http://h"}', 400), (b"[" * 5_000_000, 413), (b"\xff", 400)],
)
def test_a_refusal_comes_back_and_the_worker_goes_on(working, body, status):
    async def scenario(crew):
        with pytest.raises(RequestError) as raised:
            await crew.examine([body], allow_remote=False)
        assert raised.value.status == status
        (pid,) = children()
        await crew.examine([b'{"url":"http://h"}'], allow_remote=True)
        assert children() == [pid]

    working(scenario)


def test_a_models_name_is_cut_and_is_no_list(working):
    async def scenario(crew):
        long = json.dumps({"model": "m" * 100_000}).encode()
        assert (await crew.examine([long], allow_remote=False)).model == "m" * 4096
        assert (await crew.examine([b'{"model":[1]}'], allow_remote=False)).model is False

    working(scenario)


def test_the_loop_goes_on_while_a_worker_parses(working):
    """The worker is stopped before it gets a body. Result: the loop turns as long as one likes,
    so no part of the parse waits for it."""

    async def scenario(crew):
        pid, asked = await asked_while_stopped(crew)
        for _ in range(1000):
            await asyncio.sleep(0)
        assert not asked.done()
        psutil.Process(pid).resume()
        assert (await asked).model == "m"

    working(scenario)


def test_no_more_workers_than_the_bound(working):
    async def scenario(crew):
        asked = [crew.examine([BODY], allow_remote=False) for _ in range(3 * workers.MOST)]
        assert {found.model for found in await asyncio.gather(*asked)} == {"m"}
        assert len(children()) <= workers.MOST

    working(scenario)


def test_a_worker_that_was_killed_is_replaced(working):
    async def scenario(crew):
        pid, asked = await asked_while_stopped(crew)
        await asyncio.sleep(0)
        psutil.Process(pid).kill()
        with pytest.raises(RequestError) as raised:
            await asked
        assert raised.value.status == 503 and raised.value.retry_after
        assert (await crew.examine([BODY], allow_remote=False)).model == "m"

    working(scenario)


def test_an_idle_worker_that_has_ended_is_replaced_unseen(working):
    async def scenario(crew):
        await crew.examine([BODY], allow_remote=False)
        (pid,) = children()
        psutil.Process(pid).kill()
        await until(lambda: ended(pid))
        assert (await crew.examine([BODY], allow_remote=False)).model == "m"

    working(scenario)


def test_where_no_worker_can_be_started_the_client_comes_back(working, monkeypatch, caplog):
    def full(*_, **__):
        raise OSError("too many processes")

    async def scenario(crew):
        with monkeypatch.context() as patch:
            patch.setattr(children_of_ours, "spawn", full)
            with pytest.raises(RequestError) as raised:
                await crew.examine([BODY], allow_remote=False)
        assert raised.value.status == 503 and "too many processes" in caplog.text
        assert (await crew.examine([BODY], allow_remote=False)).model == "m"

    working(scenario)


def test_a_client_that_leaves_as_its_worker_starts_leaves_none_behind(working):
    async def scenario(crew):
        asked = asyncio.ensure_future(crew.examine([BODY], allow_remote=False))
        await asyncio.sleep(0)
        assert len(psutil.Process().children()) == 1
        asked.cancel()
        await until(lambda: not psutil.Process().children())

    working(scenario)


def test_the_worker_of_a_client_that_left_ends(working):
    async def scenario(crew):
        pid, asked = await asked_while_stopped(crew)
        await asyncio.sleep(0)
        asked.cancel()
        await until(lambda: not psutil.pid_exists(pid))
        assert (await crew.examine([BODY], allow_remote=False)).model == "m"

    working(scenario)


def test_a_body_that_takes_too_long_is_refused(working, monkeypatch):
    async def scenario(crew):
        await crew.examine([BODY], allow_remote=False)
        (pid,) = children()
        psutil.Process(pid).suspend()
        monkeypatch.setattr(workers, "LONGEST", 0.01)
        with pytest.raises(RequestError) as raised:
            await crew.examine([BODY], allow_remote=False)
        assert raised.value.status == 413

    working(scenario)


def test_an_idle_worker_ends(working, monkeypatch):
    monkeypatch.setattr(workers, "IDLE", 0.01)

    async def scenario(crew):
        await crew.examine([BODY], allow_remote=False)
        await until(lambda: children() == [])

    working(scenario)
