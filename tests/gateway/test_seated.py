"""Requests for a model with slots and one KV cache, on their way; the child is scripted."""

import asyncio
import json

import pytest

from app.gateway.admission import Keys
from app.gateway.rules import Rules
from app.memory.kv_budget import KvBudget
from app.memory.seat import MARK, SlotState
from tests.fakes import Child, body_of, reply, until
from tests.gateway.front import EVENTS, Front

FULL = b'{"error":{"code":500,"message":"Context size has been exceeded.","type":"server_error"}}'
CHAT = "/v1/chat/completions"


def seated(context=4096, slots=2, rules=None):
    return Front(("tiny",), seats=lambda: KvBudget(slots, context), rules=rules)


class Llama(Child):
    """Counts a prompt as `tokens`; answers a request when it `may`, with its own body or with the
    next of `answers`."""

    def __init__(self, path, tokens=10):
        super().__init__(path, self._respond)
        self.tokens, self.answers, self.bodies = tokens, [], []
        self.may = asyncio.Event()
        self.may.set()

    async def _respond(self, reader, writer, head):
        body = await body_of(reader, head)
        target = head.split(b" ")[1]
        if target.endswith(b"input_tokens"):
            return writer.write(reply(b'{"input_tokens":%d}' % self.tokens))
        self.bodies.append(json.loads(body))
        await self.may.wait()
        writer.write(self.answers.pop(0) if self.answers else reply(b"{}"))


def test_the_limit_and_the_number_of_the_seat_go_into_the_body(run, socket):
    async def scenario():
        front = seated()
        async with Llama(socket) as child, front.before(socket):
            await front.ask(CHAT, b'{"max_tokens":5,"id_slot":1}')
            await front.ask(CHAT, b"{}")
            first, second = child.bodies
            assert (first["n_predict"], first["id_slot"]) == (5, -1)
            assert first[MARK] != second[MARK] and 256 < second["n_predict"] < 4096

    run(scenario)


def test_who_does_not_fit_waits_in_our_line(run, socket):
    """Two slots: the third waits, and is served when one of the others has ended."""

    async def scenario():
        front = seated()
        async with Llama(socket) as child, front.before(socket):
            child.may.clear()
            asks = [asyncio.create_task(front.ask(CHAT, b'{"max_tokens":99}')) for _ in range(3)]
            await until(lambda: front.pool.view()[0].waiting == 1 and len(child.bodies) == 2)
            assert front.pool.view()[0].reserved > 0
            child.may.set()
            assert [(await ask)[0] for ask in asks] == [200] * 3
            assert len(child.bodies) == 3 and front.pool.view()[0].reserved == 0

    run(scenario)


def test_a_prompt_that_can_never_be_served_is_refused_with_the_numbers(run, socket):
    async def scenario():
        front = seated()
        async with Llama(socket, tokens=4096) as child, front.before(socket):
            status, _, answer = await front.ask(CHAT, json.dumps({"x": "x" * 5000}).encode())
            error = json.loads(answer)["error"]
            assert (status, error["code"]) == (400, "context_length_exceeded")
            assert "4096 tokens" in error["message"] and not child.bodies
            assert front.pool.view()[0].leased == 0

    run(scenario)


def test_a_long_body_with_a_short_prompt_is_counted_and_served(run, socket):
    async def scenario():
        front = seated()
        async with Llama(socket, tokens=50) as child, front.before(socket):
            assert (await front.ask(CHAT, json.dumps({"x": "x" * 5000}).encode()))[0] == 200
            assert len(child.heads) == 2 and "input_tokens" in child.heads[0]

    run(scenario)


def test_what_cannot_be_counted_has_the_model_for_itself(run, socket):
    async def scenario():
        front = seated()
        async with Llama(socket, tokens=-1) as child, front.before(socket):
            child.tokens = 0
            long = json.dumps({"prompt": {"odd": "x" * 5000}}).encode()
            assert (await front.ask("/v1/completions", long))[0] == 200

    run(scenario)


def test_a_leavers_place_is_given_away_when_its_slot_is_free(run, socket):
    async def scenario():
        front = seated(slots=1)
        async with Llama(socket) as child, front.before(socket):
            child.may.clear()
            leaver = await front.begin(CHAT, b'{"max_tokens":99}')
            await until(lambda: child.bodies)
            front.servers["tiny"].shown = [SlotState(child.bodies[0][MARK], True)]
            await leaver.close()
            await until(lambda: front.pool.view()[0].leased == 0)
            later = asyncio.create_task(front.ask(CHAT, b'{"max_tokens":99}'))
            await asyncio.sleep(0.3)
            assert len(child.bodies) == 1 and front.pool.view()[0].waiting == 1
            front.servers["tiny"].shown = []
            child.may.set()
            assert (await later)[0] == 200

    run(scenario)


def test_what_an_overflow_has_failed_is_repeated_alone(run, socket):
    """Nothing of the answer was told yet. Result: the client sees a good one."""

    async def scenario():
        front = seated()
        async with Llama(socket) as child, front.before(socket):
            child.answers = [reply(FULL, 500), reply(b'{"good":1}')]
            status, _, answer = await front.ask(CHAT, b'{"max_tokens":5}')
            assert (status, json.loads(answer)) == (200, {"good": 1})
            assert [sample.overflows for sample in front.samples] == [1]

    run(scenario)


def test_an_overflow_that_comes_again_is_an_error(run, socket):
    async def scenario():
        front = seated()
        async with Llama(socket) as child, front.before(socket):
            child.answers = [reply(FULL, 500)] * 2
            status, headers, answer = await front.ask(CHAT, b'{"max_tokens":5}')
            assert status == 503 and headers["retry-after"] and len(child.bodies) == 2
            assert "KV cache" in json.loads(answer)["error"]["message"]

    run(scenario)


@pytest.mark.parametrize("words", ["Invalid input batch.", "Compute error."])
def test_what_was_failed_with_others_is_repeated_once_and_then_told_as_it_is(run, socket, words):
    async def scenario():
        front = seated()
        async with Llama(socket) as child, front.before(socket):
            broken = FULL.replace(b"Context size has been exceeded.", words.encode())
            child.answers = [reply(broken, 500)] * 2
            status, _, answer = await front.ask(CHAT, b'{"max_tokens":5}')
            assert status == 500 and json.loads(answer)["error"]["message"] == words
            assert len(child.bodies) == 2 and front.samples[0].overflows == 0

    run(scenario)


def test_a_large_body_is_not_repeated(run, socket):
    """What the child has got of it is given up."""

    async def scenario():
        front = seated(context=1 << 17)
        async with Llama(socket) as child, front.before(socket):
            child.answers = [reply(FULL, 500)]
            body = json.dumps({"max_tokens": 5, "x": "x" * (2 << 20)}).encode()
            assert (await front.ask(CHAT, body))[0] == 503 and len(child.bodies) == 1

    run(scenario)


def test_a_stream_that_an_overflow_ends_is_counted(run, socket):
    async def scenario():
        front = seated()
        async with Llama(socket) as child, front.before(socket):
            event = b"data: " + FULL + b"\n\n"
            child.answers = [EVENTS + b"%x\r\n%b\r\n0\r\n\r\n" % (len(event), event)]
            status, _, answer = await front.ask(CHAT, b'{"max_tokens":5,"stream":true}')
            assert status == 200 and FULL in answer
            assert [sample.overflows for sample in front.samples] == [1]

    run(scenario)


def test_callers_of_one_model_take_turns(run, socket):
    """One caller has many requests waiting; another one's single request is served next but one."""

    async def scenario():
        front = seated(slots=1, rules=Rules(Keys([]), routed=True))
        async with Llama(socket) as child, front.before(socket):
            child.may.clear()

            async def ask(session, number):
                body = b'{"max_tokens":99,"x":"%b%d"}' % (session, number)
                return await front.ask(CHAT, body, headers=b"session: %b\r\n" % session)

            crowd = [asyncio.create_task(ask(b"crowd", n)) for n in range(5)]
            await until(lambda: front.pool.view()[0].waiting == 4)
            other = asyncio.create_task(ask(b"other", 0))
            await until(lambda: front.pool.view()[0].waiting == 5)
            child.may.set()
            await asyncio.gather(*crowd, other)
            served = [body["x"] for body in child.bodies]
            assert served.index("other0") <= 2
            assert [x for x in served if "crowd" in x] == [f"crowd{n}" for n in range(5)]

    run(scenario)


@pytest.mark.parametrize("stream", [False, True])
def test_a_response_that_ends_at_its_limit_is_incomplete(run, socket, stream):
    async def scenario():
        front = seated()
        response = {"status": "completed", "output": [{"id": "a"}], "usage": {"output_tokens": 5}}
        async with Llama(socket) as child, front.before(socket):
            told = json.dumps({"type": "response.completed", "response": response}).replace(
                '{"type": ', '{"type":'
            )
            told = told.replace('"response.completed", ', '"response.completed",')
            event = f"event: response.completed\ndata: {told}\n\n".encode()
            whole = reply(
                json.dumps(response).encode(), extra=b"content-type: application/json\r\n"
            )
            streamed = EVENTS + b"%x\r\n%b\r\n0\r\n\r\n" % (len(event), event)
            child.answers = [streamed if stream else whole]
            body = {"max_output_tokens": 5, "input": "a", "stream": stream}
            _, _, answer = await front.ask("/v1/responses", json.dumps(body).encode())
            if stream:
                assert answer.startswith(b"event: response.incomplete\n")
                answer = json.dumps(json.loads(answer.split(b"data: ")[1])["response"])
            found = json.loads(answer)
            assert found["status"] == found["output"][-1]["status"] == "incomplete"
            assert found["incomplete_details"] == {"reason": "max_output_tokens"}

    run(scenario)
