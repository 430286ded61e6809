"""Callers of a keys file before a real front, pool and client; the child is scripted."""

import asyncio
import hashlib
import json

import pytest

from app.gateway.admission import Keys
from app.gateway.keys_file import Holder
from app.gateway.roster import Roster
from app.gateway.rules import Rules
from app.machine import clock
from tests.fakes import Child, body_of, reply, until
from tests.gateway.front import EVENTS, Front, echo

USAGE = b'{"usage":{"prompt_tokens":7,"completion_tokens":3}}'


def holder(name, **limits):
    return Holder(name, hashlib.sha256(name.encode()).digest(), **limits)


def sent(key):
    return b"x-api-key: %b\r\n" % key.encode()


class Named(Front):
    """A front of two models, with a key of its own and the callers of a keys file: the key of each
    is its name."""

    def __init__(self, *holders):
        self.roster = Roster()
        self.roster.replace(holders, 0.0)
        super().__init__(("tiny", "other"), rules=Rules(Keys(["own"], self.roster)))


async def counted(reader, writer, head):
    await body_of(reader, head)
    writer.write(reply(USAGE))


async def endless(reader, writer, head):
    """A stream that goes on until the client leaves."""
    await body_of(reader, head)
    writer.write(EVENTS)
    try:
        while not writer.is_closing():
            writer.write(b"9\r\ndata: a\n\n\r\n")
            await writer.drain()
            await asyncio.sleep(0.001)
    except asyncio.CancelledError:  # at the test's end
        raise ConnectionError from None


def test_every_caller_has_its_own_key_beside_the_instances_own(run, socket):
    async def scenario():
        front = Named(holder("alice"), holder("bob", batch=True, weight=3.0))
        async with Child(socket, echo), front.before(socket):
            for key, status in (("alice", 200), ("bob", 200), ("own", 200), ("carol", 401)):
                assert (await front.ask(headers=sent(key)))[0] == status
            assert (await front.ask())[0] == 401
            assert [sample.caller for sample in front.samples] == ["alice", "bob", ""]

    run(scenario)


def test_over_its_limit_of_requests_a_caller_gets_429_and_a_leaver_frees_its_place(run, socket):
    """1. A stream of alice's. 2. Her next request is refused, bob's is not. 3. She leaves.
    Result: her next is served."""

    async def scenario():
        front = Named(holder("alice", max_concurrent_requests=1), holder("bob"))
        denied = []
        front.proxy.denied = denied.append
        async with Child(socket, endless) as child, front.before(socket):
            stream = await front.begin(headers=sent("alice"))
            await stream.reader.readuntil(b"data: a")
            status, headers, body = await front.ask(headers=sent("alice"))
            error = json.loads(body)["error"]
            assert status == 429 and headers["retry-after"] == "1"
            assert error["type"] == "rate_limit_error" and error["message"].startswith("alice: 1 ")
            assert denied == ["alice"]
            other = await front.begin(headers=sent("bob"))
            await other.reader.readuntil(b"data: a")
            await stream.close()
            await until(lambda: child.left.is_set() and front.samples)
            again = await front.begin(headers=sent("alice"))
            await again.reader.readuntil(b"data: a")

    run(scenario)


def test_tokens_are_taken_from_the_bucket_as_llama_server_tells_them(run, socket):
    """Requests of 10 tokens each: the second leaves a debt."""

    async def scenario():
        front = Named(holder("alice", tokens_per_minute=15), holder("bob", tokens_per_minute=1000))
        async with Child(socket, counted), front.before(socket):
            for status in (200, 200, 429):
                found, headers, _ = await front.ask(headers=sent("alice"))
                assert found == status
            assert 15 <= int(headers["retry-after"]) <= 21
            assert (await front.ask(headers=sent("bob")))[0] == 200
            assert (await front.ask(headers=sent("own")))[0] == 200

    run(scenario)


def test_a_stream_that_breaks_costs_its_caller_nothing(run, socket):
    async def breaks(reader, writer, head):
        await body_of(reader, head)
        writer.write(EVENTS + b"9\r\ndata: a\n\n\r\n" * 5)
        writer.close()

    async def scenario():
        front = Named(holder("alice", tokens_per_minute=1000))
        quota = front.roster.quota(holder("alice"))
        async with Child(socket, breaks), front.before(socket):
            await front.ask(headers=sent("alice"))
            await until(lambda: front.samples)
            assert front.samples[0].status >= 500
            assert quota.left(clock.now()) == 1000

    run(scenario)


def test_who_leaves_a_stream_before_its_usage_is_told_has_used_tokens_all_the_same(run, socket):
    async def scenario():
        front = Named(holder("alice", tokens_per_minute=1))
        quota = front.roster.quota(holder("alice"))
        async with Child(socket, endless), front.before(socket):
            stream = await front.begin(
                body=b'{"prompt":"%b"}' % (b"a" * 400), headers=sent("alice")
            )
            for _ in range(50):
                await stream.reader.readuntil(b"data: a")
            await stream.close()
            await until(lambda: front.samples)
            tokens = front.samples[0].tokens
            assert front.samples[0].status == 499 and tokens.estimated
            assert tokens.prompt == 103 and 50 <= tokens.generated
            assert quota.left(clock.now()) < -100

    run(scenario)


@pytest.mark.parametrize(
    "path, body",
    [
        ("/other/v1/completions", b"{}"),
        ("/v1/completions", b'{"model":"other"}'),
        ("/v1/messages", b'{"model":"other"}'),
        ("/api/models/other/load", b""),
    ],
)
def test_a_model_that_is_not_a_callers_own_is_404_to_it(run, socket, path, body):
    async def scenario():
        front = Named(holder("alice", models=frozenset({"tiny"})))
        async with Child(socket, echo) as child, front.before(socket):
            status, _, answer = await front.ask(path, body, headers=sent("alice"))
            error = json.loads(answer)["error"]
            assert status == 404 and error["message"].endswith("there are: tiny")
            assert child.heads == []
            assert (await front.ask(path, body, headers=sent("own")))[0] in (200, 202)

    run(scenario)


def test_no_page_shows_a_caller_models_that_are_not_its_own(run, socket):
    async def scenario():
        front = Named(holder("alice", models=frozenset({"tiny"})))
        async with Child(socket, echo), front.before(socket):

            async def look(path, key):
                status, _, body = await front.look(path, headers=sent(key))
                return status, json.loads(body)

            for path, key in (
                ("/v1/models", "data"),
                ("/models", "data"),
                ("/api/status", "models"),
            ):
                assert len((await look(path, "own"))[1][key]) == 2
                status, told = await look(path, "alice")
                assert status == 200 and len(told[key]) == 1 and "other" not in str(told)
            for path in ("/v1/models/other", "/other/v1/models", "/other/health"):
                assert (await look(path, "alice"))[0] == 404
                assert (await look(path, "own"))[0] == 200
            front.pool.fail("tiny", "broken")
            assert set((await look("/ready", "alice"))[1]["models"]) == {"tiny"}
            assert set((await look("/ready", "own"))[1]["models"]) == {"tiny", "other"}
            assert "models" not in (await look("/ready", "nobody"))[1]

    run(scenario)


def test_a_body_without_a_model_is_for_a_callers_only_one(run, socket):
    async def scenario():
        front = Named(holder("alice", models=frozenset({"tiny"})))
        async with Child(socket, echo), front.before(socket):
            assert (await front.ask("/v1/completions", headers=sent("alice")))[0] == 200
            assert (await front.ask("/v1/completions", headers=sent("own")))[0] == 400

    run(scenario)


def test_a_caller_without_a_model_here_is_told_so(run, socket):
    async def scenario():
        front = Named(holder("alice", models=frozenset({"elsewhere"})))
        async with Child(socket, echo), front.before(socket):
            for body in (b"{}", b'{"model":"tiny"}'):
                status, _, answer = await front.ask("/v1/completions", body, headers=sent("alice"))
                assert status == 404 and b"no model here that this key may use" in answer

    run(scenario)


@pytest.mark.parametrize("path", ["/metrics", "/api/events"])
def test_what_shows_others_needs_the_instances_own_key(run, socket, path):
    async def scenario():
        front = Named(holder("alice"))
        async with Child(socket, echo), front.before(socket):
            status, _, body = await front.look(path, headers=sent("alice"))
            assert status == 403 and b"instance's own key" in body

    run(scenario)


def test_what_changes_models_for_others_needs_the_instances_own_key(run, socket):
    async def scenario():
        front = Named(holder("alice"))
        async with Child(socket, echo), front.before(socket):
            assert (await front.ask("/api/models/tiny/load", headers=sent("alice")))[0] == 403
            assert (await front.ask("/api/models/tiny/load", headers=sent("own")))[0] == 202

    run(scenario)


def test_errors_have_the_shape_of_the_path(run, socket):
    async def refusing(reader, writer, head):
        await body_of(reader, head)
        writer.write(reply(b'{"error":{"message":"no","type":"t","code":400}}', 400))

    async def scenario():
        front = Named(holder("alice", max_concurrent_requests=1))
        async with Child(socket, refusing), front.before(socket):
            for path, named in (("/v1/messages", True), ("/v1/completions", False)):
                for model in ("tiny", "nothing"):
                    body = b'{"model":"%b"}' % model.encode()
                    _, _, answer = await front.ask(path, body, headers=sent("alice"))
                    assert (json.loads(answer).get("type") == "error") == named
            for path, named in (("/v1/messages/count_tokens?q", True), ("/v1/models/x", False)):
                status, _, answer = await front.ask(path)
                assert status == 401 and (json.loads(answer).get("type") == "error") == named

    run(scenario)


def test_requests_under_way_do_not_see_that_the_file_changes(run, socket):
    """1. A stream of a caller. 2. The caller is taken out of the file. Result: the stream goes on,
    and the next request is refused. 3. The caller is put back: the stream counts still."""

    async def scenario():
        front = Named(holder("alice", max_concurrent_requests=1))
        async with Child(socket, endless), front.before(socket):
            stream = await front.begin(headers=sent("alice"))
            await stream.reader.readuntil(b"data: a")
            front.roster.replace([], 0.0)
            assert (await front.ask(headers=sent("alice")))[0] == 401
            for _ in range(20):
                await stream.reader.readuntil(b"data: a")
            front.roster.replace([holder("alice", max_concurrent_requests=1)], 0.0)
            assert (await front.ask(headers=sent("alice")))[0] == 429
            await stream.close()
            await until(lambda: front.pool.view()[0].leased == 0)
            again = await front.begin(headers=sent("alice"))
            await again.reader.readuntil(b"data: a")

    run(scenario)


def test_of_a_callers_and_the_instances_own_key_the_own_one_counts():
    roster = Roster()
    roster.replace([holder("alice")], 0.0)
    keys = Keys(["own"], roster)
    assert keys.holder([b"alice"]).name == "alice"
    assert keys.holder([b"alice", b"own"]).name == keys.holder([b"own", b"alice"]).name == ""
    assert keys.holder([b"bob"]) is None and Keys([], roster)
